// Evergreen: connecting and accepting.
// SPDX-License-Identifier: MIT
//
// These have no flag that says "do not wait", so the open file is made non-blocking for the time of
// the one system call.

#ifdef __linux__

#include "green.h"

#include <fcntl.h>

/// connect(2) waits for SO_SNDTIMEO, and says EINPROGRESS when it is over; a Unix socket EAGAIN.
int evg_green_connect(int fd, const struct sockaddr *to, socklen_t length) {
  if (evg_is_refused_on(fd)) return -1;
  if (evg_is_alone()) return EVG_PLAINLY(real(connect)(fd, to, length));
  const int errno_before = errno;
  const int flags = evg_flags(fd);
  if (flags == -1 || flags & O_NONBLOCK) return real(connect)(fd, to, length);
  evg_patience patience = {.fd = fd, .events = POLLOUT};
  bool is_under_way = false;
  for (unsigned refusals = 0;; refusals++) {
    // Asked again, it says how the attempt ended, in the words of a call that waited for it.
    const int result = EVG_WITHOUT_BLOCKING(fd, real(connect)(fd, to, length));
    if (result == 0) {
      errno = errno_before;
      return 0;
    }
    if (errno == EINPROGRESS || (errno == EALREADY && is_under_way)) {
      is_under_way = true;
      if (evg_wait_to_repeat(&patience)) continue;
      if (errno == EAGAIN) errno = EINPROGRESS;
      return -1;
    }
    if (errno != EAGAIN || to->sa_family != AF_UNIX) return -1;
    // The listener's queue is full, and nothing tells when there is room.
    if (refusals > 6) refusals = 6;
    const uint64_t pause = evg_deadline_after(UINT64_C(1000000) << refusals);
    if (!patience.has_asked) patience.deadline = evg_limit_of(fd, POLLOUT);
    patience.has_asked = true;
    const uint64_t until = pause < patience.deadline ? pause : patience.deadline;
    const bool restarts = patience.deadline == EVG_NEVER;
    const int end =
      evg_is_here() ? evg_pause("room in a listener's queue", until, restarts) : 0;
    if (end > 0 || until != pause) {
      errno = end > 0 ? end : EAGAIN;
      return -1;
    }
  }
}

int evg_green_accept4(int fd, struct sockaddr *peer, socklen_t *length, int flags) {
  if (evg_is_refused()) return -1;
  if (evg_is_alone()) return EVG_PLAINLY(real(accept4)(fd, peer, length, flags));
  evg_charge(fd);
  return EVG_PATIENTLY(
    fd, POLLIN, EVG_WITHOUT_BLOCKING(fd, real(accept4)(fd, peer, length, flags)));
}

int evg_green_accept(int fd, struct sockaddr *peer, socklen_t *length) {
  if (evg_is_refused()) return -1;
  if (evg_is_alone()) return EVG_PLAINLY(real(accept)(fd, peer, length));
  evg_charge(fd);
  return EVG_PATIENTLY(fd, POLLIN, EVG_WITHOUT_BLOCKING(fd, real(accept)(fd, peer, length)));
}

#endif
