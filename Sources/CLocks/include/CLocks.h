// Evergreen: mutexes that a fork finds free, and what is to be done in the child.
// SPDX-License-Identifier: MIT
//
// In the child of a fork(2) only the thread that forked goes on. A mutex that another thread held
// would stay locked there for ever, and what it guards would stay half changed. So all mutexes of
// the library are in a list, and the forking thread takes them all before it forks. It must not
// wait for one while it holds others, for somebody may want them in another order: when one is
// taken it gives all back and tries again a little later.

#ifndef EVERGREEN_CLOCKS_H
#define EVERGREEN_CLOCKS_H

#if defined(__swift__) && defined(__linux__)
// libc's types are to be those of Swift's Glibc, not this module's.
#pragma clang module import SwiftGlibc
#endif
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

#if defined(__clang__)
#pragma clang assume_nonnull begin
#else
#define _Nullable
#endif

/// A mutex that is free in the child of a fork. Who holds it must not fork: it would wait for
/// itself.
typedef struct evg_lock {
  pthread_mutex_t mutex;
  struct evg_lock *_Nullable next;
  struct evg_lock *_Nullable previous;
} evg_lock;

/// How deep the calling thread is in calls of libc that the library makes for itself: about its mutexes,
/// for its threads. Who takes libc's functions over for others leaves these alone.
extern __thread uint32_t evg_own_calls __attribute__((tls_model("initial-exec")));

void evg_lock_init(evg_lock *lock);

/// Nobody may hold it.
void evg_lock_destroy(evg_lock *lock);

static inline void evg_mutex_take(pthread_mutex_t *mutex) {
  evg_own_calls++;
  pthread_mutex_lock(mutex);
  evg_own_calls--;
}

static inline void evg_mutex_give(pthread_mutex_t *mutex) {
  evg_own_calls++;
  pthread_mutex_unlock(mutex);
  evg_own_calls--;
}

static inline void evg_lock_take(evg_lock *lock) { evg_mutex_take(&lock->mutex); }
static inline void evg_lock_give(evg_lock *lock) { evg_mutex_give(&lock->mutex); }

/// As pthread_cond_timedwait on the mutex of a lock that the caller has.
static inline int evg_lock_wait(
    evg_lock *lock, pthread_cond_t *condition, const struct timespec *deadline) {
  evg_own_calls++;
  const int error = pthread_cond_timedwait(condition, &lock->mutex, deadline);
  evg_own_calls--;
  return error;
}

/// Until `evg_allow_forks` no other thread forks, and no signal comes to this one, whose handler might.
/// For what takes locks that are not in the list, as the Swift runtime does when it makes types. One
/// thread at a time; others wait.
void evg_forbid_forks(sigset_t *before);
void evg_allow_forks(const sigset_t *before);

/// Only read through `evg_forks`.
extern volatile uint32_t evg_fork_counter;

/// How many forks lie between the start of the program and this process. What remembers the number
/// sees by it that it was made in a parent.
static inline uint32_t evg_forks(void) { return evg_fork_counter; }

/// Has `hook` called in the child of each fork, in the thread that forked, before `fork` returns
/// there. Hooks are called in the order in which they came; one that is there already stays where
/// it is.
void evg_on_fork(void (*hook)(void));

#if defined(__clang__)
#pragma clang assume_nonnull end
#endif
#endif
