// Evergreen: descriptors of the library's own, in programs that must not notice them.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include "CDescriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

bool evg_keeps_apart;
__thread uint32_t evg_own_works;

void evg_close_own(int fd) {
  evg_own_work_begins();
  close(fd);
  evg_own_work_ends();
}

#ifdef __linux__

#include <sys/resource.h>
#include <sys/syscall.h>

// Above what programs use, below what `select` can take: a kernel's table of descriptors grows with the
// highest one.
enum { FLOOR = 900, MOST = 1 << 16, WORD = 64 };

static _Atomic uint64_t own[MOST / WORD];

/// Where they begin: below the limit, if that is low.
static int floor_now(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > FLOOR + FLOOR / 8) return FLOOR;
  return (int)(limit.rlim_cur - limit.rlim_cur / 8);
}

int evg_keep_apart(int fd) {
  if (fd < 0 || !evg_keeps_apart) return fd;
  const int error = errno;
  // Not libc's functions: these may be patched.
  int high = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, floor_now());
  // A number that is ours and free was closed behind our back: libev still knows it by that.
  while (evg_is_kept_apart(high)) {
    const int next = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, high + 1);
    syscall(SYS_close, high);
    high = next;
  }
  if (high >= 0) {
    syscall(SYS_close, fd);
    fd = high;
  } else {
    syscall(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
  }
  errno = error;
  if (fd < MOST) atomic_fetch_or(&own[fd / WORD], UINT64_C(1) << (fd % WORD));
  return fd;
}

bool evg_is_kept_apart(int fd) {
  return fd >= 0 && fd < MOST
    && atomic_load_explicit(&own[fd / WORD], memory_order_relaxed) >> (fd % WORD) & 1;
}

void evg_forget_own(int fd) {
  if (fd >= 0 && fd < MOST) atomic_fetch_and(&own[fd / WORD], ~(UINT64_C(1) << (fd % WORD)));
}

int evg_first_own(unsigned first, unsigned last) {
  if (!evg_keeps_apart || first >= MOST) return -1;
  if (last >= MOST) last = MOST - 1;
  for (unsigned word = first / WORD; word <= last / WORD; word++) {
    uint64_t bits = atomic_load_explicit(&own[word], memory_order_relaxed);
    if (word == first / WORD) bits &= ~UINT64_C(0) << (first % WORD);
    if (!bits) continue;
    const unsigned fd = word * WORD + (unsigned)__builtin_ctzll(bits);
    return fd <= last ? (int)fd : -1;
  }
  return -1;
}

#else  // no program is run so

int evg_keep_apart(int fd) { return fd; }
bool evg_is_kept_apart(int fd) {
  (void)fd;
  return false;
}
void evg_forget_own(int fd) { (void)fd; }
int evg_first_own(unsigned first, unsigned last) {
  (void)first, (void)last;
  return -1;
}

#endif
