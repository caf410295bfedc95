// Evergreen: scripts of mutexes, conditions, semaphores, and ends of threads.
// SPDX-License-Identifier: MIT
//
// What they wait for is in the hands of a peer, a thread.

#include "scripts.h"

#include <semaphore.h>
#include <threads.h>

/// What a script shares with its peer.
typedef struct shared {
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  pthread_rwlock_t lock;
  pthread_spinlock_t spin;
  sem_t semaphore, has_begun;
  int turn;
  pthread_t waiting;
} shared;

static void make(shared *shared) {
  memset(shared, 0, sizeof *shared);
  pthread_mutex_init(&shared->mutex, NULL);
  pthread_cond_init(&shared->condition, NULL);
  pthread_rwlock_init(&shared->lock, NULL);
  pthread_spin_init(&shared->spin, PTHREAD_PROCESS_PRIVATE);
  sem_init(&shared->semaphore, 0, 0);
  sem_init(&shared->has_begun, 0, 0);
}

typedef struct help {
  void (*run)(shared *);
  shared *shared;
} help;

static void *run_help(void *argument) {
  const help help = *(struct help *)argument;
  free(argument);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  help.run(help.shared);
  return (void *)7;
}

static pthread_t helped_by(shared *shared, void (*run)(struct shared *)) {
  help *help = malloc(sizeof *help);
  *help = (struct help){run, shared};
  pthread_t thread;
  pthread_create(&thread, NULL, run_help, help);
  return thread;
}

static struct timespec in(clockid_t clock, int milliseconds) {
  struct timespec time;
  clock_gettime(clock, &time);
  time.tv_sec += milliseconds / 1000;
  time.tv_nsec += milliseconds % 1000 * 1000000;
  if (time.tv_nsec >= 1000000000) time.tv_sec++, time.tv_nsec -= 1000000000;
  return time;
}

static const struct timespec past = {1, 0}, wrong = {1, 1000000000};

// MARK: Mutexes

/// Of a kind, or of the default one if it is negative.
static void make_mutex(pthread_mutex_t *mutex, int kind, bool is_robust) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  if (kind >= 0) pthread_mutexattr_settype(&attributes, kind);
  if (is_robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

static void hold_mutex(shared *shared) {
  pthread_mutex_lock(&shared->mutex);
  sem_post(&shared->has_begun);
  usleep(60000);
  pthread_mutex_unlock(&shared->mutex);
}

SCRIPT(mutex_free) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  const struct timespec soon = in(CLOCK_REALTIME, 1000);
  CALL(pthread_mutex_lock(&mutex));
  CALL(pthread_mutex_trylock(&mutex));
  CALL(pthread_mutex_unlock(&mutex));
  CALL(pthread_mutex_trylock(&mutex));
  CALL(pthread_mutex_unlock(&mutex));
  CALL(pthread_mutex_timedlock(&mutex, &soon));
  CALL(pthread_mutex_unlock(&mutex));
  CALL(pthread_mutex_timedlock(&mutex, &past));
  CALL(pthread_mutex_unlock(&mutex));
  CALL(pthread_mutex_destroy(&mutex));
  usleep(1000);
}

SCRIPT(mutex_late) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, hold_mutex);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_mutex_trylock(&shared.mutex));
  CALL(pthread_mutex_lock(&shared.mutex));
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_join(thread, NULL));
}

SCRIPT(mutex_kinds) {
  const int kinds[] = {
    PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
  for (int i = 0; i < 3; i++) {
    shared shared;
    make(&shared);
    make_mutex(&shared.mutex, kinds[i], false);
    CALL(pthread_mutex_lock(&shared.mutex));
    if (i < 2) CALL(pthread_mutex_lock(&shared.mutex));
    CALL(pthread_mutex_trylock(&shared.mutex));
    CALL(pthread_mutex_unlock(&shared.mutex));
    if (i == 0) CALL(pthread_mutex_unlock(&shared.mutex));
    if (i == 0) CALL(pthread_mutex_unlock(&shared.mutex));
    if (i < 2) CALL(pthread_mutex_unlock(&shared.mutex));
    const pthread_t thread = helped_by(&shared, hold_mutex);
    CALL(sem_wait(&shared.has_begun));
    CALL(pthread_mutex_trylock(&shared.mutex));
    if (i < 2) CALL(pthread_mutex_unlock(&shared.mutex));
    CALL(pthread_mutex_lock(&shared.mutex));
    CALL(pthread_mutex_unlock(&shared.mutex));
    CALL(pthread_join(thread, NULL));
  }
}

SCRIPT(mutex_time_limit) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, hold_mutex);
  CALL(sem_wait(&shared.has_begun));
  struct timespec time = in(CLOCK_REALTIME, 10);
  CALL(pthread_mutex_timedlock(&shared.mutex, &time));
  time = in(CLOCK_MONOTONIC, 10);
  CALL(pthread_mutex_clocklock(&shared.mutex, CLOCK_MONOTONIC, &time));
  CALL(pthread_mutex_timedlock(&shared.mutex, &past));
  CALL(pthread_mutex_timedlock(&shared.mutex, &wrong));
  CALL(pthread_mutex_clocklock(&shared.mutex, 77, &past));
  CALL(pthread_mutex_clocklock(&shared.mutex, CLOCK_PROCESS_CPUTIME_ID, &past));
  time = in(CLOCK_REALTIME, 60000);
  CALL(pthread_mutex_timedlock(&shared.mutex, &time));
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_join(thread, NULL));
}

static void die_with_mutex(shared *shared) {
  pthread_mutex_lock(&shared->mutex);
  sem_post(&shared->has_begun);
  usleep(30000);
}

SCRIPT(mutex_robust) {
  shared shared;
  make(&shared);
  make_mutex(&shared.mutex, -1, true);
  const pthread_t thread = helped_by(&shared, die_with_mutex);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_mutex_lock(&shared.mutex));
  CALL(pthread_mutex_consistent(&shared.mutex));
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_mutex_lock(&shared.mutex));
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_join(thread, NULL));
}

SCRIPT(mutex_bad) {
  pthread_mutex_t mutex;
  memset(&mutex, 0, sizeof mutex);
  mutex.__data.__kind = 1 << 30;
  CALL(pthread_mutex_lock(&mutex));
  CALL(pthread_mutex_trylock(&mutex));
  CALL(pthread_mutex_unlock(&mutex));
  usleep(1000);
}

// MARK: Locks for reading and writing

static void hold_for_writing(shared *shared) {
  pthread_rwlock_wrlock(&shared->lock);
  sem_post(&shared->has_begun);
  usleep(60000);
  pthread_rwlock_unlock(&shared->lock);
}

static void hold_for_reading(shared *shared) {
  pthread_rwlock_rdlock(&shared->lock);
  sem_post(&shared->has_begun);
  usleep(60000);
  pthread_rwlock_unlock(&shared->lock);
}

SCRIPT(shared_lock_late) {
  shared shared;
  make(&shared);
  pthread_t thread = helped_by(&shared, hold_for_writing);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_rwlock_tryrdlock(&shared.lock));
  CALL(pthread_rwlock_rdlock(&shared.lock));
  CALL(pthread_rwlock_rdlock(&shared.lock));
  CALL(pthread_rwlock_unlock(&shared.lock));
  CALL(pthread_rwlock_unlock(&shared.lock));
  CALL(pthread_join(thread, NULL));
  thread = helped_by(&shared, hold_for_reading);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_rwlock_rdlock(&shared.lock));
  CALL(pthread_rwlock_unlock(&shared.lock));
  CALL(pthread_rwlock_trywrlock(&shared.lock));
  CALL(pthread_rwlock_wrlock(&shared.lock));
  CALL(pthread_rwlock_unlock(&shared.lock));
  CALL(pthread_join(thread, NULL));
}

SCRIPT(shared_lock_time_limit) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, hold_for_writing);
  CALL(sem_wait(&shared.has_begun));
  struct timespec time = in(CLOCK_REALTIME, 10);
  CALL(pthread_rwlock_timedrdlock(&shared.lock, &time));
  CALL(pthread_rwlock_timedwrlock(&shared.lock, &time));
  CALL(pthread_rwlock_timedwrlock(&shared.lock, &wrong));
  time = in(CLOCK_MONOTONIC, 10);
  CALL(pthread_rwlock_clockrdlock(&shared.lock, CLOCK_MONOTONIC, &time));
  CALL(pthread_rwlock_clockwrlock(&shared.lock, CLOCK_MONOTONIC, &time));
  CALL(pthread_rwlock_clockwrlock(&shared.lock, 77, &time));
  CALL(pthread_join(thread, NULL));
}

// MARK: Conditions

static void take_the_turn(shared *shared) {
  usleep(30000);
  pthread_mutex_lock(&shared->mutex);
  shared->turn = 1;
  pthread_cond_signal(&shared->condition);
  pthread_mutex_unlock(&shared->mutex);
}

SCRIPT(condition_late) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, take_the_turn);
  CALL(pthread_mutex_lock(&shared.mutex));
  int results = 0;
  while (shared.turn == 0) results |= pthread_cond_wait(&shared.condition, &shared.mutex);
  tell(log, "results %d\n", results);
  CALL(pthread_mutex_trylock(&shared.mutex));
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_join(thread, NULL));
  CALL(pthread_cond_signal(&shared.condition));
  CALL(pthread_cond_broadcast(&shared.condition));
  CALL(pthread_cond_destroy(&shared.condition));
}

SCRIPT(condition_time_limit) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER, monotonic;
  pthread_cond_init(&monotonic, &attributes);
  CALL(pthread_mutex_lock(&mutex));
  struct timespec time = in(CLOCK_REALTIME, 20);
  CALL(pthread_cond_timedwait(&condition, &mutex, &time));
  CALL(pthread_cond_timedwait(&condition, &mutex, &past));
  CALL(pthread_cond_timedwait(&condition, &mutex, &wrong));
  time = in(CLOCK_MONOTONIC, 20);
  CALL(pthread_cond_timedwait(&monotonic, &mutex, &time));
  time = in(CLOCK_MONOTONIC, 20);
  CALL(pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &time));
  CALL(pthread_cond_clockwait(&condition, &mutex, 77, &time));
  CALL(pthread_mutex_trylock(&mutex));
  CALL(pthread_mutex_unlock(&mutex));
}

enum { ROUNDS = 200 };

static void answer_turns(shared *shared) {
  pthread_mutex_lock(&shared->mutex);
  for (int i = 0; i < ROUNDS; i++) {
    while (shared->turn % 2 == 0) pthread_cond_wait(&shared->condition, &shared->mutex);
    shared->turn++;
    pthread_cond_broadcast(&shared->condition);
  }
  pthread_mutex_unlock(&shared->mutex);
}

SCRIPT(condition_both_ways) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, answer_turns);
  CALL(pthread_mutex_lock(&shared.mutex));
  for (int i = 0; i < ROUNDS; i++) {
    shared.turn++;
    pthread_cond_signal(&shared.condition);
    while (shared.turn % 2 == 1) pthread_cond_wait(&shared.condition, &shared.mutex);
  }
  tell(log, "%d turns\n", shared.turn);
  CALL(pthread_mutex_unlock(&shared.mutex));
  CALL(pthread_join(thread, NULL));
}

SCRIPT(condition_bad) {
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  pthread_mutex_t mutex;
  make_mutex(&mutex, PTHREAD_MUTEX_ERRORCHECK, false);
  CALL(pthread_cond_wait(&condition, &mutex));
  const struct timespec time = in(CLOCK_REALTIME, 10);
  CALL(pthread_cond_timedwait(&condition, &mutex, &time));
  usleep(1000);
}

// MARK: Semaphores

static void post_late(shared *shared) {
  usleep(30000);
  sem_post(&shared->semaphore);
}

SCRIPT(semaphore_late) {
  shared shared;
  make(&shared);
  int value = -1;
  const pthread_t thread = helped_by(&shared, post_late);
  CALL(sem_trywait(&shared.semaphore));
  CALL(sem_wait(&shared.semaphore));
  CALL(sem_trywait(&shared.semaphore));
  CALL(sem_post(&shared.semaphore));
  CALL(sem_post(&shared.semaphore));
  CALL(sem_wait(&shared.semaphore));
  CALL(sem_getvalue(&shared.semaphore, &value));
  tell(log, "%d\n", value);
  CALL(pthread_join(thread, NULL));
}

SCRIPT(semaphore_time_limit) {
  shared shared;
  make(&shared);
  struct timespec time = in(CLOCK_REALTIME, 20);
  CALL(sem_timedwait(&shared.semaphore, &time));
  CALL(sem_timedwait(&shared.semaphore, &past));
  CALL(sem_timedwait(&shared.semaphore, &wrong));
  time = in(CLOCK_MONOTONIC, 20);
  CALL(sem_clockwait(&shared.semaphore, CLOCK_MONOTONIC, &time));
  CALL(sem_clockwait(&shared.semaphore, 77, &time));
  time = in(CLOCK_REALTIME, 60000);
  const pthread_t thread = helped_by(&shared, post_late);
  CALL(sem_timedwait(&shared.semaphore, &time));
  CALL(sem_post(&shared.semaphore));
  CALL(sem_timedwait(&shared.semaphore, &past));
  CALL(pthread_join(thread, NULL));
}

static void signal_and_post(shared *shared) {
  usleep(30000);
  pthread_kill(shared->waiting, SIGUSR1);
  usleep(20000);
  sem_post(&shared->semaphore);
}

static void do_nothing(int signal) { (void)signal; }

SCRIPT(semaphore_signal) {
  shared shared;
  make(&shared);
  const struct sigaction action = {.sa_handler = do_nothing};
  struct sigaction before;
  sigaction(SIGUSR1, &action, &before);
  later(log, signal_thread, SIGUSR1, (long)log->self);
  CALL(sem_wait(&shared.semaphore));
  const struct sigaction restarting = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &restarting, NULL);
  shared.waiting = log->self;
  const pthread_t thread = helped_by(&shared, signal_and_post);
  CALL(sem_wait(&shared.semaphore));
  CALL(pthread_join(thread, NULL));
  sigaction(SIGUSR1, &before, NULL);
}

// MARK: Ends of threads

static void end_late(shared *shared) {
  (void)shared;
  usleep(30000);
}

static void *end_at_once(void *value) { return value; }

SCRIPT(join_late) {
  shared shared;
  make(&shared);
  void *value = NULL;
  pthread_t thread = helped_by(&shared, end_late);
  CALL(pthread_join(thread, &value));
  tell(log, "%ld\n", (long)value);
  pthread_create(&thread, NULL, end_at_once, (void *)5);
  usleep(1000);
  CALL(pthread_join(thread, &value));
  tell(log, "%ld\n", (long)value);
  thread = helped_by(&shared, end_late);
  struct timespec time = in(CLOCK_REALTIME, 5);
  CALL(pthread_timedjoin_np(thread, &value, &time));
  time = in(CLOCK_MONOTONIC, 5);
  CALL(pthread_clockjoin_np(thread, &value, CLOCK_MONOTONIC, &time));
  time = in(CLOCK_REALTIME, 60000);
  CALL(pthread_timedjoin_np(thread, &value, &time));
  tell(log, "%ld\n", (long)value);
}

SCRIPT(join_bad) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  shared shared;
  make(&shared);
  help *help = malloc(sizeof *help);
  *help = (struct help){post_late, &shared};
  pthread_t thread;
  CALL(pthread_create(&thread, &attributes, run_help, help));
  CALL_BADLY(pthread_join(thread, NULL));  // for the sanitizers that is the end
  CALL(sem_wait(&shared.semaphore));
}

// MARK: The rest

static pthread_once_t once;
static int inits;

static void initialise(void) {
  usleep(30000);
  inits++;
}

static void initialise_too(shared *shared) {
  sem_post(&shared->has_begun);
  pthread_once(&once, initialise);
}

SCRIPT(once_late) {
  shared shared;
  make(&shared);
  once = PTHREAD_ONCE_INIT;
  inits = 0;
  const pthread_t thread = helped_by(&shared, initialise_too);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_once(&once, initialise));
  tell(log, "%d\n", inits);
  CALL(pthread_once(&once, initialise));
  tell(log, "%d\n", inits);
  CALL(pthread_join(thread, NULL));
  usleep(1000);
}

static void spin(shared *shared) {
  pthread_spin_lock(&shared->spin);
  sem_post(&shared->has_begun);
  usleep(20000);
  pthread_spin_unlock(&shared->spin);
}

SCRIPT(spin_late) {
  shared shared;
  make(&shared);
  const pthread_t thread = helped_by(&shared, spin);
  CALL(sem_wait(&shared.has_begun));
  CALL(pthread_spin_trylock(&shared.spin));
  CALL(pthread_spin_lock(&shared.spin));
  CALL(pthread_spin_unlock(&shared.spin));
  CALL(sched_yield());
  CALL(pthread_join(thread, NULL));
}

typedef struct c_shared {
  mtx_t mutex;
  cnd_t condition;
  int turn;
} c_shared;

static int take_the_c_turn(void *argument) {
  c_shared *shared = argument;
  usleep(30000);
  mtx_lock(&shared->mutex);
  shared->turn = 1;
  cnd_signal(&shared->condition);
  usleep(20000);
  mtx_unlock(&shared->mutex);
  return 9;
}

/// The sanitizers do not know of threads that C makes.
static int start_in_c(thrd_t *thread, int (*run)(void *), void *argument) {
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
  return pthread_create(thread, NULL, (void *(*)(void *))(void *)run, argument);
#else
  return thrd_create(thread, run, argument);
#endif
}

static int end_in_c(thrd_t thread, int *result) {
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
  void *value = NULL;
  const int error = pthread_join(thread, &value);
  *result = (int)(long)value;
  return error;
#else
  return thrd_join(thread, result);
#endif
}

static once_flag c_once = ONCE_FLAG_INIT;
static void count_once(void) { inits++; }

SCRIPT(locks_in_c) {
  c_shared shared = {.turn = 0};
  CALL(mtx_init(&shared.mutex, mtx_timed));
  CALL(cnd_init(&shared.condition));
  thrd_t thread;
  CALL(start_in_c(&thread, take_the_c_turn, &shared));
  CALL(mtx_lock(&shared.mutex));
  CALL(mtx_trylock(&shared.mutex));
  struct timespec time = in(CLOCK_REALTIME, 5);
  CALL(cnd_timedwait(&shared.condition, &shared.mutex, &time));
  int results = 0;
  while (shared.turn == 0) results |= cnd_wait(&shared.condition, &shared.mutex);
  tell(log, "results %d\n", results);
  time = in(CLOCK_REALTIME, 5);
  CALL(mtx_timedlock(&shared.mutex, &time));
  CALL(mtx_unlock(&shared.mutex));
  CALL(cnd_broadcast(&shared.condition));
  int result = 0;
  CALL(end_in_c(thread, &result));
  tell(log, "%d\n", result);
  inits = 0;
  call_once(&c_once, count_once);
  call_once(&c_once, count_once);
  tell(log, "once: %s\n", inits <= 1 ? "yes" : "no");
  time = (struct timespec){0, 1000000};
  CALL(thrd_sleep(&time, NULL));
  CALL(thrd_sleep(&wrong, NULL));
  thrd_yield();
  mtx_destroy(&shared.mutex);
  cnd_destroy(&shared.condition);
}
