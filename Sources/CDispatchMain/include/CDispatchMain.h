// Evergreen: libdispatch's main queue, for whoever runs the main thread's loop.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CDISPATCHMAIN_H
#define EVERGREEN_CDISPATCHMAIN_H

#include <stdbool.h>

/// Whether the caller is the process's first thread.
bool evg_is_main_thread(void);

/// Readable when there is work. -1 if libdispatch is not in the program.
int evg_main_queue_descriptor(void);

/// Does the work that is there. On the main thread.
void evg_serve_main_queue(void);

#endif
