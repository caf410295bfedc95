// Evergreen: what ends a descriptor.
// SPDX-License-Identifier: MIT
//
// Who waits for a descriptor is told before its number can mean another. Only greenlets of the same
// thread are: a thread that closes what another one waits for has never disturbed it.

#ifdef __linux__

#include "green.h"

#include <CDescriptors.h>
#include <unistd.h>

/// Whether somebody waits for a descriptor, and a greenlet calls, not the hub: whatever is patched.
static bool may_be_awaited(void) {
  return evg_waits > 0 && evg_self.current && evg_self.current->owner && evg_is_here();
}

/// Whether a call of the program's would end a descriptor of the library's own: it passes over that.
static bool is_untouchable(int fd) {
  return evg_is_own(fd) && evg_own_works == 0 && !evg_is_hub();
}

/// As if there were nothing.
static int deny(void) {
  errno = EBADF;
  return -1;
}

int evg_green_close(int fd) {
  if (is_untouchable(fd)) return deny();
  if (evg_is_own(fd)) evg_forget_own(fd);
  if (may_be_awaited()) evg_hub->forget(fd);
  return real(close)(fd);
}

/// Passes over descriptors of the library's own, which are closed in an exec anyhow.
static int close_ranges_between(unsigned first, unsigned last, int flags) {
  int own;
  while ((own = evg_first_own(first, last)) != -1) {
    const unsigned next = (unsigned)own;
    if (next > first && real(close_range)(first, next - 1, flags) != 0) return -1;
    if (next == last) return 0;
    first = next + 1;
  }
  return real(close_range)(first, last, flags);
}

int evg_green_close_range(unsigned first, unsigned last, int flags) {
  enum { CLOEXEC_ONLY = 1 << 2 };
  if (!(flags & CLOEXEC_ONLY) && first <= last && may_be_awaited()) {
    const long limit = sysconf(_SC_OPEN_MAX);
    const unsigned end = limit > 0 && last > (unsigned)limit ? (unsigned)limit : last;
    for (unsigned fd = first; fd <= end; fd++) evg_hub->forget((int)fd);
  }
  if (first > last) return real(close_range)(first, last, flags);
  return close_ranges_between(first, last, flags);
}

int evg_green_dup2(int from, int to) {
  if (is_untouchable(to)) return deny();
  if (from != to && may_be_awaited()) evg_hub->forget(to);
  return real(dup2)(from, to);
}

int evg_green_dup3(int from, int to, int flags) {
  if (is_untouchable(to)) return deny();
  if (from != to && may_be_awaited()) evg_hub->forget(to);
  return real(dup3)(from, to, flags);
}

#endif
