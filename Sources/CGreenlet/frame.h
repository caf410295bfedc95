// Evergreen: the frame that a suspended context leaves on its stack, and the switch between two.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_FRAME_H
#define EVERGREEN_FRAME_H

#include <stdint.h>

// The layout is known in three places: here, in switch-<machine>.S, where it is drawn, and in the
// debugger's script, which reads this type. `frame.c` checks the offsets that the assembly uses.
#if defined(__x86_64__)
typedef struct evg_frame {
  uint32_t mxcsr;
  uint16_t x87_control;
  uint16_t unused;
  uint64_t r15, r14, r13, r12, rbx;
  uint64_t frame_pointer;
  uint64_t return_address;
} evg_frame;
#elif defined(__aarch64__)
typedef struct evg_frame {
  uint64_t frame_pointer;
  uint64_t return_address;
  uint64_t x19, x20, x21, x22, x23, x24, x25, x26, x27, x28;
  uint64_t d8, d9, d10, d11, d12, d13, d14, d15;  // the ABI keeps only the low halves of v8-v15
  uint64_t fpcr;
  uint64_t unused;
} evg_frame;
#else
#error "Evergreen knows how to switch stacks on x86-64 and arm64 only"
#endif

/// Bytes that `evg_switch_stack` leaves on the stack of a suspended context: an `evg_frame`.
enum { EVG_FRAME_SIZE = sizeof(evg_frame) };

/// Saves the callee-saved state on the current stack, stores the stack pointer to `*save`, loads
/// `to` and returns on that stack.
///
/// Call it from one place only: its `ret` is then always predicted, which makes it three times as fast.
void evg_switch_stack(void **save, void *to) __attribute__((visibility("hidden")));

/// Writes the first frame below `top`, which is rounded down to 16 bytes, so that switching to the
/// result calls `entry(argument)` on that stack. `entry` never returns.
void *evg_first_frame(void *top, void (*entry)(void *), void *argument)
    __attribute__((visibility("hidden")));

/// Gives the running code the rounding mode and the exception masks that a new context starts
/// with; for a context that takes over the stack of a finished one without a switch.
///
/// Reading is cheap and writing is not (60 ns on some x86), hence the comparisons.
static inline void evg_reset_float_environment(void) {
#if defined(__x86_64__)
  uint32_t mxcsr;
  uint16_t control;
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
  if ((mxcsr & 0xffc0) != 0x1f80) {  // without the flags of exceptions, as in the switch
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
  }
  if (control != 0x037f) {
    control = 0x037f;
    __asm__ volatile("fldcw %0" : : "m"(control));
  }
#else
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  if (fpcr != 0) {
    __asm__ volatile("msr fpcr, xzr");
  }
#endif
}

#endif
