// Evergreen: waiting for several descriptors.
// SPDX-License-Identifier: MIT
//
// Each looks first, with the real call and no time; if there is nothing, the greenlet waits, and the
// real call looks again: what it answers is the answer.
//
// Signals that a call lets through while it waits arrive by a signalfd among what is waited for;
// the next look lets them through.

#ifdef __linux__

#include "green.h"

#include <CDescriptors.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

/// Looks, and waits while there is nothing: the look's answer, or -1 with the error of the wait.
///
/// What wakes the wait need not be what the look is for (`select` takes no notice of some events that
/// `poll` cannot leave out), and somebody else may take it each time: then pauses spare the processor.
#define LOOK_AND_WAIT(deadline, look, wait)                                                        \
  ({                                                                                               \
    const int errno_before = errno;                                                                \
    int found_;                                                                                    \
    for (unsigned tries_ = 0; (found_ = (look)) == 0; tries_++) {                                  \
      const int end_ = tries_ < 3 ? (wait) : rest(deadline);                                       \
      if (end_ == EVG_WAIT_TIME_UP) break;                                                         \
      if (end_ > 0) {                                                                              \
        errno = end_;                                                                              \
        found_ = -1;                                                                               \
        break;                                                                                     \
      }                                                                                            \
    }                                                                                              \
    if (found_ >= 0) errno = errno_before;                                                         \
    found_;                                                                                        \
  })

/// As a wait that has been woken after 5 ms.
static int rest(uint64_t deadline) {
  const uint64_t next = evg_deadline_after(5000000);
  const int end = evg_pause("polling", next < deadline ? next : deadline, false);
  return end == EVG_WAIT_TIME_UP && next < deadline ? EVG_WAIT_OVER : end;
}

static uint64_t deadline_after(const struct timespec *timeout) {
  return timeout ? evg_deadline_after(evg_nanoseconds(timeout)) : EVG_NEVER;
}

/// Foreign code at which an error is due is told that its descriptors have failed: it then asks
/// them, and hears why. Told that `poll` has failed, much of it would not give the connection up.
static int call_broken(struct pollfd *fds, nfds_t count) {
  int broken = 0;
  for (nfds_t i = 0; i < count; i++) {
    fds[i].revents = 0;
    if (fds[i].fd < 0) continue;
    fds[i].revents = (short)((fds[i].events & (POLLIN | POLLOUT)) | POLLERR | POLLHUP);
    broken++;
  }
  return broken > 0 ? broken : -1;
}

static bool is_due(int error) { return error == ECANCELED || error == ETIMEDOUT; }

/// What `poll` answers, where others fail.
static int settle(struct pollfd *fds, nfds_t count, int result) {
  if (result != -1) return result;
  if (is_due(errno)) return call_broken(fds, count);
  if (errno != EBADF) return -1;
  fds->revents = POLLNVAL;  // closed meanwhile; only a plain wait says so in this way
  return 1;
}

/// One descriptor and one direction, as libraries ask mostly: that is a plain wait.
static bool is_plain(const struct pollfd *fds, nfds_t count) {
  if (count != 1 || fds->fd < 0) return false;
  const int events = fds->events & ~(POLLERR | POLLHUP | POLLNVAL);
  return events == POLLIN || events == POLLOUT;
}

static int wait_for(struct pollfd *fds, nfds_t count, uint64_t deadline) {
  return is_plain(fds, count)
    ? evg_wait_for(fds->fd, fds->events & (POLLIN | POLLOUT), deadline, false)
    : evg_wait_for_any(fds, count, deadline);
}

// MARK: poll

int evg_green_poll(struct pollfd *fds, nfds_t count, int timeout) {
  // A mere look too: some ask only those of whom it says that there is something.
  if (evg_is_refused()) return call_broken(fds, count);
  if (timeout == 0) return real(poll)(fds, count, 0);
  evg_charge_wait();
  const int found = real(poll)(fds, count, 0);
  if (found != 0) return found;
  if (!evg_is_here()) return real(poll)(fds, count, timeout);
  const uint64_t deadline = evg_deadline_after_milliseconds(timeout);
  const int result =
    LOOK_AND_WAIT(deadline, real(poll)(fds, count, 0), wait_for(fds, count, deadline));
  return settle(fds, count, result);
}

/// The signals that `mask` lets through and the thread does not, as a descriptor; -1 if none.
static int let_through(const sigset_t *mask) {
  if (!mask) return -1;
  sigset_t blocked;
  pthread_sigmask(SIG_BLOCK, NULL, &blocked);
  bool is_any = false;
  for (int i = 1; i < NSIG; i++) {
    if (sigismember(&blocked, i) != 1) continue;
    if (sigismember(mask, i) == 1) sigdelset(&blocked, i);
    else is_any = true;
  }
  return is_any ? evg_keep_apart(signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK)) : -1;
}

/// Waits for what is in `fds`, and for signals.
static int wait_with_signals(
    struct pollfd *fds, nfds_t count, const sigset_t *mask, uint64_t deadline) {
  const int signals = let_through(mask);
  if (signals == -1) return wait_for(fds, count, deadline);
  struct pollfd *all = malloc((count + 1) * sizeof *all);
  int end = ENOMEM;
  if (all) {
    if (count > 0) memcpy(all, fds, count * sizeof *all);
    all[count] = (struct pollfd){.fd = signals, .events = POLLIN};
    end = evg_wait_for_any(all, count + 1, deadline);
    free(all);
  }
  evg_close_own(signals);
  return end;
}

static const struct timespec no_time;

int evg_green_ppoll(
    struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask) {
  if (timeout && !evg_is_time(timeout)) {
    return real(ppoll)(fds, count, timeout, mask);
  }
  if (mask && evg_is_alone()) return EVG_PLAINLY(real(ppoll)(fds, count, timeout, mask));
  if (evg_is_refused()) return call_broken(fds, count);
  evg_charge_wait();
  const uint64_t deadline = deadline_after(timeout);
  const int found = real(ppoll)(fds, count, &no_time, mask);
  if (found != 0) return found;
  if (!evg_is_here()) return real(ppoll)(fds, count, timeout, mask);
  const int result = LOOK_AND_WAIT(
    deadline, real(ppoll)(fds, count, &no_time, mask),
    wait_with_signals(fds, count, mask, deadline));
  return settle(fds, count, result);
}

// MARK: select

// What a set of `select` is in `poll`. The end of what the peer sends is something to read, too.
enum { READABLE = POLLIN, WRITABLE = POLLOUT, EXCEPTIONAL = POLLPRI };

enum { BITS = 8 * sizeof(unsigned long) };

/// So many bytes of each set does the kernel touch.
static size_t bytes_of_sets(int count) { return ((size_t)count + BITS - 1) / BITS * (BITS / 8); }

/// Some programs use sets larger than FD_SETSIZE, so not by FD_ISSET, which libc may check.
static bool has(const fd_set *set, int fd) {
  return set && ((const unsigned long *)set)[fd / BITS] >> (fd % BITS) & 1;
}

/// The kernel passes over numbers that are beyond the process's table of descriptors, and so do those
/// who call with the limit of descriptors and sets of the usual size: behind that nothing is to be
/// touched. The table has the usual size at most, or a power of two times that.
static int count_in_table(int count) {
  if (count <= FD_SETSIZE) return count;
  const int error = errno;
  unsigned long *set = calloc(1, bytes_of_sets(count));
  if (!set) return FD_SETSIZE;
  int size = FD_SETSIZE;
  while (size < count) {
    // Of its first number beyond: if that is in the table it is open, or the kernel says EBADF.
    set[size / BITS] |= 1UL << (size % BITS);
    const bool is_inside = evg_flags(size) != -1
      || real(select)(size + 1, (fd_set *)set, NULL, NULL, &(struct timeval){0}) == -1;
    memset(set, 0, bytes_of_sets(size + 1));
    if (!is_inside) break;
    size = size > count / 2 ? count : size * 2;
  }
  free(set);
  errno = error;
  return size;
}

/// Whether memory can be read. It is not copied: the kernel looks at a mask of signals there, and then
/// refuses the call. What lies on the caller's own stack need not be asked for.
static bool is_readable(const void *memory, size_t size) {
  const uintptr_t address = (uintptr_t)memory;
  const evg_context *context = evg_caller();
  const uintptr_t low = (uintptr_t)context->stack_low;
  if (size == 0 || (low && address >= low && address < low + context->stack_size)) return true;
  enum { ASKED = 8, PAGE = 4096 };  // what the kernel takes for a mask; the least size of a page
  const int error = errno;
  bool is_good = true;
  for (uintptr_t at = address & -(uintptr_t)ASKED; is_good && at < address + size;
       at = (at | (PAGE - 1)) + 1) {
    is_good = syscall(SYS_rt_sigprocmask, -1, at, NULL, ASKED) != -1 || errno != EFAULT;
  }
  errno = error;
  return is_good;
}

/// The sets of a call, kept while looks overwrite them.
typedef struct sets {
  int count;
  size_t size;
  fd_set *given[3];
  char *copies;  // three of `size` bytes
  struct pollfd *polled;
  nfds_t polled_count;
  unsigned looks;
} sets;

static bool are_readable(const sets *sets) {
  for (int i = 0; i < 3; i++) {
    if (sets->given[i] && !is_readable(sets->given[i], sets->size)) return false;
  }
  return true;
}

static void keep(sets *sets) {
  for (int i = 0; i < 3; i++) {
    if (sets->given[i]) memcpy(sets->copies + (size_t)i * sets->size, sets->given[i], sets->size);
  }
}

static void restore(const sets *sets) {
  for (int i = 0; i < 3; i++) {
    if (sets->given[i]) memcpy(sets->given[i], sets->copies + (size_t)i * sets->size, sets->size);
  }
}

static int look(sets *sets, const sigset_t *mask) {
  if (sets->looks++ > 0) restore(sets);
  return real(pselect)(
    sets->count, sets->given[0], sets->given[1], sets->given[2], &no_time, mask);
}

/// What to wait for. False if there is no memory.
static bool collect(sets *sets) {
  const fd_set *kept[3];
  nfds_t most = 0;
  for (int i = 0; i < 3; i++) {
    kept[i] = sets->given[i] ? (fd_set *)(sets->copies + (size_t)i * sets->size) : NULL;
    for (size_t word = 0; kept[i] && word < sets->size / sizeof(long); word++) {
      most += (nfds_t)__builtin_popcountl(((const unsigned long *)kept[i])[word]);
    }
  }
  sets->polled = malloc(most * sizeof *sets->polled + 1);
  if (!sets->polled) return false;
  for (int fd = 0; fd < sets->count; fd++) {
    const int events = (has(kept[0], fd) ? READABLE : 0) | (has(kept[1], fd) ? WRITABLE : 0)
      | (has(kept[2], fd) ? EXCEPTIONAL : 0);
    if (events) {
      sets->polled[sets->polled_count++] = (struct pollfd){.fd = fd, .events = (short)events};
    }
  }
  return true;
}

/// Leaves out what is not open: a look did not mind, so it is beyond the table.
static void pass_over_closed(sets *sets) {
  nfds_t left = 0;
  for (nfds_t i = 0; i < sets->polled_count; i++) {
    if (evg_flags(sets->polled[i].fd) != -1) sets->polled[left++] = sets->polled[i];
  }
  sets->polled_count = left;
}

/// After a look that has found nothing.
static int wait_for_sets(sets *sets, const sigset_t *mask, uint64_t deadline) {
  if (!sets->polled) {
    if (!collect(sets)) return ENOMEM;
  } else {
    pass_over_closed(sets);
  }
  const int end = wait_with_signals(sets->polled, sets->polled_count, mask, deadline);
  return end == EBADF ? EVG_WAIT_OVER : end;  // the next look tells whether it should be open
}

/// As `call_broken`: whatever can be read or written is said to be ready. -1 if there is nothing.
static int call_sets_broken(const sets *sets) {
  if (sets->given[2]) memset(sets->given[2], 0, sets->size);
  int broken = 0;
  for (int fd = 0; fd < sets->count; fd++) {
    broken += has(sets->given[0], fd) + has(sets->given[1], fd);
  }
  return broken > 0 ? broken : -1;
}

/// Until something is ready, or the deadline.
static int select_until(sets *sets, uint64_t deadline, const sigset_t *mask) {
  char few[3 * sizeof(fd_set)];
  sets->copies = sets->size <= sizeof(fd_set) ? few : malloc(3 * sets->size);
  if (!sets->copies) {
    errno = ENOMEM;
    return -1;
  }
  keep(sets);
  int found =
    LOOK_AND_WAIT(deadline, look(sets, mask), wait_for_sets(sets, mask, deadline));
  const int error = errno;
  if (found == -1) {
    if (sets->polled) restore(sets);
    if (is_due(error)) found = call_sets_broken(sets);
  }
  free(sets->polled);
  if (sets->copies != few) free(sets->copies);
  errno = error;
  return found;
}

/// What a call is given, if the kernel would take it. Else libc's own says what is wrong.
static bool take_sets(sets *sets, int count, fd_set *reading, fd_set *writing, fd_set *special) {
  if (count < 0) return false;
  *sets = (struct sets){.count = count_in_table(count), .given = {reading, writing, special}};
  sets->size = bytes_of_sets(sets->count);
  return are_readable(sets);
}

int evg_green_select(
    int count, fd_set *restrict reading, fd_set *restrict writing, fd_set *restrict special,
    struct timeval *restrict timeout) {
  const bool is_wrong = timeout
    && (!evg_is_address(timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0
        || timeout->tv_usec >= 1000000);
  if (is_wrong || !evg_is_here()) return real(select)(count, reading, writing, special, timeout);
  const bool is_refused = evg_is_refused();
  const bool is_look = timeout && timeout->tv_sec == 0 && timeout->tv_usec == 0;
  sets sets;
  if ((is_look && !is_refused) || !take_sets(&sets, count, reading, writing, special)) {
    return real(select)(count, reading, writing, special, timeout);
  }
  if (is_refused) return call_sets_broken(&sets);
  evg_charge_wait();
  uint64_t deadline = EVG_NEVER;
  if (timeout) {
    const struct timespec time = {timeout->tv_sec, timeout->tv_usec * 1000};
    deadline = deadline_after(&time);
  }
  const int found = select_until(&sets, deadline, NULL);
  if (timeout) {  // Linux tells what is left
    const int error = errno;
    const uint64_t left = evg_time_left(deadline);
    *timeout = (struct timeval){
      (time_t)(left / 1000000000), (suseconds_t)(left % 1000000000 / 1000)};
    errno = error;
  }
  return found;
}

int evg_green_pselect(
    int count, fd_set *restrict reading, fd_set *restrict writing, fd_set *restrict special,
    const struct timespec *restrict timeout, const sigset_t *restrict mask) {
  sets sets;
  if ((timeout && !evg_is_time(timeout)) || !evg_is_here()
      || !take_sets(&sets, count, reading, writing, special)) {
    return real(pselect)(count, reading, writing, special, timeout, mask);
  }
  if (mask && evg_is_alone()) {
    return EVG_PLAINLY(real(pselect)(count, reading, writing, special, timeout, mask));
  }
  if (evg_is_refused()) return call_sets_broken(&sets);
  evg_charge_wait();
  return select_until(&sets, deadline_after(timeout), mask);
}

// MARK: epoll

// An epoll descriptor is readable when one of those in it is ready.

static int wait_for_epoll(int fd, const sigset_t *mask, uint64_t deadline) {
  if (mask) {
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return wait_with_signals(&one, 1, mask, deadline);
  }
  return evg_wait_for(fd, POLLIN, deadline, false);
}

/// With a mask, signals are let through: `epoll_pwait` without time does not do that.
static int look_into(int fd, struct epoll_event *events, int most, const sigset_t *mask) {
  struct pollfd one = {.fd = fd, .events = POLLIN};
  if (mask && real(ppoll)(&one, 1, &no_time, mask) == -1 && errno == EINTR) return -1;
  return real(epoll_wait)(fd, events, most, 0);
}

int evg_green_epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
  if (timeout == 0 || !evg_is_here()) {
    return real(epoll_wait)(fd, events, most, timeout);
  }
  if (evg_is_refused()) return -1;
  evg_charge_wait();
  const uint64_t deadline = evg_deadline_after_milliseconds(timeout);
  return LOOK_AND_WAIT(
    deadline, look_into(fd, events, most, NULL), wait_for_epoll(fd, NULL, deadline));
}

int evg_green_epoll_pwait(
    int fd, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
  if (timeout == 0 || !evg_is_here()) {
    return real(epoll_pwait)(fd, events, most, timeout, mask);
  }
  if (mask && evg_is_alone()) return EVG_PLAINLY(real(epoll_pwait)(fd, events, most, timeout, mask));
  if (evg_is_refused()) return -1;
  evg_charge_wait();
  const uint64_t deadline = evg_deadline_after_milliseconds(timeout);
  return LOOK_AND_WAIT(
    deadline, look_into(fd, events, most, mask), wait_for_epoll(fd, mask, deadline));
}

int evg_green_epoll_pwait2(
    int fd, struct epoll_event *events, int most, const struct timespec *timeout,
    const sigset_t *mask) {
  if ((timeout && !evg_is_time(timeout)) || !evg_is_here()) {
    return real(epoll_pwait2)(fd, events, most, timeout, mask);
  }
  if (mask && evg_is_alone()) return EVG_PLAINLY(real(epoll_pwait2)(fd, events, most, timeout, mask));
  if (evg_is_refused()) return -1;
  evg_charge_wait();
  const uint64_t deadline = deadline_after(timeout);
  return LOOK_AND_WAIT(
    deadline, look_into(fd, events, most, mask), wait_for_epoll(fd, mask, deadline));
}

#endif
