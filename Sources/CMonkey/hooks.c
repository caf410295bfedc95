// Evergreen: the symbols that take the place of libc's.
// SPDX-License-Identifier: MIT
//
// Each is one test, and then a jump to libc's own function or to the green form. The definitions have
// names of their own here, and libc's for the linker alone: libc's headers declare some of these with
// types, unions and attributes that nobody else can define.

#ifdef __linux__

#include "gate.h"

#include <stdarg.h>

/// A function that is known to the linker as `symbol`.
#define SYMBOL(symbol, result, name, ...)                                                          \
  result name(__VA_ARGS__) __asm__(#symbol);                                                       \
  EVG_HOOK result name(__VA_ARGS__)

#define HOOK(family, result, name, ...)                                                            \
  SYMBOL(name, result, hook_##name, EVG_PARAMETERS(__VA_ARGS__)) {                                 \
    return evg_is_green(family) ? evg_green_##name(EVG_ARGUMENTS(__VA_ARGS__))                     \
                                : real(name)(EVG_ARGUMENTS(__VA_ARGS__));                          \
  }

#define SOCKET_HOOK(...) HOOK(EVG_PATCH_SOCKETS, __VA_ARGS__)
EVG_SOCKET_FUNCTIONS(SOCKET_HOOK)
#define SELECT_HOOK(...) HOOK(EVG_PATCH_SELECT, __VA_ARGS__)
EVG_SELECT_FUNCTIONS(SELECT_HOOK)
#define TIME_HOOK(...) HOOK(EVG_PATCH_TIME, __VA_ARGS__)
EVG_TIME_FUNCTIONS(TIME_HOOK)
#define DNS_HOOK(...) HOOK(EVG_PATCH_DNS, __VA_ARGS__)
EVG_DNS_FUNCTIONS(DNS_HOOK)
#define PROCESS_HOOK(...) HOOK(EVG_PATCH_PROCESS, __VA_ARGS__)
EVG_PROCESS_FUNCTIONS(PROCESS_HOOK)
#define FILE_HOOK(...) HOOK(EVG_PATCH_FILES, __VA_ARGS__)
EVG_FILE_FUNCTIONS(FILE_HOOK)

enum { TRANSFERS = EVG_PATCH_SOCKETS | EVG_PATCH_FILES };

#define TRANSFER_HOOK(result, name, ...)                                                           \
  SYMBOL(name, result, hook_##name, EVG_PARAMETERS(__VA_ARGS__)) {                                 \
    return evg_is_green(TRANSFERS)                                                                 \
      ? evg_green_##name(EVG_ARGUMENTS(__VA_ARGS__), evg_patched(TRANSFERS))                       \
      : real(name)(EVG_ARGUMENTS(__VA_ARGS__));                                                    \
  }
EVG_TRANSFER_FUNCTIONS(TRANSFER_HOOK)

// In these the hub itself waits.

SYMBOL(poll, int, hook_poll, struct pollfd *fds, nfds_t count, int timeout) {
  if (evg_is_green(EVG_PATCH_SELECT)) return evg_green_poll(fds, count, timeout);
  return EVG_PASS_ON(real(poll)(fds, count, timeout), real(poll)(fds, count, 0));
}

SYMBOL(select, int, hook_select, int count, fd_set *reading, fd_set *writing, fd_set *special,
       struct timeval *timeout) {
  if (evg_is_green(EVG_PATCH_SELECT)) {
    return evg_green_select(count, reading, writing, special, timeout);
  }
  return EVG_PASS_ON(
    real(select)(count, reading, writing, special, timeout),
    real(select)(count, reading, writing, special, &(struct timeval){0}));
}

SYMBOL(epoll_wait, int, hook_epoll_wait, int fd, struct epoll_event *events, int most,
       int timeout) {
  if (evg_is_green(EVG_PATCH_SELECT)) return evg_green_epoll_wait(fd, events, most, timeout);
  return EVG_PASS_ON(
    real(epoll_wait)(fd, events, most, timeout), real(epoll_wait)(fd, events, most, 0));
}

// Whatever is patched: waits may go on that began when it was.
#define ENDING_HOOK(result, name, ...)                                                             \
  SYMBOL(name, result, hook_##name, EVG_PARAMETERS(__VA_ARGS__)) {                                 \
    return evg_green_##name(EVG_ARGUMENTS(__VA_ARGS__));                                           \
  }
EVG_ENDING_FUNCTIONS(ENDING_HOOK)

#define LOCK_HOOK(...) HOOK(EVG_PATCH_LOCKS, __VA_ARGS__)
EVG_LOCK_FUNCTIONS(LOCK_HOOK)
EVG_FREEING_FUNCTIONS(ENDING_HOOK)

SYMBOL(sched_yield, int, hook_sched_yield, void) {
  return evg_is_green(EVG_PATCH_LOCKS) ? evg_green_sched_yield() : real(sched_yield)();
}

// With a position or with flags of their own: the position rules out whatever could wait.

SYMBOL(preadv2, ssize_t, hook_preadv2, int fd, const struct iovec *vector, int count,
       off_t offset, int flags) {
  if (offset == -1 && flags == 0) return hook_readv(fd, vector, count);
  return real(preadv2)(fd, vector, count, offset, flags);
}

SYMBOL(pwritev2, ssize_t, hook_pwritev2, int fd, const struct iovec *vector, int count,
       off_t offset, int flags) {
  if (offset == -1 && flags == 0) return hook_writev(fd, vector, count);
  return real(pwritev2)(fd, vector, count, offset, flags);
}

// The argument is an int, a pointer or nothing: a word, whatever it is.
#define CONTROL_HOOK(symbol, name)                                                                 \
  SYMBOL(symbol, int, hook_##symbol, int fd, int command, ...) {                                   \
    va_list list;                                                                                  \
    va_start(list, command);                                                                       \
    void *argument = va_arg(list, void *);                                                         \
    va_end(list);                                                                                  \
    return evg_is_green(EVG_PATCH_FILES)                                                           \
      ? evg_green_control(fd, command, argument, real(name)) : real(name)(fd, command, argument);  \
  }
CONTROL_HOOK(fcntl, fcntl)
CONTROL_HOOK(fcntl64, fcntl64)
CONTROL_HOOK(__fcntl, fcntl)

// MARK: Handlers of signals

SYMBOL(sigaction, int, hook_sigaction, int signal, const struct sigaction *action,
       struct sigaction *before) {
  return evg_set_action(signal, action, before, evg_patch_families() != 0);
}

static sighandler_t set_handler(int signal, sighandler_t call, int flags) {
  return evg_set_handler(signal, call, flags, evg_patch_families() != 0);
}

#define SIGNAL_HOOK(name, flags)                                                                   \
  SYMBOL(name, sighandler_t, hook_##name, int signal, sighandler_t call) {                         \
    return set_handler(signal, call, (int)(flags));                                                \
  }
SIGNAL_HOOK(signal, SA_RESTART)
SIGNAL_HOOK(bsd_signal, SA_RESTART)
SIGNAL_HOOK(sysv_signal, SA_RESETHAND | SA_NODEFER)
SIGNAL_HOOK(__sysv_signal, SA_RESETHAND | SA_NODEFER)

SYMBOL(siginterrupt, int, hook_siginterrupt, int signal, int interrupts) {
  struct sigaction action;
  if (hook_sigaction(signal, NULL, &action) != 0) return -1;
  if (interrupts) action.sa_flags &= ~SA_RESTART;
  else action.sa_flags |= SA_RESTART;
  return hook_sigaction(signal, &action, NULL);
}

// MARK: What libc calls these with other names

#define ALIAS(alias, result, name, ...)                                                            \
  SYMBOL(alias, result, hook_##alias, EVG_PARAMETERS(__VA_ARGS__)) {                               \
    return hook_##name(EVG_ARGUMENTS(__VA_ARGS__));                                                \
  }
ALIAS(__read, ssize_t, read, int, void *, size_t)
ALIAS(__write, ssize_t, write, int, const void *, size_t)
ALIAS(__send, ssize_t, send, int, const void *, size_t, int)
ALIAS(__connect, int, connect, int, const struct sockaddr *, socklen_t)
ALIAS(__poll, int, poll, struct pollfd *, nfds_t, int)
ALIAS(__select, int, select, int, fd_set *, fd_set *, fd_set *, struct timeval *)
ALIAS(__nanosleep, int, nanosleep, const struct timespec *, struct timespec *)
ALIAS(__waitpid, pid_t, waitpid, pid_t, int *, int)
ALIAS(__close, int, close, int)
// And what programs call that were compiled for large files.
ALIAS(sendfile64, ssize_t, sendfile, int, int, off_t *, size_t)
ALIAS(preadv64v2, ssize_t, preadv2, int, const struct iovec *, int, off_t, int)
ALIAS(pwritev64v2, ssize_t, pwritev2, int, const struct iovec *, int, off_t, int)
ALIAS(__dup2, int, dup2, int, int)

// C's own threads: libc's are those of POSIX, with other results.

/// <threads.h> has these as an enumeration, which not every libc shows.
static int told_in_c(int error) {
  enum { SUCCESS, BUSY, ERROR, NO_MEMORY, TIMED_OUT };
  switch (error) {
    case 0: return SUCCESS;
    case EBUSY: return BUSY;
    case ENOMEM: return NO_MEMORY;
    case ETIMEDOUT: return TIMED_OUT;
    default: return ERROR;
  }
}

#define C_ALIAS(alias, name, ...)                                                                  \
  SYMBOL(alias, int, hook_##alias, EVG_PARAMETERS(__VA_ARGS__)) {                                  \
    return told_in_c(hook_##name(EVG_ARGUMENTS(__VA_ARGS__)));                                     \
  }
C_ALIAS(mtx_lock, pthread_mutex_lock, pthread_mutex_t *)
C_ALIAS(mtx_trylock, pthread_mutex_trylock, pthread_mutex_t *)
C_ALIAS(mtx_timedlock, pthread_mutex_timedlock, pthread_mutex_t *, const struct timespec *)
C_ALIAS(mtx_unlock, pthread_mutex_unlock, pthread_mutex_t *)
C_ALIAS(cnd_wait, pthread_cond_wait, pthread_cond_t *, pthread_mutex_t *)
C_ALIAS(cnd_timedwait, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *,
        const struct timespec *)
C_ALIAS(cnd_signal, pthread_cond_signal, pthread_cond_t *)
C_ALIAS(cnd_broadcast, pthread_cond_broadcast, pthread_cond_t *)

SYMBOL(thrd_join, int, hook_thrd_join, pthread_t thread, int *result) {
  if (!evg_is_green(EVG_PATCH_LOCKS)) return real(thrd_join)(thread, result);
  void *value = NULL;
  const int error = hook_pthread_join(thread, &value);
  if (error == 0 && result) *result = (int)(intptr_t)value;
  return told_in_c(error);
}

SYMBOL(thrd_sleep, int, hook_thrd_sleep, const struct timespec *time, struct timespec *rest) {
  const int error = hook_clock_nanosleep(CLOCK_REALTIME, 0, time, rest);
  return error == 0 ? 0 : error == EINTR ? -1 : -2;
}

SYMBOL(thrd_yield, void, hook_thrd_yield, void) { hook_sched_yield(); }

SYMBOL(call_once, void, hook_call_once, pthread_once_t *once, void (*routine)(void)) {
  hook_pthread_once(once, routine);
}

extern _Noreturn void __chk_fail(void);

SYMBOL(__read_chk, ssize_t, hook_read_chk, int fd, void *buffer, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return hook_read(fd, buffer, size);
}

SYMBOL(__recv_chk, ssize_t, hook_recv_chk, int fd, void *buffer, size_t size, size_t room,
       int flags) {
  if (size > room) __chk_fail();
  return hook_recv(fd, buffer, size, flags);
}

SYMBOL(__recvfrom_chk, ssize_t, hook_recvfrom_chk, int fd, void *buffer, size_t size, size_t room,
       int flags, struct sockaddr *address, socklen_t *length) {
  if (size > room) __chk_fail();
  return hook_recvfrom(fd, buffer, size, flags, address, length);
}

SYMBOL(__poll_chk, int, hook_poll_chk, struct pollfd *fds, nfds_t count, int timeout,
       size_t room) {
  if (room / sizeof *fds < count) __chk_fail();
  return hook_poll(fds, count, timeout);
}

SYMBOL(__ppoll_chk, int, hook_ppoll_chk, struct pollfd *fds, nfds_t count,
       const struct timespec *timeout, const sigset_t *mask, size_t room) {
  if (room / sizeof *fds < count) __chk_fail();
  return hook_ppoll(fds, count, timeout, mask);
}

#endif
