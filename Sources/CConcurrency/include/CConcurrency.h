// Evergreen: what Swift cannot call by itself: libdispatch's main queue, threads' names and cores.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CCONCURRENCY_H
#define EVERGREEN_CCONCURRENCY_H

#include <stdbool.h>

/// Whether the caller is the process's first thread.
bool evg_is_main_thread(void);

/// How many cores the process may use.
int evg_core_count(void);

/// Names the calling thread; what is longer than 15 bytes is cut.
void evg_name_thread(const char *name);

// MARK: The main queue, for whoever runs the main thread's loop

/// Readable when there is work. -1 if libdispatch is not in the program.
int evg_main_queue_descriptor(void);

/// Does the work that is there. On the main thread.
void evg_serve_main_queue(void);

#endif
