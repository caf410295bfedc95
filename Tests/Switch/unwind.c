// Evergreen: is the CFI of the switch right at every instruction?
// SPDX-License-Identifier: MIT

// A profiler, a crash and a debugger may stop the program between any two instructions, so we do
// too, and walk the stack from a signal handler. Each walk must lead from evg_switch_stack to its
// caller and on to the end of that same stack, and must find the caller's registers unharmed.
//
// x86-64: the processor's trap flag stops it after each instruction.
// aarch64: `brk` is planted on one instruction after another.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include "frame.h"
#include "patterned.h"

enum { STACK = 256 * 1024 };

static void *suspended[2];
static uint64_t pattern[2][PATTERNED];
static char *stack;
static volatile sig_atomic_t walked, on_other_stack, stepping;
static int bad;

#if defined(__x86_64__)
void start_stepping(void);
static const int dwarf_number[PATTERNED] = {3, 6, 12, 13, 14, 15};
enum { RED_ZONE = 128 };
#else
static const int dwarf_number[PATTERNED] = {19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
                                            72, 73, 74, 75, 76, 77, 78, 79};
enum { RED_ZONE = 0 };
#endif

struct walk {
  int context;  // whose stack we are on
  int frames, frame_of_switch, frame_of_caller, frame_of_trampoline, wrong_registers;
};

static void *enclosing(uintptr_t pc) { return _Unwind_FindEnclosingFunction((void *)pc); }

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *argument) {
  struct walk *walk = argument;
  int before = 0;
  uintptr_t pc = _Unwind_GetIPInfo(context, &before);
  if (pc == 0) return _URC_NO_REASON;  // libgcc reports the end as a frame
  walk->frames++;
  if (before) pc++;  // stopped at it by a signal; otherwise it is a return address
  void *function = enclosing(pc);
  if (before && function == (void *)evg_switch_stack) walk->frame_of_switch = walk->frames;
  if (function == (void *)evg_trampoline) walk->frame_of_trampoline = walk->frames;
  if (function == (void *)patterned_switch) {
    walk->frame_of_caller = walk->frames;
    for (int i = 0; i < PATTERNED; i++) {
      uint64_t value = _Unwind_GetGR(context, dwarf_number[i]);
      walk->wrong_registers += value != pattern[walk->context][i];
    }
  }
  return walk->frames < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static void walk(uintptr_t pc, uintptr_t sp) {
  int context = sp > (uintptr_t)stack && sp <= (uintptr_t)stack + STACK;
  // Nothing may be looked for below the stack pointer. (The handler has a stack of its own.)
  memset((void *)(sp - RED_ZONE - 512), 0xdd, 512);
  struct walk walk = {.context = context};
  _Unwind_Backtrace(note_frame, &walk);
  walked++;
  on_other_stack += context;
  int outermost_is_trampoline = walk.frame_of_trampoline == walk.frames;
  int called_by_pattern = walk.frame_of_caller == walk.frame_of_switch + 1;
  // A context that is switched to for the first time has no caller yet.
  int just_born = walk.frame_of_trampoline == walk.frame_of_switch + 1;
  int right = walk.frame_of_switch && (called_by_pattern || (context && just_born)) &&
              outermost_is_trampoline == context && walk.frames < 20 && walk.wrong_registers == 0;
  if (!right && bad++ < 10) {
    fprintf(stderr,
            "at evg_switch_stack + %ld of context %d: frames %d, of switch %d, of its caller %d, "
            "of trampoline %d, registers wrong %d\n",
            (long)(pc - (uintptr_t)evg_switch_stack), context, walk.frames, walk.frame_of_switch,
            walk.frame_of_caller, walk.frame_of_trampoline, walk.wrong_registers);
  }
}

static __attribute__((noinline)) void switch_to(int to, int from) {
  uint64_t out[PATTERNED];
  patterned_switch(&suspended[from], suspended[to], pattern[from], out);
}

#if defined(__x86_64__)

static void on_trap(int signal, siginfo_t *info, void *argument) {
  (void)signal, (void)info;
  greg_t *registers = ((ucontext_t *)argument)->uc_mcontext.gregs;
  if (!stepping) registers[REG_EFL] &= ~0x100;
  uintptr_t pc = registers[REG_RIP];
  if (enclosing(pc + 1) == (void *)evg_switch_stack) walk(pc, registers[REG_RSP]);
}

static void set_rounding(uint32_t mxcsr) { __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr)); }

void probed_entry(void *argument) {
  (void)argument;
  for (;;) switch_to(0, 1);
}

static void step_through(void) {
  // With the same and with another rounding mode, because the switch branches on that.
  for (int way = 0; way < 2; way++) {
    suspended[1] = evg_first_frame(stack + STACK, probed_entry, NULL);
    set_rounding(way ? 0x3f80 : 0x1f80);
    stepping = 1;
    start_stepping();
    switch_to(1, 0);
    switch_to(1, 0);
    stepping = 0;
  }
  set_rounding(0x1f80);
}

#else

static uint32_t *planted;
static uint32_t covered;

static void set_trap(uint32_t *at) {
  planted = at;
  covered = *at;
  *at = 0xd4200000;  // brk #0
  __builtin___clear_cache((char *)at, (char *)(at + 1));
}

static void lift_trap(void) {
  *planted = covered;
  __builtin___clear_cache((char *)planted, (char *)(planted + 1));
}

static void on_trap(int signal, siginfo_t *info, void *argument) {
  (void)signal, (void)info;
  mcontext_t *registers = &((ucontext_t *)argument)->uc_mcontext;
  if (registers->pc != (uintptr_t)planted) abort();
  lift_trap();  // so that the unwinder, and then the processor, find what belongs there
  walk(registers->pc, registers->sp);
}

static uint32_t *target;  // the instruction to stop at

static void switch_with_trap(int to, int from) {
  set_trap(target);
  switch_to(to, from);
}

void probed_entry(void *argument) {
  for (;;) {
    lift_trap();  // one that was stepped over
    if (argument) __asm__ volatile("msr fpcr, %0" : : "r"(1ul << 22));
    switch_with_trap(0, 1);
  }
}

static void step_through(void) {
  long page = sysconf(_SC_PAGESIZE);
  uintptr_t from = (uintptr_t)evg_switch_stack & -page;
  uintptr_t to = ((uintptr_t)evg_trampoline + page) & -page;
  if (mprotect((void *)from, to - from, PROT_READ | PROT_WRITE | PROT_EXEC)) abort();
  for (uintptr_t way = 0; way < 2; way++) {
    target = (uint32_t *)evg_switch_stack;
    for (; enclosing((uintptr_t)target + 1) == (void *)evg_switch_stack; target++) {
      suspended[1] = evg_first_frame(stack + STACK, probed_entry, (void *)way);
      for (int i = 0; i < 2; i++) {
        switch_with_trap(1, 0);
        lift_trap();
      }
    }
  }
}

#endif

int main(void) {
  for (int i = 0; i < PATTERNED; i++) {
    pattern[0][i] = 0x1111111100000000 + i;
    pattern[1][i] = 0x2222222200000000 + i;
  }
  stack = malloc(STACK);
  stack_t handlers = {.ss_sp = malloc(STACK), .ss_size = STACK};
  sigaltstack(&handlers, NULL);
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGTRAP, &action, NULL);
  step_through();
  int enough = on_other_stack > 60 && walked - on_other_stack > 60;
  if (!enough) fprintf(stderr, "%d of the walks on the other stack\n", (int)on_other_stack);
  printf("%s: %d walks from within the switch, %d bad\n", ARCHITECTURE, (int)walked, bad);
  return bad != 0 || !enough;
}
