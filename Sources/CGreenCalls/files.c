// Evergreen: locks of files.
// SPDX-License-Identifier: MIT
//
// Nothing tells when such a lock is free, so it is tried again and again, after pauses that grow.

#ifdef __linux__

#include "green.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

/// Waits for the next try. False: errno says why there is none.
static bool pause_before(unsigned try) {
  const uint64_t length = UINT64_C(1000000) << (try < 4 ? try : 4);
  const int end = evg_pause("the lock of a file", evg_deadline_after(length), true);
  if (end > 0) errno = end;
  return end <= 0;
}

/// Repeats `attempt` while it says that somebody else has the lock.
#define UNTIL_LOCKED(attempt, is_taken)                                                            \
  ({                                                                                               \
    const int errno_before = errno;                                                                \
    int result_;                                                                                   \
    for (unsigned try_ = 0; (result_ = (attempt)) == -1 && (is_taken); try_++) {                   \
      if (!pause_before(try_)) break;                                                              \
    }                                                                                              \
    if (result_ != -1) errno = errno_before;                                                       \
    result_;                                                                                       \
  })

int evg_green_flock(int fd, int operation) {
  if (operation & LOCK_NB || operation == LOCK_UN || !evg_is_here()) {
    return real(flock)(fd, operation);
  }
  if (evg_is_alone()) return EVG_PLAINLY(real(flock)(fd, operation));
  if (evg_is_refused()) return -1;
  return UNTIL_LOCKED(real(flock)(fd, operation | LOCK_NB), errno == EWOULDBLOCK);
}

int evg_green_lockf(int fd, int command, off_t length) {
  if (command != F_LOCK || !evg_is_here()) return real(lockf)(fd, command, length);
  if (evg_is_alone()) return EVG_PLAINLY(real(lockf)(fd, command, length));
  if (evg_is_refused()) return -1;
  return UNTIL_LOCKED(real(lockf)(fd, F_TLOCK, length), errno == EAGAIN || errno == EACCES);
}

int evg_green_lockf64(int fd, int command, off_t length) {
  return evg_green_lockf(fd, command, length);
}

/// `fcntl`, by whichever of its names the caller has called it.
int evg_green_control(
    int fd, int command, void *argument, __typeof__(evg_real.fcntl) real_fcntl) {
  int attempt;
  switch (command) {
    case F_SETLKW: attempt = F_SETLK; break;
    case F_OFD_SETLKW: attempt = F_OFD_SETLK; break;
    default: return real_fcntl(fd, command, argument);
  }
  if (!evg_is_here()) return real_fcntl(fd, command, argument);
  if (evg_is_alone()) return EVG_PLAINLY(real_fcntl(fd, command, argument));
  if (evg_is_refused()) return -1;
  return UNTIL_LOCKED(real_fcntl(fd, attempt, argument), errno == EAGAIN || errno == EACCES);
}

#endif
