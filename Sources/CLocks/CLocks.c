// Evergreen: the list of the mutexes, and the three moments of a fork.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include "CLocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { MOST_HOOKS = 16 };

volatile uint32_t evg_fork_counter = 0;
__thread uint32_t evg_own_calls;

// Guards what follows.
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static evg_lock *first;
static void (*hooks[MOST_HOOKS])(void);
static int hook_count;

static void give_back_until(const evg_lock *end) {
  for (evg_lock *lock = first; lock != end; lock = lock->next) evg_lock_give(lock);
}

/// Not by libc's function, which may be patched: nobody else of this thread is to run now.
static void rest(void) {
  const struct timespec time = {.tv_nsec = 50000};
#ifdef __linux__
  syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, NULL);
#else
  nanosleep(&time, NULL);
#endif
}

static void before_fork(void) {
  for (;;) {
    evg_mutex_take(&guard);
    evg_lock *lock = first;
    while (lock && pthread_mutex_trylock(&lock->mutex) == 0) lock = lock->next;
    if (!lock) return;
    give_back_until(lock);
    evg_mutex_give(&guard);
    rest();
  }
}

static void after_fork_in_parent(void) {
  give_back_until(NULL);
  evg_mutex_give(&guard);
}

static void after_fork_in_child(void) {
  evg_fork_counter += 1;
  give_back_until(NULL);
  evg_mutex_give(&guard);
  // No other thread runs here, so nothing changes meanwhile.
  for (int i = 0; i < hook_count; i++) hooks[i]();
}

static void prepare(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void prepare_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  evg_own_calls++;
  pthread_once(&once, prepare);
  evg_own_calls--;
}

void evg_lock_init(evg_lock *lock) {
  prepare_once();
  pthread_mutex_init(&lock->mutex, NULL);
  evg_mutex_take(&guard);
  lock->previous = NULL;
  lock->next = first;
  if (first) first->previous = lock;
  first = lock;
  evg_mutex_give(&guard);
}

void evg_lock_destroy(evg_lock *lock) {
  evg_mutex_take(&guard);
  if (lock->previous) lock->previous->next = lock->next;
  else first = lock->next;
  if (lock->next) lock->next->previous = lock->previous;
  evg_mutex_give(&guard);
  pthread_mutex_destroy(&lock->mutex);
}

static evg_lock peace;
static void prepare_peace(void) { evg_lock_init(&peace); }

void evg_forbid_forks(sigset_t *before) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare_peace);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, before);
  evg_lock_take(&peace);
}

void evg_allow_forks(const sigset_t *before) {
  evg_lock_give(&peace);
  pthread_sigmask(SIG_SETMASK, before, NULL);
}

void evg_on_fork(void (*hook)(void)) {
  prepare_once();
  evg_mutex_take(&guard);
  int i = 0;
  while (i < hook_count && hooks[i] != hook) i++;
  if (i == MOST_HOOKS) {
    fputs("evergreen: fatal: too many hooks for forks\n", stderr);
    abort();
  }
  hooks[i] = hook;
  if (i == hook_count) hook_count++;
  evg_mutex_give(&guard);
}
