// Evergreen: the socket calls that Swift does not see, or that need care with signals.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CSOCKETS_H
#define EVERGREEN_CSOCKETS_H

#if defined(__swift__) && defined(__linux__)
// libc's types are to be those of Swift's Glibc, not this module's.
#pragma clang module import SwiftGlibc
#endif
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

/// `accept`, and the new descriptor neither blocks nor survives an exec.
int evg_accept(int listener, void *_Nullable address, uint32_t *_Nullable length);

/// `sendfile` that reports a broken pipe as EPIPE alone, without SIGPIPE.
ssize_t evg_send_file(int socket, int file, int64_t offset, size_t count);

#endif
