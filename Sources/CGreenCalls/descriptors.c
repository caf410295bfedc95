// Evergreen: what ends a descriptor.
// SPDX-License-Identifier: MIT
//
// Who waits for a descriptor is told before its number can mean another. Only greenlets of the same
// thread are: a thread that closes what another one waits for has never disturbed it.

#ifdef __linux__

#include "green.h"

#include <unistd.h>

/// Whether somebody waits for a descriptor, and a greenlet calls, not the hub: whatever is patched.
static bool may_be_awaited(void) {
  return evg_waits > 0 && evg_self.current && evg_self.current->owner && evg_is_here();
}

int evg_green_close(int fd) {
  if (may_be_awaited()) evg_hub->forget(fd);
  return real(close)(fd);
}

int evg_green_close_range(unsigned first, unsigned last, int flags) {
  enum { CLOEXEC_ONLY = 1 << 2 };
  if (!(flags & CLOEXEC_ONLY) && first <= last && may_be_awaited()) {
    const long limit = sysconf(_SC_OPEN_MAX);
    const unsigned end = limit > 0 && last > (unsigned)limit ? (unsigned)limit : last;
    for (unsigned fd = first; fd <= end; fd++) evg_hub->forget((int)fd);
  }
  return real(close_range)(first, last, flags);
}

int evg_green_dup2(int from, int to) {
  if (from != to && may_be_awaited()) evg_hub->forget(to);
  return real(dup2)(from, to);
}

int evg_green_dup3(int from, int to, int flags) {
  if (from != to && may_be_awaited()) evg_hub->forget(to);
  return real(dup3)(from, to, flags);
}

#endif
