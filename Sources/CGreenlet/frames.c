// Evergreen: where a context is, read from its stack.
// SPDX-License-Identifier: MIT
//
// Swift keeps frame pointers, and so does C unless it is told not to: functions that do not are left out,
// or end the list. Nothing outside the stack is read.

#include "frame.h"
#include "internal.h"

/// What the functions of a frame pointer's chain begin with.
typedef struct link {
  const struct link *caller;
  uintptr_t return_address;
} link;

static bool lies_in(const evg_context *context, const link *place) {
  uintptr_t low = (uintptr_t)context->stack_low, address = (uintptr_t)place;
  return address % sizeof(void *) == 0 && address >= low &&
         address + sizeof(link) <= low + context->stack_size;
}

__attribute__((no_sanitize("address", "thread"))) size_t evg_context_frames(
    const evg_context *context, const void **frames, size_t most) {
  const link *place;
  if (context == evg_self.current) {
    place = __builtin_frame_address(0);
  } else if (context->stack_pointer && context->state != EVG_FREE) {
    place = (const link *)((const evg_frame *)context->stack_pointer)->frame_pointer;
  } else {
    return 0;
  }
  size_t count = 0;
  while (count < most && lies_in(context, place) && place->return_address) {
    // The call, not what comes after it, which may be another function.
    frames[count++] = (const void *)(place->return_address - 1);
    if (place->caller <= place) break;
    place = place->caller;
  }
  return count;
}
