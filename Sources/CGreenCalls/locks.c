// Evergreen: mutexes, conditions, semaphores, and the ends of threads.
// SPDX-License-Identifier: MIT
//
// Each is tried first. While it is not to be had the greenlet is parked at its address, and whoever
// gives it free wakes the first one there, who tries again. Somebody may give it free who does not
// ask here: libc itself, another process. So whoever waits also looks now and then by himself.
//
// A mutex of the recursive or the error-checking kind belongs to a thread. Here it belongs to a
// greenlet: who of a thread has it is remembered as long as he has it.
//
// No lock may be denied for an error that is due, for hardly any code could bear that: these waits
// are firm. Conditions wake without reason then, as they may, and semaphores as after a signal.

#ifdef __linux__

#include "parking.h"

#include "CLocks.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

// MARK: Time

/// Whether it is one that libc would accept.
static bool is_limit(evg_limit limit) {
  return !limit.time || (limit.time->tv_nsec >= 0 && limit.time->tv_nsec < 1000000000);
}

static bool is_clock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC;
}

static uint64_t left_until(evg_limit limit) {
  if (!limit.time) return EVG_NEVER;
  struct timespec now;
  clock_gettime(limit.clock, &now);
  const int64_t seconds = (int64_t)limit.time->tv_sec - now.tv_sec;
  if (seconds > 9000000000) return EVG_NEVER;
  const int64_t left = seconds * 1000000000 + limit.time->tv_nsec - now.tv_nsec;
  return left > 0 ? (uint64_t)left : 0;
}

// MARK: Waiting in general

/// Whether the caller may wait here: not a vfork's child, nor the library about its own locks.
static bool may_park(void) { return evg_own_calls == 0 && evg_is_here() && evg_has_hub(); }

enum {
  FIRST_LOOK = 1000000,   // nanoseconds
  LAST_LOOK = 32000000,
};

__attribute__((noinline)) int evg_obtain(const evg_goal *goal, evg_limit limit) {
  if (!is_limit(limit)) return EINVAL;
  const int errno_before = errno;
  evg_parked parked;
  uint64_t pause = FIRST_LOOK;
  int result;
  evg_park_enter(&parked, goal->key, EVG_AT_TAIL);
  while ((result = goal->try(goal->argument)) == EBUSY) {
    const uint64_t left = left_until(limit);
    if (left == 0) {
      result = ETIMEDOUT;
      break;
    }
    const int end = evg_park_wait(
      &parked, goal->reason, evg_deadline_after(left < pause ? left : pause), goal->firm);
    if (end > 0) {
      result = EINTR;
      break;
    }
    if (end == EVG_WAIT_TIME_UP) {
      if (pause < LAST_LOOK) pause *= 2;
      continue;
    }
    // Whoever is woken and comes too late all the same is the first again.
    evg_park_leave(&parked);
    evg_park_enter(&parked, goal->key, EVG_AT_HEAD);
  }
  // Whoever was woken and did not take it tells the next.
  if (evg_park_leave(&parked) && result != 0) evg_unpark(goal->key, false);
  errno = errno_before;
  return result;
}

/// Wakes those who are parked there, the first or all. Returns how many.
static inline uint32_t tell(const void *key, bool all) {
  return evg_is_any_parked() && evg_own_calls == 0 ? evg_unpark(key, all) : 0;
}

// MARK: Who has a mutex

static __thread pid_t own_thread;

static void forget_thread(void) { own_thread = 0; }

static void follow_forks(void) { evg_on_fork(forget_thread); }

static pid_t this_thread(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (__builtin_expect(own_thread != 0, 1)) return own_thread;
  real(pthread_once)(&once, follow_forks);
  return own_thread = gettid();
}

static int kind_of(const pthread_mutex_t *mutex) { return mutex->__data.__kind & 3; }

/// Whether it makes a difference which greenlet has it.
static bool has_owner(const pthread_mutex_t *mutex) {
  const int kind = kind_of(mutex);
  return kind == PTHREAD_MUTEX_RECURSIVE_NP || kind == PTHREAD_MUTEX_ERRORCHECK_NP;
}

static bool is_this_threads(const pthread_mutex_t *mutex) {
  return __atomic_load_n(&mutex->__data.__owner, __ATOMIC_RELAXED) == this_thread();
}

typedef struct owner {
  struct owner *next;
  const pthread_mutex_t *mutex;
  const evg_context *context;
  uint32_t generation;
} owner;

/// Of mutexes that greenlets of this thread have.
enum { OWNER_LISTS = 64 };
static __thread owner *owners[OWNER_LISTS];

static owner **owner_of(const pthread_mutex_t *mutex) {
  owner **place = &owners[((uintptr_t)mutex * 0x9e3779b97f4a7c15u) >> 58];
  while (*place && (*place)->mutex != mutex) place = &(*place)->next;
  return place;
}

/// Whether another greenlet of this thread has it.
static bool is_anothers(const pthread_mutex_t *mutex) {
  if (!has_owner(mutex) || !is_this_threads(mutex)) return false;
  const owner *owner = *owner_of(mutex);
  return owner
    && (owner->context != evg_caller() || owner->generation != evg_caller()->generation);
}

static void note_owner(const pthread_mutex_t *mutex) {
  if (!has_owner(mutex)) return;
  owner **place = owner_of(mutex);
  if (!*place) {
    *place = malloc(sizeof(owner));
    if (!*place) return;  // it belongs to the thread then
    **place = (owner){.mutex = mutex};
  }
  (*place)->context = evg_caller();
  (*place)->generation = evg_caller()->generation;
}

static void forget_owner(const pthread_mutex_t *mutex) {
  owner **place = owner_of(mutex), *gone = *place;
  if (!gone) return;
  *place = gone->next;
  free(gone);
}

// MARK: Mutexes

static int try_mutex(void *argument) {
  pthread_mutex_t *mutex = argument;
  if (is_anothers(mutex)) return EBUSY;
  const int result = real(pthread_mutex_trylock)(mutex);
  if (result == 0 || result == EOWNERDEAD) note_owner(mutex);
  return result;
}

/// A thread gives a mutex back soon as a rule: a short look is cheaper than a switch.
static int try_for_a_while(pthread_mutex_t *mutex) {
  if (is_this_threads(mutex)) return EBUSY;
  for (int i = 0; i < 100; i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    if (__atomic_load_n(&mutex->__data.__lock, __ATOMIC_RELAXED) == 0) {
      const int result = try_mutex(mutex);
      if (result != EBUSY) return result;
    }
  }
  return EBUSY;
}

/// `plain` is the call, of libc, for whom may not wait here.
#define LOCK(mutex, limit, plain)                                                                  \
  ({                                                                                               \
    int locked_;                                                                                   \
    if (has_owner(mutex) && is_this_threads(mutex) && !is_anothers(mutex)) locked_ = (plain);      \
    else locked_ = try_mutex(mutex);                                                               \
    if (__builtin_expect(locked_ == EBUSY, 0)) {                                                   \
      locked_ = may_park() ? lock_patiently(mutex, limit) : (plain);                               \
    }                                                                                              \
    locked_;                                                                                       \
  })

static __attribute__((noinline)) int lock_patiently(pthread_mutex_t *mutex, evg_limit limit) {
  const int result = try_for_a_while(mutex);
  if (result != EBUSY) return result;
  return evg_obtain(
    &(evg_goal){.key = mutex, .reason = "a mutex", .try = try_mutex, .argument = mutex,
                .firm = true},
    limit);
}

int evg_green_pthread_mutex_lock(pthread_mutex_t *mutex) {
  return LOCK(mutex, evg_no_limit, real(pthread_mutex_lock)(mutex));
}

int evg_green_pthread_mutex_trylock(pthread_mutex_t *mutex) { return try_mutex(mutex); }

int evg_green_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *time) {
  return LOCK(
    mutex, ((evg_limit){CLOCK_REALTIME, time}), real(pthread_mutex_timedlock)(mutex, time));
}

int evg_green_pthread_mutex_clocklock(
    pthread_mutex_t *mutex, clockid_t clock, const struct timespec *time) {
  if (!is_clock(clock)) return real(pthread_mutex_clocklock)(mutex, clock, time);
  return LOCK(mutex, ((evg_limit){clock, time}), real(pthread_mutex_clocklock)(mutex, clock, time));
}

int evg_green_pthread_mutex_unlock(pthread_mutex_t *mutex) {
  const bool is_owned = evg_in_greenlet() && has_owner(mutex) && is_this_threads(mutex);
  if (is_owned && is_anothers(mutex)) return EPERM;
  // Before it is free: then it may be gone.
  const bool is_last = kind_of(mutex) != PTHREAD_MUTEX_RECURSIVE_NP || mutex->__data.__count == 1;
  if (is_owned && is_last) forget_owner(mutex);
  const int result = real(pthread_mutex_unlock)(mutex);
  if (result == 0) tell(mutex, false);
  return result;
}

// MARK: Locks for reading and writing

static int try_to_read(void *lock) { return real(pthread_rwlock_tryrdlock)(lock); }
static int try_to_write(void *lock) { return real(pthread_rwlock_trywrlock)(lock); }

#define SHARED_LOCK(lock, try_, limit_, plain)                                                     \
  ({                                                                                               \
    int locked_ = try_(lock);                                                                      \
    if (__builtin_expect(locked_ == EBUSY, 0)) {                                                   \
      locked_ = may_park()                                                                         \
        ? evg_obtain(                                                                              \
            &(evg_goal){.key = lock, .reason = "a read-write lock", .try = try_, .argument = lock, \
                    .firm = true},                                                                 \
            limit_)                                                                                \
        : (plain);                                                                                 \
    }                                                                                              \
    locked_;                                                                                       \
  })

#define SHARED_LOCKS(kind, try_)                                                                   \
  int evg_green_pthread_rwlock_##kind##lock(pthread_rwlock_t *lock) {                              \
    return SHARED_LOCK(lock, try_, evg_no_limit, real(pthread_rwlock_##kind##lock)(lock));         \
  }                                                                                                \
  int evg_green_pthread_rwlock_timed##kind##lock(                                                  \
      pthread_rwlock_t *lock, const struct timespec *time) {                                       \
    return SHARED_LOCK(lock, try_, ((evg_limit){CLOCK_REALTIME, time}),                            \
                       real(pthread_rwlock_timed##kind##lock)(lock, time));                        \
  }                                                                                                \
  int evg_green_pthread_rwlock_clock##kind##lock(                                                  \
      pthread_rwlock_t *lock, clockid_t clock, const struct timespec *time) {                      \
    if (!is_clock(clock)) return real(pthread_rwlock_clock##kind##lock)(lock, clock, time);        \
    return SHARED_LOCK(lock, try_, ((evg_limit){clock, time}),                                     \
                       real(pthread_rwlock_clock##kind##lock)(lock, clock, time));                 \
  }
SHARED_LOCKS(rd, try_to_read)
SHARED_LOCKS(wr, try_to_write)

int evg_green_pthread_rwlock_unlock(pthread_rwlock_t *lock) {
  const int result = real(pthread_rwlock_unlock)(lock);
  if (result == 0) tell(lock, true);
  return result;
}

// MARK: Conditions

enum { IS_SHARED = 1, IS_MONOTONIC = 2 };  // in glibc's word

static clockid_t clock_of(const pthread_cond_t *condition) {
  return condition->__data.__wrefs & IS_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME;
}

/// 0 if it was woken, or may have been; ETIMEDOUT; or why the mutex could not be given back or
/// taken again.
///
/// Those who signal it in another process are not seen, and an error that is due is not to be told:
/// then it wakes without reason, as conditions may.
static int wait_for_signal(pthread_cond_t *condition, pthread_mutex_t *mutex, evg_limit limit) {
  const int errno_before = errno;
  const bool is_shared = condition->__data.__wrefs & IS_SHARED;
  const uint64_t longest = is_shared ? LAST_LOOK : 1000000000;
  evg_parked parked;
  evg_park_enter(&parked, condition, EVG_AT_TAIL);
  int result = evg_green_pthread_mutex_unlock(mutex);
  if (result != 0) {
    if (evg_park_leave(&parked)) evg_unpark(condition, false);
    return result;
  }
  evg_is_refused();  // who comes again and again with an error that is due is slowed down
  const uint64_t left = left_until(limit);
  const uint64_t pause = left < longest ? left : longest;
  const int end = evg_park_wait(&parked, "a condition", evg_deadline_after(pause), false);
  const bool is_woken = evg_park_leave(&parked);
  result = LOCK(mutex, evg_no_limit, real(pthread_mutex_lock)(mutex));
  errno = errno_before;
  if (result != 0) return result;
  return !is_woken && end == EVG_WAIT_TIME_UP && left_until(limit) == 0 ? ETIMEDOUT : 0;
}

int evg_green_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
  if (!may_park()) return real(pthread_cond_wait)(condition, mutex);
  return wait_for_signal(condition, mutex, evg_no_limit);
}

int evg_green_pthread_cond_timedwait(
    pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *time) {
  const evg_limit limit = {clock_of(condition), time};
  if (!is_limit(limit) || !may_park()) {
    return real(pthread_cond_timedwait)(condition, mutex, time);
  }
  return wait_for_signal(condition, mutex, limit);
}

int evg_green_pthread_cond_clockwait(
    pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
    const struct timespec *time) {
  const evg_limit limit = {clock, time};
  if (!is_clock(clock) || !is_limit(limit) || !may_park()) {
    return real(pthread_cond_clockwait)(condition, mutex, clock, time);
  }
  return wait_for_signal(condition, mutex, limit);
}

int evg_green_pthread_cond_signal(pthread_cond_t *condition) {
  return tell(condition, false) > 0 ? 0 : real(pthread_cond_signal)(condition);
}

int evg_green_pthread_cond_broadcast(pthread_cond_t *condition) {
  tell(condition, true);
  return real(pthread_cond_broadcast)(condition);
}

// MARK: Semaphores

static int try_semaphore(void *semaphore) {
  if (real(sem_trywait)(semaphore) == 0) return 0;
  return errno == EAGAIN ? EBUSY : errno == EINTR ? EBUSY : errno;
}

/// Answers as the calls do. Errors that are due are told as what all code is prepared for: a
/// signal.
static int take_semaphore(sem_t *semaphore, evg_limit limit, int first) {
  if (first == EBUSY) {
    if (evg_is_refused()) first = EINTR;
    else first = evg_obtain(
      &(evg_goal){.key = semaphore, .reason = "a semaphore", .try = try_semaphore,
              .argument = semaphore, .firm = false},
      limit);
  }
  if (first == 0) return 0;
  errno = first;
  return -1;
}

#define SEMAPHORE(semaphore, limit, plain)                                                         \
  ({                                                                                               \
    const int errno_before_ = errno;                                                               \
    const int first_ = try_semaphore(semaphore);                                                   \
    int taken_ = 0;                                                                                \
    if (first_ == 0) errno = errno_before_;                                                        \
    else if (first_ == EBUSY && !may_park()) taken_ = (plain);                                     \
    else {                                                                                         \
      errno = errno_before_;                                                                       \
      taken_ = take_semaphore(semaphore, limit, first_);                                           \
    }                                                                                              \
    taken_;                                                                                        \
  })

int evg_green_sem_wait(sem_t *semaphore) {
  return SEMAPHORE(semaphore, evg_no_limit, real(sem_wait)(semaphore));
}

int evg_green_sem_timedwait(sem_t *semaphore, const struct timespec *time) {
  const evg_limit limit = {CLOCK_REALTIME, time};
  if (!is_limit(limit)) return real(sem_timedwait)(semaphore, time);
  return SEMAPHORE(semaphore, limit, real(sem_timedwait)(semaphore, time));
}

int evg_green_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *time) {
  const evg_limit limit = {clock, time};
  if (!is_clock(clock) || !is_limit(limit)) return real(sem_clockwait)(semaphore, clock, time);
  return SEMAPHORE(semaphore, limit, real(sem_clockwait)(semaphore, clock, time));
}

int evg_green_sem_post(sem_t *semaphore) {
  const int result = real(sem_post)(semaphore);
  if (result == 0) tell(semaphore, false);
  return result;
}

// MARK: Ends of threads

int (*evg_try_join_other)(pthread_t thread, void **value);

typedef struct ending {
  pthread_t thread;
  void **value;
} ending;

static int try_join(void *argument) {
  const ending *ending = argument;
  const int joined =
    evg_try_join_other ? evg_try_join_other(ending->thread, ending->value) : -1;
  if (joined >= 0) return joined;
  return real(pthread_tryjoin_np)(ending->thread, ending->value);
}

/// The end of a thread is seen by looking again and again: the kernel tells nobody else.
#define JOIN(thread_, value_, limit, plain)                                                        \
  ({                                                                                               \
    ending ending_ = {thread_, value_};                                                            \
    int joined_ =                                                                                  \
      evg_try_join_other == NULL && pthread_equal(thread_, pthread_self()) ? (plain)               \
                                                                           : try_join(&ending_);   \
    if (joined_ == EBUSY) {                                                                        \
      joined_ = may_park()                                                                         \
        ? evg_obtain(                                                                              \
            &(evg_goal){.key = (const void *)(thread_), .reason = "the end of a thread",           \
                    .try = try_join, .argument = &ending_, .firm = true},                          \
            limit)                                                                                 \
        : (plain);                                                                                 \
    }                                                                                              \
    joined_;                                                                                       \
  })

int evg_green_pthread_join(pthread_t thread, void **value) {
  return JOIN(thread, value, evg_no_limit, real(pthread_join)(thread, value));
}

int evg_green_pthread_timedjoin_np(pthread_t thread, void **value, const struct timespec *time) {
  return JOIN(thread, value, ((evg_limit){CLOCK_REALTIME, time}),
              real(pthread_timedjoin_np)(thread, value, time));
}

int evg_green_pthread_clockjoin_np(
    pthread_t thread, void **value, clockid_t clock, const struct timespec *time) {
  if (!is_clock(clock)) return real(pthread_clockjoin_np)(thread, value, clock, time);
  return JOIN(thread, value, ((evg_limit){clock, time}),
              real(pthread_clockjoin_np)(thread, value, clock, time));
}

// MARK: Once, and turns

/// An initialisation that a greenlet of this thread has begun. It stays here if it leaves by a C++
/// exception, so libc's word is asked too, where it is libc's and no sanitizer's.
typedef struct initialisation {
  struct initialisation *next;
  const pthread_once_t *once;
} initialisation;

static __thread initialisation *initialisations;

static initialisation **find_initialisation(const pthread_once_t *once) {
  initialisation **place = &initialisations;
  while (*place && (*place)->once != once) place = &(*place)->next;
  return place;
}

enum { RUNS_NOW = 1, IS_DONE = 2 };  // in glibc's word

static bool is_once(const pthread_once_t *once, int state) {
#if __has_feature(thread_sanitizer)
  return state == RUNS_NOW;
#else
  return (__atomic_load_n((const int *)once, __ATOMIC_ACQUIRE) & 3) == state;
#endif
}

static int try_once(void *once) {
  return *find_initialisation(once) && is_once(once, RUNS_NOW) ? EBUSY : 0;
}

int evg_green_pthread_once(pthread_once_t *once, evg_routine routine) {
  if (is_once(once, IS_DONE)) return 0;
  if (!evg_self.current || !may_park()) return real(pthread_once)(once, routine);
  if (try_once(once) != 0) {
    evg_obtain(
      &(evg_goal){.key = once, .reason = "an initialisation", .try = try_once, .argument = once,
                  .firm = true},
      evg_no_limit);
    return real(pthread_once)(once, routine);
  }
  if (!*find_initialisation(once)) {
    initialisation *new = malloc(sizeof *new);
    if (!new) return real(pthread_once)(once, routine);
    *new = (initialisation){initialisations, once};
    initialisations = new;
  }
  const int result = real(pthread_once)(once, routine);
  initialisation **place = find_initialisation(once), *old = *place;
  if (old) {
    *place = old->next;
    free(old);
  }
  tell(once, true);
  return result;
}

int evg_green_pthread_spin_lock(pthread_spinlock_t *lock) {
  for (uint32_t tries = 1; real(pthread_spin_trylock)(lock) != 0; tries++) {
    if (tries % 100 != 0) continue;
    if (!may_park()) return real(pthread_spin_lock)(lock);
    if (tries < 3200) evg_hub->give_turn();
    else evg_hub->suspend("a spin lock", (int64_t)(intptr_t)lock, evg_deadline_after(FIRST_LOOK));
  }
  return 0;
}

int evg_green_sched_yield(void) {
  if (!evg_self.current || !evg_is_here()) return real(sched_yield)();
  evg_hub->give_turn();
  return 0;
}

#endif
