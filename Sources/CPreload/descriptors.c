// Evergreen: calls that make descriptors for libev, or end all of the program's.
// SPDX-License-Identifier: MIT
//
// libev makes its descriptors by libc's functions, so these are taken over too: what the library makes
// for itself is moved up out of the program's way. What the program makes is not touched.

#ifdef __linux__

#define _GNU_SOURCE
#include "green.h"
#include "symbols.h"

#include <CDescriptors.h>
#include <CGreenCalls.h>
#include <CGreenlet.h>
#include <CLibev.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/// Whether the library calls, for a loop: while it makes one, or on the stack where one runs.
static bool is_for_a_loop(void) { return evg_own_works > 0 || evg_is_hub(); }

static int placed(int fd) { return is_for_a_loop() ? evg_keep_apart(fd) : fd; }

SYMBOL(int, epoll_create, int size) { return placed(REAL(epoll_create)(size)); }

SYMBOL(int, epoll_create1, int flags) { return placed(REAL(epoll_create1)(flags)); }

SYMBOL(int, eventfd, unsigned count, int flags) {
  return placed(REAL(eventfd)(count, flags));
}

SYMBOL(int, timerfd_create, int clock, int flags) {
  return placed(REAL(timerfd_create)(clock, flags));
}

SYMBOL(int, inotify_init, void) { return placed(REAL(inotify_init)()); }

SYMBOL(int, inotify_init1, int flags) { return placed(REAL(inotify_init1)(flags)); }

/// The program has closed the loop's set by a raw system call, which libev takes for a mistake of ours:
/// it gets an empty one of the same number, and soon makes all anew.
static bool replace_set(int set) {
  if (!evg_is_own(set) || syscall(SYS_fcntl, set, F_GETFD) != -1) return false;
  const int fresh = (int)syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (fresh == -1) return false;
  const bool is_there = syscall(SYS_dup3, fresh, set, O_CLOEXEC) == set;
  syscall(SYS_close, fresh);
  return is_there && evg_loops_make_anew();
}

SYMBOL(int, epoll_ctl, int set, int operation, int fd, struct epoll_event *event) {
  __typeof__(hook_epoll_ctl) *const call = REAL(epoll_ctl);
  const int result = call(set, operation, fd, event);
  if (__builtin_expect(result == 0 || errno != EBADF || !is_for_a_loop(), 1)) return result;
  if (replace_set(set)) return call(set, operation, fd, event);
  errno = EBADF;
  return -1;
}

SYMBOL(void, closefrom, int first) {
  const int error = errno;
  const int result = evg_green_close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0);
  errno = error;
  if (result != 0) REAL(closefrom)(first);  // an old kernel
}

#endif
