// Evergreen: the patch of libc in a program that was not written for it.
// SPDX-License-Identifier: MIT
//
// The dynamic linker loads this library into an unmodified program (LD_PRELOAD), and runs its
// constructor before the program's own code. From then on the hooks of CMonkey are what the program
// calls. What it must not notice: see CDescriptors.h for descriptors; no thread is started, no handler
// of a signal is installed, nothing is written unless a report was asked for.
//
// Settings are variables of the environment, which `evergreen run` sets:
//
//   EVERGREEN_RUN_FAMILIES  families of calls, as "sockets,dns"; without it, all
//   EVERGREEN_RUN_REPORT    the process that reports at its end what has waited
//   EVERGREEN_RUN_THREADS   the process whose threads are greenlets
//
// EVERGREEN_WATCHDOG and EVERGREEN_BACKEND are for programs that were written for this: not heeded.

#ifndef EVERGREEN_CPRELOAD_H
#define EVERGREEN_CPRELOAD_H

#include <stddef.h>

/// Defined in Swift: tells the green calls how to wait.
void evg_preload_begin(void);

/// Has all waits noted from now on, and reported when the program ends by `exit` or by returning from
/// `main`.
void evg_report_begin(void);

// MARK: Threads as greenlets

/// From now on the program's threads are greenlets of its main thread.
void evg_green_threads_begin(void);

/// Defined in Swift: has a greenlet run the thread, soon.
void evg_preload_spawn(void *_Nonnull thread, size_t stack_size);

/// The thread itself, in its greenlet.
void evg_green_thread_run(void *_Nonnull thread);

/// Its greenlet has ended.
void evg_green_thread_ended(void *_Nonnull thread);

#endif
