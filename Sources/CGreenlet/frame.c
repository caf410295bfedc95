// Evergreen: the first frame of a context.
// SPDX-License-Identifier: MIT

#include "frame.h"

#include <stddef.h>

#define AT(member, offset) \
  _Static_assert(offsetof(evg_frame, member) == (offset), "switch-*.S expects " #member " there")

#if defined(__x86_64__)
AT(mxcsr, 0);
AT(x87_control, 4);
AT(r15, 8);
AT(r12, 32);
AT(rbx, 40);
AT(frame_pointer, 48);
AT(return_address, 56);
_Static_assert(sizeof(evg_frame) == 64, "switch-x86_64.S expects this size");
#else
AT(frame_pointer, 0);
AT(return_address, 8);
AT(x19, 16);
AT(d8, 96);
AT(fpcr, 160);
_Static_assert(sizeof(evg_frame) == 176, "switch-aarch64.S expects this size");
#endif

// The bottom of every context's stack; in switch-<machine>.S.
void evg_trampoline(void) __attribute__((visibility("hidden")));

void *evg_first_frame(void *top, void (*entry)(void *), void *argument) {
  // Two zero words stay above the frame: the end of the chain for walkers that ignore the CFI.
  uintptr_t bottom = ((uintptr_t)top & ~(uintptr_t)15) - 16;
  *(uint64_t *)bottom = 0;
  *(uint64_t *)(bottom + 8) = 0;
  evg_frame *frame = (evg_frame *)(bottom - sizeof(evg_frame));
  *frame = (evg_frame){0};
  // One instruction in: a walker looks up `return address - 1`, which must be in the trampoline.
#if defined(__x86_64__)
  frame->return_address = (uintptr_t)evg_trampoline + 1;
  frame->rbx = (uintptr_t)entry;
  frame->r12 = (uintptr_t)argument;
  frame->mxcsr = 0x1f80;
  frame->x87_control = 0x037f;
#else
  frame->return_address = (uintptr_t)evg_trampoline + 4;
  frame->x19 = (uintptr_t)entry;
  frame->x20 = (uintptr_t)argument;
#endif
  return frame;
}
