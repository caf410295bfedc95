// Evergreen: says which greenlet overflowed its stack.
// SPDX-License-Identifier: MIT
//
// A fault in a guard is named here, then the handler of before, Swift's backtracer for instance,
// is put back and the instruction faults again into it. Handlers need a stack of their own, and
// the runtime gives one to the main thread only, so every thread with a hub gets one.

#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

enum { ALTERNATE_SIZE = 64 * 1024 };

static struct sigaction earlier_segv, earlier_bus;
static __thread void *alternate;

// snprintf may allocate; a handler may not.
static char *append(char *at, const char *end, const char *text) {
  while (*text && at < end) *at++ = *text++;
  return at;
}

static char *append_number(char *at, const char *end, uint64_t value, unsigned base) {
  char digits[24];
  int count = 0;
  do {
    digits[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value);
  while (count && at < end) *at++ = digits[--count];
  return at;
}

static void name_overflow(const evg_context *context, const void *fault) {
  char line[512];
  const char *end = line + sizeof line - 1;
  char *at = append(line, end, "evergreen: fatal: greenlet ");
  at = append_number(at, end, context->id, 10);
  if (context->name) {
    at = append(at, end, " \"");
    at = append(at, end, context->name);
    at = append(at, end, "\"");
  }
  at = append(at, end, " overflowed its ");
  at = append_number(at, end, context->stack_size / 1024, 10);
  at = append(at, end, " KiB stack (fault at 0x");
  at = append_number(at, end, (uintptr_t)fault, 16);
  at = append(at, end, "); spawn it with a larger stackSize, or recurse less\n");
  (void)!write(STDERR_FILENO, line, (size_t)(at - line));
}

static void on_fault(int signal, siginfo_t *info, void *machine) {
  (void)machine;
  const evg_context *context = evg_self.current;
  if (context && context != &evg_self.main && context->stack_low) {
    const uint8_t *fault = info->si_addr;
    if (fault >= context->stack_low - EVG_GUARD_SIZE && fault < context->stack_low) {
      name_overflow(context, fault);
    }
  }
  sigaction(signal, signal == SIGSEGV ? &earlier_segv : &earlier_bus, NULL);
  // A fault happens again now, into the handler of before. What somebody has sent does not.
  if (info->si_code <= 0) raise(signal);
}

static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, &earlier_segv);
  sigaction(SIGBUS, &action, &earlier_bus);  // what macOS sends for a guard
}

void evg_overflow_thread_attach(void) {
  if (evg_adopts_threads) return;  // a program that was not written for this: its faults are its own
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
  stack_t current;
  if (sigaltstack(NULL, &current) != 0 || !(current.ss_flags & SS_DISABLE)) return;
  void *memory = mmap(NULL, ALTERNATE_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  stack_t fresh = {.ss_sp = memory, .ss_size = ALTERNATE_SIZE};
  if (sigaltstack(&fresh, NULL) == 0) {
    alternate = memory;
  } else {
    munmap(memory, ALTERNATE_SIZE);
  }
}

void evg_overflow_thread_detach(void) {
  if (!alternate) return;
  stack_t none = {.ss_flags = SS_DISABLE};
  sigaltstack(&none, NULL);
  munmap(alternate, ALTERNATE_SIZE);
  alternate = NULL;
}
