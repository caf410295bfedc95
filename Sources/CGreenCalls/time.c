// Evergreen: sleeping.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#include "green.h"

#include <unistd.h>

/// Returns 0 or an errno.
static int sleep_until(uint64_t deadline) {
  const int end = evg_pause("sleep", deadline, false);
  return end == EVG_WAIT_TIME_UP ? 0 : end;
}

static void tell_rest(struct timespec *rest, uint64_t left) {
  if (rest) *rest = (struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)};
}

unsigned evg_green_sleep(unsigned seconds) {
  if (!evg_is_here()) return real(sleep)(seconds);
  if (evg_is_refused()) return seconds;
  const int errno_before = errno;
  const uint64_t deadline = evg_deadline_after((uint64_t)seconds * 1000000000);
  const int error = sleep_until(deadline);
  errno = error ? error : errno_before;
  return error ? (unsigned)(evg_time_left(deadline) / 1000000000) : 0;
}

int evg_green_usleep(useconds_t microseconds) {
  if (!evg_is_here()) return real(usleep)(microseconds);
  if (evg_is_refused()) return -1;
  const int errno_before = errno;
  const int error = sleep_until(evg_deadline_after((uint64_t)microseconds * 1000));
  errno = error ? error : errno_before;
  return error ? -1 : 0;
}

int evg_green_nanosleep(const struct timespec *time, struct timespec *rest) {
  if (!evg_is_here() || !evg_is_time(time)) return real(nanosleep)(time, rest);
  if (evg_is_refused()) {
    tell_rest(rest, evg_nanoseconds(time));
    return -1;
  }
  const int errno_before = errno;
  const uint64_t deadline = evg_deadline_after(evg_nanoseconds(time));
  const int error = sleep_until(deadline);
  if (error) tell_rest(rest, evg_time_left(deadline));
  errno = error ? error : errno_before;
  return error ? -1 : 0;
}

/// A clock that is set follows its own ways, so it is looked at again now and then.
static int sleep_until_clock(clockid_t clock, const struct timespec *target) {
  static const uint64_t longest = 1000000000;
  while (true) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) return errno;
    const int64_t left = (int64_t)evg_nanoseconds(target) - (int64_t)evg_nanoseconds(&now);
    if (left <= 0) return 0;
    const int error = sleep_until(
      evg_deadline_after((uint64_t)left < longest ? (uint64_t)left : longest));
    if (error) return error;
  }
}

static bool runs_by_itself(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME
    || clock == CLOCK_TAI;
}

/// Returns the errno, and leaves errno itself alone. Clocks of processor time do not run on while
/// this thread waits elsewhere: they are left to the system.
int evg_green_clock_nanosleep(
    clockid_t clock, int flags, const struct timespec *time, struct timespec *rest) {
  if (!evg_is_here() || !runs_by_itself(clock) || !evg_is_time(time) || flags & ~TIMER_ABSTIME) {
    return real(clock_nanosleep)(clock, flags, time, rest);
  }
  const int errno_before = errno;
  int error;
  if (evg_is_refused()) {
    error = errno;
    if (!(flags & TIMER_ABSTIME)) tell_rest(rest, evg_nanoseconds(time));
  } else if (flags & TIMER_ABSTIME) {
    error = sleep_until_clock(clock, time);
  } else {
    const uint64_t deadline = evg_deadline_after(evg_nanoseconds(time));
    error = sleep_until(deadline);
    if (error) tell_rest(rest, evg_time_left(deadline));
  }
  errno = errno_before;
  return error;
}

#endif
