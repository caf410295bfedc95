// Evergreen: what the files of CGreenlet share among themselves.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CGREENLET_INTERNAL_H
#define EVERGREEN_CGREENLET_INTERNAL_H

#include "CGreenlet.h"

#define EVG_LIKELY(x) __builtin_expect(!!(x), 1)
#define EVG_UNLIKELY(x) __builtin_expect(!!(x), 0)

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EVG_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if __has_feature(thread_sanitizer)
#define EVG_TSAN 1
#include <sanitizer/tsan_interface.h>
#endif
#endif

enum { EVG_STACK_MIN_SHIFT = 15, EVG_STACK_MAX_SHIFT = 30 };

/// The lowest byte of a pooled or fresh stack of 2^shift bytes; NULL with the reason in
/// `evg_stack_error`.
uint8_t *evg_stack_acquire(unsigned shift);
void evg_stack_release(uint8_t *low, unsigned shift);
void evg_stacks_unmap(void);

/// Points `self->words` into this thread's memory. False if the probe has not found them.
bool evg_words_attach(evg_thread *self);

/// Points `self->exceptions` into this thread's memory.
void evg_exceptions_attach(evg_thread *self);

void evg_overflow_thread_attach(void);
void evg_overflow_thread_detach(void);

/// Reports the accesses that `context` itself holds, in debug builds.
void evg_access_check(evg_context *context);

// Exported by the Swift runtime, used by the code that the compiler generates.
void swift_beginAccess(void *pointer, void *buffer, uintptr_t flags, void *pc);
void swift_endAccess(void *buffer);
void swift_task_enterThreadLocalContext(char *state);
void swift_task_exitThreadLocalContext(char *state);
void swift_task_localValuePush(const void *key, void *value, const void *type);
void swift_task_localValuePop(void);
void *swift_task_localValueGet(const void *key);
void *swift_task_getCurrent(void);

#endif
