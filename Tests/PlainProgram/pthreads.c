// Evergreen: all that threads share, and have apart.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static pthread_t start(void *(*run)(void *), void *argument) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run, argument) == 0);
  return thread;
}

static void *end_of(pthread_t thread) {
  void *result = NULL;
  CHECK(pthread_join(thread, &result) == 0);
  return result;
}

static struct timespec in_milliseconds(long milliseconds) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  time.tv_nsec += milliseconds * 1000000;
  time.tv_sec += time.tv_nsec / 1000000000;
  time.tv_nsec %= 1000000000;
  return time;
}

// MARK: Who they are

static pthread_t main_thread;

static void *know_oneself(void *argument) {
  const pthread_t self = pthread_self();
  CHECK(!pthread_equal(self, main_thread));
  usleep(1000);
  CHECK(pthread_equal(self, pthread_self()));
  char name[16];
  CHECK(pthread_setname_np(self, "a worker") == 0);
  CHECK(pthread_setname_np(self, "a name that is too long") == ERANGE);
  CHECK(pthread_getname_np(self, name, sizeof name) == 0 && strcmp(name, "a worker") == 0);
  pthread_attr_t attributes;
  void *low = NULL;
  size_t size = 0;
  int detached;
  CHECK(pthread_getattr_np(self, &attributes) == 0);
  CHECK(pthread_attr_getstack(&attributes, &low, &size) == 0);
  CHECK((char *)low < (char *)&size && (char *)&size < (char *)low + size);
  CHECK(pthread_attr_getdetachstate(&attributes, &detached) == 0);
  CHECK(detached == PTHREAD_CREATE_JOINABLE);
  pthread_attr_destroy(&attributes);
  int policy;
  struct sched_param parameters;
  clockid_t clock;
  CHECK(pthread_getschedparam(self, &policy, &parameters) == 0);
  CHECK(pthread_getcpuclockid(self, &clock) == 0 && clock_gettime(clock, &(struct timespec){0}) == 0);
  CHECK(pthread_kill(self, 0) == 0);
  CHECK(pthread_join(self, NULL) == EDEADLK);
  return argument;
}

static void *use_much_stack(void *argument) {
  char much[300 * 1024];
  memset(much, 1, sizeof much);
  usleep(1000);
  return much[(long)argument] == 1 ? (void *)1 : NULL;
}

static void show_identity(void) {
  main_thread = pthread_self();
  pthread_t threads[3];
  for (long i = 0; i < 3; i++) threads[i] = start(know_oneself, (void *)i);
  CHECK(!pthread_equal(threads[0], threads[1]));
  for (long i = 0; i < 3; i++) CHECK(end_of(threads[i]) == (void *)i);
  CHECK(end_of(start(use_much_stack, (void *)1000)) == (void *)1);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 1 << 20);
  pthread_t thread;
  CHECK(pthread_create(&thread, &attributes, use_much_stack, (void *)5) == 0);
  CHECK(end_of(thread) == (void *)1);
  printf("identity\n");
}

// MARK: What each has apart

static pthread_key_t key, other_key;
static int destroyed, rounds;

static void destroy(void *value) {
  destroyed += (int)(long)value;
}

static void destroy_again(void *value) {
  if (rounds++ < 2) pthread_setspecific(other_key, value);
}

static void *have_values(void *argument) {
  CHECK(pthread_getspecific(key) == NULL);
  CHECK(pthread_setspecific(key, argument) == 0);
  CHECK(pthread_setspecific(other_key, argument) == 0);
  errno = (int)(long)argument;
  for (int i = 0; i < 5; i++) {
    usleep(500);
    CHECK(pthread_getspecific(key) == argument);
    errno = (int)(long)argument;
    sched_yield();
    CHECK(errno == (int)(long)argument);
  }
  return NULL;
}

static void show_values(void) {
  CHECK(pthread_key_create(&key, destroy) == 0);
  CHECK(pthread_key_create(&other_key, destroy_again) == 0);
  CHECK(pthread_setspecific(key, "main") == 0);
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) threads[i] = start(have_values, (void *)(i + 1));
  for (long i = 0; i < 4; i++) end_of(threads[i]);
  CHECK(strcmp(pthread_getspecific(key), "main") == 0);
  printf("destroyed %d, again %s\n", destroyed, rounds >= 4 ? "too" : "not");
  CHECK(pthread_setspecific(key, NULL) == 0 && pthread_key_delete(key) == 0);
  CHECK(pthread_setspecific(PTHREAD_KEYS_MAX, "none") == EINVAL);
}

// MARK: Ends

static int cleanups[8], cleanup_count;

static void clean(void *argument) { cleanups[cleanup_count++] = (int)(long)argument; }

static void leave_deeply(int depth) {
  pthread_cleanup_push(clean, (void *)(long)depth);
  usleep(500);
  if (depth == 3) pthread_exit((void *)42L);
  leave_deeply(depth + 1);
  pthread_cleanup_pop(0);
}

static void *leave_in_the_middle(void *argument) {
  leave_deeply(0);
  return argument;
}

static void *return_late(void *argument) {
  usleep(20000);
  return argument;
}

static sem_t gone;

static void *tell_end(void *argument) {
  usleep(1000);
  sem_post(&gone);
  return argument;
}

static void show_ends(void) {
  CHECK(end_of(start(leave_in_the_middle, NULL)) == (void *)42L);
  printf("cleaned up");
  for (int i = 0; i < cleanup_count; i++) printf(" %d", cleanups[i]);
  printf("\n");
  pthread_t late = start(return_late, (void *)7L);
  void *result = NULL;
  CHECK(pthread_tryjoin_np(late, &result) == EBUSY);
  struct timespec time = in_milliseconds(1);
  CHECK(pthread_timedjoin_np(late, &result, &time) == ETIMEDOUT);
  time = in_milliseconds(60000);
  CHECK(pthread_timedjoin_np(late, &result, &time) == 0 && result == (void *)7L);

  sem_init(&gone, 0, 0);
  CHECK(pthread_detach(start(tell_end, NULL)) == 0);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  CHECK(pthread_create(&thread, &attributes, tell_end, NULL) == 0);
  for (int i = 0; i < 2; i++) CHECK(sem_wait(&gone) == 0);
  printf("ends\n");
}

// MARK: What they share

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, recursive;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_barrier_t barrier;
static int count, turn, inits, serials, readers, most_readers;

static void *add_much(void *argument) {
  for (int i = 0; i < 500; i++) {
    pthread_mutex_lock(&mutex);
    const int before = count;
    if (i % 50 == 0) usleep(100);
    count = before + 1;
    pthread_mutex_unlock(&mutex);
  }
  return argument;
}

static void *lock_twice(void *argument) {
  for (int i = 0; i < 20; i++) {
    CHECK(pthread_mutex_lock(&recursive) == 0);
    CHECK(pthread_mutex_lock(&recursive) == 0);
    const int before = count;
    usleep(50);
    count = before + 1;
    CHECK(pthread_mutex_unlock(&recursive) == 0);
    CHECK(pthread_mutex_unlock(&recursive) == 0);
  }
  CHECK(pthread_mutex_unlock(&recursive) == EPERM);
  return argument;
}

static void *take_turns(void *argument) {
  const int own = (int)(long)argument;
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < 100; i++) {
    while (turn % 3 != own) pthread_cond_wait(&condition, &mutex);
    turn++;
    pthread_cond_broadcast(&condition);
  }
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static void initialise(void) {
  usleep(5000);
  inits++;
}

static void *meet(void *argument) {
  pthread_once(&once, initialise);
  CHECK(inits == 1);
  for (int i = 0; i < 10; i++) {
    const int result = pthread_barrier_wait(&barrier);
    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    pthread_spin_lock(&spin);
    if (result != 0) serials++;
    pthread_spin_unlock(&spin);
  }
  return argument;
}

static void *read_together(void *argument) {
  CHECK(pthread_rwlock_rdlock(&lock) == 0);
  pthread_mutex_lock(&mutex);
  readers++;
  if (readers > most_readers) most_readers = readers;
  pthread_mutex_unlock(&mutex);
  pthread_barrier_wait(&barrier);  // only if all read at once
  pthread_mutex_lock(&mutex);
  readers--;
  pthread_mutex_unlock(&mutex);
  CHECK(pthread_rwlock_unlock(&lock) == 0);
  return argument;
}

static void run_four(void *(*run)(void *)) {
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) threads[i] = start(run, (void *)i);
  for (long i = 0; i < 4; i++) end_of(threads[i]);
}

static void show_sharing(void) {
  run_four(add_much);
  printf("counted %d\n", count);
  count = 0;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&recursive, &attributes);
  run_four(lock_twice);
  printf("counted %d\n", count);
  pthread_t threads[3];
  for (long i = 0; i < 3; i++) threads[i] = start(take_turns, (void *)i);
  for (long i = 0; i < 3; i++) end_of(threads[i]);
  printf("turns %d\n", turn);
  pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
  CHECK(pthread_barrier_init(&barrier, NULL, 4) == 0);
  run_four(meet);
  printf("met %d times\n", serials);
  run_four(read_together);
  printf("%d read at once\n", most_readers);
  CHECK(pthread_barrier_destroy(&barrier) == 0);
}

// MARK: C's own

static tss_t c_key;
static once_flag c_once = ONCE_FLAG_INIT;

static int run_in_c(void *argument) {
  CHECK(tss_get(c_key) == NULL);
  CHECK(tss_set(c_key, argument) == thrd_success);
  call_once(&c_once, initialise);
  thrd_yield();
  thrd_sleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  CHECK(tss_get(c_key) == argument);
  if (argument) thrd_exit(-3);
  return 3;
}

static void show_c(void) {
  thrd_t threads[2];
  int results[2];
  CHECK(tss_create(&c_key, NULL) == thrd_success);
  CHECK(thrd_create(&threads[0], run_in_c, NULL) == thrd_success);
  CHECK(thrd_create(&threads[1], run_in_c, "something") == thrd_success);
  for (int i = 0; i < 2; i++) CHECK(thrd_join(threads[i], &results[i]) == thrd_success);
  printf("in C: %d %d\n", results[0], results[1]);
}

// MARK: A child

static void *fork_here(void *argument) {
  const pid_t child = fork();
  if (child == 0) {
    usleep(1000);
    CHECK(end_of(start(return_late, (void *)9L)) == (void *)9L);
    return argument;  // the last thread of the child ends it
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  printf("a child that a thread made ends with %d\n", status);
  return argument;
}

// MARK: Signals

static sigset_t waited;
static sem_t has_signal;
static volatile sig_atomic_t handled;

static void handle(int signal) { handled += signal == SIGUSR2; }

static void *wait_for_signals(void *argument) {
  for (int i = 0; i < 2; i++) {
    int signal = 0;
    CHECK(sigwait(&waited, &signal) == 0 && signal == SIGUSR1);
    sem_post(&has_signal);
  }
  siginfo_t info;
  CHECK(sigtimedwait(&waited, &info, &(struct timespec){.tv_nsec = 2000000}) == -1);
  CHECK(errno == EAGAIN);
  return argument;
}

static void *send_signals(void *argument) {
  for (int i = 0; i < 2; i++) {
    usleep(2000);
    kill(getpid(), SIGUSR1);
    CHECK(sem_wait(&has_signal) == 0);
  }
  return argument;
}

static void *interrupt(void *argument) {
  usleep(5000);
  kill(getpid(), SIGUSR2);
  return argument;
}

static void show_signals(void) {
  sem_init(&has_signal, 0, 0);
  sigemptyset(&waited);
  sigaddset(&waited, SIGUSR1);
  sigset_t held, before;
  sigemptyset(&held);
  sigaddset(&held, SIGUSR1), sigaddset(&held, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &held, &before);
  const pthread_t waiting = start(wait_for_signals, NULL);
  end_of(start(send_signals, NULL));
  end_of(waiting);
  signal(SIGUSR2, handle);
  const pthread_t other = start(interrupt, NULL);
  CHECK(sigsuspend(&before) == -1 && errno == EINTR && handled == 1);
  end_of(other);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  printf("signals\n");
}

void part_pthreads(void) {
  show_identity();
  show_values();
  show_ends();
  show_sharing();
  show_c();
  show_signals();
  fflush(stdout);
  end_of(start(fork_here, NULL));
}

static void *meet_and_count(void *argument) {
  pthread_barrier_wait(argument);
  return NULL;
}

/// All wait at once.
void part_crowd(void) {
  enum { COUNT = 1000 };
  static pthread_t threads[COUNT];
  CHECK(pthread_barrier_init(&barrier, NULL, COUNT + 1) == 0);
  for (int i = 0; i < COUNT; i++) threads[i] = start(meet_and_count, &barrier);
  usleep(1000);
  printf("threads of the process: %ld\n", status_of("Threads:"));
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < COUNT; i++) end_of(threads[i]);
}

#endif
