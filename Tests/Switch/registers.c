// Evergreen: does everything that must survive a switch survive it?
// SPDX-License-Identifier: MIT

// Eight contexts, the main stack among them, switch to one another at random. Each loads random
// values into all callee-saved registers before and compares after; each has a rounding mode and
// an x87 precision of its own, which nobody sets again after its start.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#include "frame.h"
#include "patterned.h"

enum { CONTEXTS = 8, SWITCHES = 400000, STACK = 128 * 1024 };

static void *suspended[CONTEXTS];
static char *stacks[CONTEXTS];
static long switches, bad;

#define CHECK(condition, ...)                                 \
  do {                                                        \
    if (!(condition) && bad++ < 10) {                         \
      fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);         \
      fprintf(stderr, __VA_ARGS__), fputc('\n', stderr);      \
    }                                                         \
  } while (0)

static uint64_t random_word(void) {  // splitmix64
  static uint64_t state = 1;
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

// MARK: The floating-point environment, as one comparable word

static uint64_t float_environment(void) {
#if defined(__x86_64__)
  uint32_t mxcsr;
  uint16_t control;
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
  return (uint64_t)control << 32 | (mxcsr & 0xffc0);
#else
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
#endif
}

static void set_float_environment(uint64_t word) {
#if defined(__x86_64__)
  uint32_t mxcsr = (uint32_t)word;
  uint16_t control = (uint16_t)(word >> 32);
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(control));
#else
  __asm__ volatile("msr fpcr, %0" : : "r"(word));
#endif
}

#if defined(__x86_64__)
static const uint64_t float_default = 0x037full << 32 | 0x1f80;
#else
static const uint64_t float_default = 0;
#endif

// Some pairs of contexts differ in both words, some in one of them, some in none.
static uint64_t float_environment_of(int context) {
  uint64_t rounding = context & 3;
#if defined(__x86_64__)
  uint64_t precision = context & 4 ? 0x0200 : 0x0300, x87_rounding = context == 1 ? 0 : rounding;
  return (0x007f | precision | x87_rounding << 10) << 32 | 0x1f80 | rounding << 13;
#else
  return rounding << 22 | (uint64_t)(context == 5) << 24;
#endif
}

static double one_tenth(void) {
  volatile double one = 1, ten = 10, tenth = one / ten;
  return tenth;
}

// MARK: Backtraces

struct walk {
  int frames;
  void *outermost;
};

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *argument) {
  struct walk *walk = argument;
  if (_Unwind_GetIP(context) == 0) return _URC_NO_REASON;  // libgcc reports the end as a frame
  walk->frames++;
  walk->outermost = _Unwind_FindEnclosingFunction((void *)_Unwind_GetIP(context));
  return walk->frames < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static __attribute__((noinline)) struct walk walk_from_depth(int depth) {
  struct walk walk = {0, NULL};
  if (depth == 0) {
    _Unwind_Backtrace(note_frame, &walk);
  } else {
    walk = walk_from_depth(depth - 1);
  }
  __asm__ volatile("" : : : "memory");  // no tail call
  return walk;
}

static __attribute__((noinline)) void check_backtrace(void) {
  struct walk shallow = walk_from_depth(0), deep = walk_from_depth(9);
  CHECK(shallow.frames >= 4 && shallow.frames <= 6, "%d frames", shallow.frames);
#if !defined(__OPTIMIZE__)  // an optimizer may unroll the recursion
  CHECK(deep.frames == shallow.frames + 9, "%d and %d frames", shallow.frames, deep.frames);
#endif
  CHECK(deep.frames < 20, "%d frames", deep.frames);
  CHECK(shallow.outermost == (void *)evg_trampoline, "the walk ended at %p", shallow.outermost);
  CHECK(deep.outermost == (void *)evg_trampoline, "the walk ended at %p", deep.outermost);
}

// MARK: Contexts

static __attribute__((noinline)) void switch_to(int to, int from) {
  uint64_t in[PATTERNED], out[PATTERNED];
  for (int i = 0; i < PATTERNED; i++) in[i] = random_word();
  memset(out, 0, sizeof(out));
  switches++;
  patterned_switch(&suspended[from], suspended[to], in, out);
  for (int i = 0; i < PATTERNED; i++) {
    CHECK(in[i] == out[i], "context %d, register %d of patterned.h: %#llx became %#llx", from, i,
          (unsigned long long)in[i], (unsigned long long)out[i]);
  }
  CHECK(float_environment() == float_environment_of(from), "context %d has float environment %#llx",
        from, (unsigned long long)float_environment());
}

static void switch_at_random(int from) {
  int to = (int)(random_word() % (CONTEXTS - 1));
  switch_to(to < from ? to : to + 1, from);
}

void probed_entry(void *argument) {
  uintptr_t sp = probed_stack_pointer;
  int me = (int)((uintptr_t)argument - 0x5a5a0000u);
  if (me < 1 || me >= CONTEXTS) {
    fprintf(stderr, "the argument is %p\n", argument);
    exit(1);
  }
#if defined(__x86_64__)
  sp += 8;  // the return address
#endif
  CHECK(sp % 16 == 0, "sp is %#lx at entry", (unsigned long)sp);
  CHECK((uintptr_t)stacks[me] + STACK - sp <= 64, "much of the stack is unused");
  CHECK(float_environment() == float_default, "context %d starts with float environment %#llx", me,
        (unsigned long long)float_environment());
  set_float_environment(float_environment_of(me));
  check_backtrace();
  double tenth = one_tenth();
  for (;;) {
    if (switches < SWITCHES) {
      switch_at_random(me);
    } else {
      check_backtrace();
      CHECK(one_tenth() == tenth, "context %d rounds differently now", me);
      switch_to(0, me);
    }
  }
}

int main(void) {
  set_float_environment(float_environment_of(0));
  for (int i = 1; i < CONTEXTS; i++) {
    stacks[i] = malloc(STACK);
    // Not every top is aligned.
    char *top = stacks[i] + STACK - i + 1;
    suspended[i] = evg_first_frame(top, entry_probe, (void *)(0x5a5a0000ul + i));
    evg_frame *frame = suspended[i];
    CHECK((uintptr_t)frame % 16 == 0 && (char *)frame + EVG_FRAME_SIZE <= stacks[i] + STACK,
          "the first frame lies at %p", (void *)frame);
  }
  while (switches < SWITCHES) switch_at_random(0);
  for (int i = 1; i < CONTEXTS; i++) switch_to(i, 0);

  double near = one_tenth();
  set_float_environment(float_environment_of(3));
  CHECK(one_tenth() != near, "rounding towards zero changes nothing: the test tests nothing");
  evg_reset_float_environment();
  CHECK(float_environment() == float_default, "not reset: %#llx",
        (unsigned long long)float_environment());
  CHECK(one_tenth() == near, "not reset");
  evg_reset_float_environment();
  CHECK(float_environment() == float_default, "the second reset changed something");

  printf("%s: %ld switches, %ld bad\n", ARCHITECTURE, switches, bad);
  return bad != 0;
}
