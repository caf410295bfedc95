// Evergreen: the functions of libc that have green forms, by name and type, and the real ones.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CGREENCALLS_REAL_H
#define EVERGREEN_CGREENCALLS_REAL_H

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wnullability-completeness"
#endif

#ifdef __swift__
// The types are to be those of Swift's Glibc, not this module's.
#pragma clang module import SwiftGlibc
#else
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#endif
#include <sys/epoll.h>

#ifdef __USE_GNU
struct mmsghdr;
#else
struct mmsghdr {  // as <sys/socket.h> has it, which shows it to few
  struct msghdr msg_hdr;
  unsigned int msg_len;
};
#endif

// Addresses and options are plain pointers here: libc's headers have unions for some of them.

/// Of any descriptor. Their green forms are told, behind what is listed here, which families are.
#define EVG_TRANSFER_FUNCTIONS(F)                                                                  \
  F(ssize_t, read, int, void *, size_t)                                                            \
  F(ssize_t, write, int, const void *, size_t)                                                     \
  F(ssize_t, readv, int, const struct iovec *, int)                                                \
  F(ssize_t, writev, int, const struct iovec *, int)

#define EVG_SOCKET_FUNCTIONS(F)                                                                    \
  F(ssize_t, recv, int, void *, size_t, int)                                                       \
  F(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *)                   \
  F(ssize_t, recvmsg, int, struct msghdr *, int)                                                   \
  F(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *)                        \
  F(ssize_t, send, int, const void *, size_t, int)                                                 \
  F(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t)           \
  F(ssize_t, sendmsg, int, const struct msghdr *, int)                                             \
  F(int, sendmmsg, int, struct mmsghdr *, unsigned, int)                                           \
  F(ssize_t, sendfile, int, int, off_t *, size_t)                                                  \
  F(ssize_t, splice, int, __off64_t *, int, __off64_t *, size_t, unsigned)                         \
  F(int, connect, int, const struct sockaddr *, socklen_t)                                         \
  F(int, accept, int, struct sockaddr *, socklen_t *)                                              \
  F(int, accept4, int, struct sockaddr *, socklen_t *, int)

/// In these the hub itself waits.
#define EVG_LOOP_FUNCTIONS(F)                                                                      \
  F(int, poll, struct pollfd *, nfds_t, int)                                                       \
  F(int, select, int, fd_set *, fd_set *, fd_set *, struct timeval *)                              \
  F(int, epoll_wait, int, struct epoll_event *, int, int)

#define EVG_SELECT_FUNCTIONS(F)                                                                    \
  F(int, ppoll, struct pollfd *, nfds_t, const struct timespec *, const sigset_t *)                \
  F(int, pselect, int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *)    \
  F(int, epoll_pwait, int, struct epoll_event *, int, int, const sigset_t *)                       \
  F(int, epoll_pwait2, int, struct epoll_event *, int, const struct timespec *, const sigset_t *)

#define EVG_TIME_FUNCTIONS(F)                                                                      \
  F(unsigned, sleep, unsigned)                                                                     \
  F(int, usleep, __useconds_t)                                                                     \
  F(int, nanosleep, const struct timespec *, struct timespec *)                                    \
  F(int, clock_nanosleep, clockid_t, int, const struct timespec *, struct timespec *)

#define EVG_DNS_FUNCTIONS(F)                                                                       \
  F(int, getaddrinfo, const char *, const char *, const struct addrinfo *, struct addrinfo **)     \
  F(int, getnameinfo, const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t,    \
    int)                                                                                           \
  F(struct hostent *, gethostbyname, const char *)                                                 \
  F(struct hostent *, gethostbyname2, const char *, int)                                           \
  F(struct hostent *, gethostbyaddr, const void *, socklen_t, int)                                 \
  F(int, gethostbyname_r, const char *, struct hostent *, char *, size_t, struct hostent **,       \
    int *)                                                                                         \
  F(int, gethostbyname2_r, const char *, int, struct hostent *, char *, size_t,                    \
    struct hostent **, int *)                                                                      \
  F(int, gethostbyaddr_r, const void *, socklen_t, int, struct hostent *, char *, size_t,          \
    struct hostent **, int *)

#define EVG_PROCESS_FUNCTIONS(F)                                                                   \
  F(pid_t, wait, int *)                                                                            \
  F(pid_t, waitpid, pid_t, int *, int)                                                             \
  F(pid_t, wait3, int *, int, struct rusage *)                                                     \
  F(pid_t, wait4, pid_t, int *, int, struct rusage *)                                              \
  F(int, waitid, idtype_t, id_t, siginfo_t *, int)                                                 \
  F(int, system, const char *)                                                                     \
  F(int, pclose, FILE *)

#define EVG_FILE_FUNCTIONS(F)                                                                      \
  F(int, flock, int, int)                                                                          \
  F(int, lockf, int, int, off_t)                                                                   \
  F(int, lockf64, int, int, off_t)

/// Which end a descriptor: who waits for it is told.
#define EVG_ENDING_FUNCTIONS(F)                                                                    \
  F(int, close, int)                                                                               \
  F(int, close_range, unsigned, unsigned, int)                                                     \
  F(int, dup2, int, int)                                                                           \
  F(int, dup3, int, int, int)

typedef void (*evg_routine)(void);

/// Locks, and whatever else threads wait for each other by.
#define EVG_LOCK_FUNCTIONS(F)                                                                      \
  F(int, pthread_mutex_lock, pthread_mutex_t *)                                                    \
  F(int, pthread_mutex_trylock, pthread_mutex_t *)                                                 \
  F(int, pthread_mutex_timedlock, pthread_mutex_t *, const struct timespec *)                      \
  F(int, pthread_mutex_clocklock, pthread_mutex_t *, clockid_t, const struct timespec *)           \
  F(int, pthread_rwlock_rdlock, pthread_rwlock_t *)                                                \
  F(int, pthread_rwlock_timedrdlock, pthread_rwlock_t *, const struct timespec *)                  \
  F(int, pthread_rwlock_clockrdlock, pthread_rwlock_t *, clockid_t, const struct timespec *)       \
  F(int, pthread_rwlock_wrlock, pthread_rwlock_t *)                                                \
  F(int, pthread_rwlock_timedwrlock, pthread_rwlock_t *, const struct timespec *)                  \
  F(int, pthread_rwlock_clockwrlock, pthread_rwlock_t *, clockid_t, const struct timespec *)       \
  F(int, pthread_cond_wait, pthread_cond_t *, pthread_mutex_t *)                                   \
  F(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *)     \
  F(int, pthread_cond_clockwait, pthread_cond_t *, pthread_mutex_t *, clockid_t,                   \
    const struct timespec *)                                                                       \
  F(int, sem_wait, sem_t *)                                                                        \
  F(int, sem_timedwait, sem_t *, const struct timespec *)                                          \
  F(int, sem_clockwait, sem_t *, clockid_t, const struct timespec *)                               \
  F(int, pthread_join, pthread_t, void **)                                                         \
  F(int, pthread_timedjoin_np, pthread_t, void **, const struct timespec *)                        \
  F(int, pthread_clockjoin_np, pthread_t, void **, clockid_t, const struct timespec *)             \
  F(int, pthread_spin_lock, pthread_spinlock_t *)                                                  \
  F(int, pthread_once, pthread_once_t *, evg_routine)

/// Which let others have what they wait for: greenlets that do are told, whoever calls.
#define EVG_FREEING_FUNCTIONS(F)                                                                   \
  F(int, pthread_mutex_unlock, pthread_mutex_t *)                                                  \
  F(int, pthread_rwlock_unlock, pthread_rwlock_t *)                                                \
  F(int, pthread_cond_signal, pthread_cond_t *)                                                    \
  F(int, pthread_cond_broadcast, pthread_cond_t *)                                                 \
  F(int, sem_post, sem_t *)

/// Those whose green forms have the same type.
#define EVG_PLAIN_FUNCTIONS(F)                                                                     \
  EVG_SOCKET_FUNCTIONS(F)                                                                          \
  EVG_LOOP_FUNCTIONS(F)                                                                            \
  EVG_SELECT_FUNCTIONS(F)                                                                          \
  EVG_TIME_FUNCTIONS(F)                                                                            \
  EVG_DNS_FUNCTIONS(F)                                                                             \
  EVG_PROCESS_FUNCTIONS(F)                                                                         \
  EVG_FILE_FUNCTIONS(F)

#define EVG_OTHER_FUNCTIONS(F)                                                                     \
  F(ssize_t, preadv2, int, const struct iovec *, int, off_t, int)                                  \
  F(ssize_t, pwritev2, int, const struct iovec *, int, off_t, int)                                 \
  F(int, fcntl, int, int, ...)                                                                     \
  F(int, fcntl64, int, int, ...)                                                                   \
  F(int, sigaction, int, const struct sigaction *, struct sigaction *)                             \
  F(int, sched_yield, void)                                                                        \
  F(int, pthread_rwlock_tryrdlock, pthread_rwlock_t *)                                             \
  F(int, pthread_rwlock_trywrlock, pthread_rwlock_t *)                                             \
  F(int, pthread_spin_trylock, pthread_spinlock_t *)                                               \
  F(int, pthread_tryjoin_np, pthread_t, void **)                                                   \
  F(int, thrd_join, pthread_t, int *)                                                              \
  F(int, sem_trywait, sem_t *)

#define EVG_REAL_FUNCTIONS(F)                                                                      \
  EVG_TRANSFER_FUNCTIONS(F)                                                                        \
  EVG_PLAIN_FUNCTIONS(F)                                                                           \
  EVG_ENDING_FUNCTIONS(F)                                                                          \
  EVG_LOCK_FUNCTIONS(F)                                                                            \
  EVG_FREEING_FUNCTIONS(F)                                                                         \
  EVG_OTHER_FUNCTIONS(F)

#define EVG_REAL_MEMBER(result, name, ...) result (*_Nonnull name)(__VA_ARGS__);
/// libc's own functions. None is NULL once the program's own constructors have run.
typedef struct evg_real_functions {
  EVG_REAL_FUNCTIONS(EVG_REAL_MEMBER)
} evg_real_functions;
#undef EVG_REAL_MEMBER

#if defined(__clang__)
#pragma clang diagnostic pop
#endif
#endif
