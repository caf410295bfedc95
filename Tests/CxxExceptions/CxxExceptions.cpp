// Evergreen: C++ that throws, for tests of switches in its handlers
// SPDX-License-Identifier: MIT

#include "CxxExceptions.h"

#include <atomic>
#include <csetjmp>
#include <exception>
#include <vector>

namespace {

std::atomic<int> live{0};

struct Numbered {
  int number;
  explicit Numbered(int number) : number(number) { live++; }
  Numbered(const Numbered &other) : number(other.number) { live++; }
  ~Numbered() {
    number = -1;
    live--;
  }
};

struct CallsInDestructor {
  cxx_body body;
  void *argument;
  int *before, *after;
  ~CallsInDestructor() {
    *before = std::uncaught_exceptions();
    body(argument);
    *after = std::uncaught_exceptions();
  }
};

}  // namespace

int cxx_handle(int number, cxx_body body, void *argument) {
  try {
    throw Numbered(number);
  } catch (const Numbered &caught) {
    body(argument);
    return caught.number;
  }
}

int cxx_rethrow(int number, cxx_body body, void *argument) {
  try {
    try {
      throw Numbered(number);
    } catch (...) {
      body(argument);
      throw;
    }
  } catch (const Numbered &caught) {
    return caught.number;
  }
}

int cxx_nest(int outer, int inner, cxx_body body, void *argument) {
  int innerCaught = 0;
  try {
    try {
      throw Numbered(outer);
    } catch (...) {
      body(argument);
      try {
        try {
          throw Numbered(inner);
        } catch (...) {
          body(argument);
          throw;
        }
      } catch (const Numbered &caught) {
        innerCaught = caught.number;
      }
      body(argument);
      throw;
    }
  } catch (const Numbered &caught) {
    return 1000 * caught.number + innerCaught;
  }
}

int cxx_unwind(int number, cxx_body body, void *argument) {
  int before = -1, after = -1;
  try {
    CallsInDestructor calls{body, argument, &before, &after};
    throw Numbered(number);
  } catch (const Numbered &caught) {
    if (caught.number != number) return -1;
  }
  return 100 * before + 10 * after + std::uncaught_exceptions();
}

void cxx_jump_out(int number, cxx_body body, void *argument) {
  // What is jumped over is never freed. It can be reached from here, so that no checker takes it
  // for a leak.
  static auto *lost = new std::vector<std::exception_ptr>;
  std::jmp_buf place;
  if (setjmp(place)) return;
  try {
    throw Numbered(number);
  } catch (...) {
    lost->push_back(std::current_exception());
    body(argument);
    std::longjmp(place, 1);
  }
}

int cxx_current() {
  std::exception_ptr current = std::current_exception();
  if (!current) return 0;
  try {
    std::rethrow_exception(current);
  } catch (const Numbered &caught) {
    return caught.number;
  }
}

int cxx_uncaught() { return std::uncaught_exceptions(); }

int cxx_live() { return live; }
