// Evergreen: what Swift cannot call by itself: libdispatch's main queue, threads' names and cores.
// SPDX-License-Identifier: MIT
//
// The main queue's functions are libdispatch's interface for run loops. Weak, for the library comes with Swift's
// concurrency: nobody links it for this.

#define _GNU_SOURCE
#include "CConcurrency.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __linux__

#include <sched.h>
#include <sys/syscall.h>

bool evg_is_main_thread(void) { return syscall(SYS_gettid) == getpid(); }

int evg_core_count(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void evg_name_thread(const char *name) {
  char cut[16];
  snprintf(cut, sizeof cut, "%s", name);
  pthread_setname_np(pthread_self(), cut);
}

extern int _dispatch_get_main_queue_handle_4CF(void) __attribute__((weak));
extern void _dispatch_main_queue_callback_4CF(void *message) __attribute__((weak));

int evg_main_queue_descriptor(void) {
  if (!_dispatch_get_main_queue_handle_4CF || !_dispatch_main_queue_callback_4CF) return -1;
  return _dispatch_get_main_queue_handle_4CF();
}

void evg_serve_main_queue(void) { _dispatch_main_queue_callback_4CF(NULL); }

#else

bool evg_is_main_thread(void) { return pthread_main_np(); }
int evg_core_count(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
void evg_name_thread(const char *name) { pthread_setname_np(name); }
int evg_main_queue_descriptor(void) { return -1; }
void evg_serve_main_queue(void) {}

#endif
