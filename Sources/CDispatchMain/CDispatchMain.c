// Evergreen: libdispatch's main queue, for whoever runs the main thread's loop.
// SPDX-License-Identifier: MIT
//
// The functions are libdispatch's interface for run loops. Weak, for the library comes with Swift's
// concurrency: nobody links it for this.

#include "CDispatchMain.h"

#include <stddef.h>

#ifdef __linux__

#include <sys/syscall.h>
#include <unistd.h>

bool evg_is_main_thread(void) { return syscall(SYS_gettid) == getpid(); }

extern int _dispatch_get_main_queue_handle_4CF(void) __attribute__((weak));
extern void _dispatch_main_queue_callback_4CF(void *message) __attribute__((weak));

int evg_main_queue_descriptor(void) {
  if (!_dispatch_get_main_queue_handle_4CF || !_dispatch_main_queue_callback_4CF) return -1;
  return _dispatch_get_main_queue_handle_4CF();
}

void evg_serve_main_queue(void) { _dispatch_main_queue_callback_4CF(NULL); }

#else

#include <pthread.h>

bool evg_is_main_thread(void) { return pthread_main_np(); }
int evg_main_queue_descriptor(void) { return -1; }
void evg_serve_main_queue(void) {}

#endif
