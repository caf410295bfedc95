// Evergreen: a program's threads as greenlets of one hub.
// SPDX-License-Identifier: MIT
//
// With `evergreen run --threads`, what the program makes with pthread_create is a greenlet of the main
// thread's hub. Its pthread_t is the address of its record here, and whoever asks by it is answered
// here; libc knows nothing of it. Locks and conditions park greenlets anyway (.locks).
//
// What belongs to the thread of the system is shared: signal masks, scheduling, affinity, and variables
// that are declared for each thread (__thread).

#ifdef __linux__

#define _GNU_SOURCE
#include "CPreload.h"

#include "parking.h"
#include "symbols.h"

#include <CDescriptors.h>
#include <CGreenlet.h>
#include <CLibev.h>
#include <CLocks.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <unwind.h>

// MARK: Records

enum {
  MOST = 1 << 20,  // threads at a time
  KEYS = PTHREAD_KEYS_MAX,
  KEYS_A_BLOCK = 32,
};

typedef struct value {
  void *value;
  uint32_t generation;  // of its key, when it was set
} value;

typedef struct green_thread {
  evg_context *context;  // once it runs
  void *(*start)(void *);
  void *argument, *result;
  value *values[KEYS / KEYS_A_BLOCK];
  __pthread_unwind_buf_t *cleanups;  // the innermost first
  jmp_buf end;
  struct _Unwind_Exception unwinding;
  struct green_thread *next_free;
  size_t stack_size;
  char name[16];
  bool is_used, is_detached, has_ended;
  bool starts_in_c;  // `start` returns an int
  bool is_last;      // the process is a fork's child, and this was what forked
} green_thread;

static struct {
  evg_thread *thread;     // whose hub it is, once there is a greenlet
  pthread_t main;
  green_thread *records;  // room for all, touched as needed
  green_thread *free;
  green_thread **running; // by the numbers of their contexts
  uint32_t used, alive;
} home;

bool evg_threads_are_green;

static bool is_home(void) { return home.thread == &evg_self; }

/// Who calls; NULL if that is a thread of the system.
static green_thread *current(void) {
  if (__builtin_expect(!evg_threads_are_green, 1) || !is_home()) return NULL;
  const evg_context *context = evg_self.current;
  // The hub itself has no owner.
  if (!context || !context->owner || context->id == 0 || context->id >= MOST) return NULL;
  return home.running[context->id];
}

/// Whose number it is; NULL if libc's.
static green_thread *of(pthread_t id) {
  if (__builtin_expect(!evg_threads_are_green, 1) || !home.records) return NULL;
  const uintptr_t offset = (uintptr_t)id - (uintptr_t)home.records;
  if (offset >= MOST * sizeof(green_thread)) return NULL;
  return (green_thread *)id;
}

static bool is_valid(const green_thread *thread) {
  const uintptr_t offset = (uintptr_t)thread - (uintptr_t)home.records;
  return offset % sizeof(green_thread) == 0 && thread->is_used;
}

static green_thread *new_record(void) {
  green_thread *thread = home.free;
  if (thread) home.free = thread->next_free;
  else if (home.used < MOST - 1) thread = &home.records[home.used++];
  else return NULL;
  memset(thread, 0, sizeof *thread);
  thread->is_used = true;
  return thread;
}

static void free_record(green_thread *thread) {
  thread->is_used = false;
  thread->next_free = home.free;
  home.free = thread;
}

static bool open_home(void) {
  if (home.thread) return is_home();
  const int protection = PROT_READ | PROT_WRITE;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *records = mmap(NULL, MOST * sizeof(green_thread), protection, flags, -1, 0);
  void *running = mmap(NULL, MOST * sizeof(green_thread *), protection, flags, -1, 0);
  if (records == MAP_FAILED || running == MAP_FAILED) return false;
  home.records = records;
  home.running = running;
  home.main = pthread_self();
  home.thread = &evg_self;
  return true;
}

// MARK: Data of its own

static struct {
  void (*destructor)(void *);
  uint32_t generation;
  bool is_used;
} keys[KEYS];

SYMBOL(int, pthread_key_create, pthread_key_t *key, void (*destructor)(void *)) {
  const int error = REAL(pthread_key_create)(key, destructor);
  if (error || *key >= KEYS) return error;
  keys[*key].destructor = destructor;
  keys[*key].generation++;
  keys[*key].is_used = true;
  return 0;
}

SYMBOL(int, pthread_key_delete, pthread_key_t key) {
  const int error = REAL(pthread_key_delete)(key);
  if (!error && key < KEYS) keys[key].is_used = false;
  return error;
}

static value *value_of(green_thread *thread, pthread_key_t key, bool makes) {
  if (key >= KEYS) return NULL;
  value **block = &thread->values[key / KEYS_A_BLOCK];
  if (!*block && makes) *block = calloc(KEYS_A_BLOCK, sizeof(value));
  return *block ? *block + key % KEYS_A_BLOCK : NULL;
}

SYMBOL(void *, pthread_getspecific, pthread_key_t key) {
  green_thread *thread = current();
  if (!thread) return REAL(pthread_getspecific)(key);
  const value *value = value_of(thread, key, false);
  return value && value->generation == keys[key].generation ? value->value : NULL;
}

SYMBOL(int, pthread_setspecific, pthread_key_t key, const void *new) {
  green_thread *thread = current();
  if (!thread) return REAL(pthread_setspecific)(key, new);
  if (key >= KEYS || !keys[key].is_used) return EINVAL;
  value *value = value_of(thread, key, new != NULL);
  if (!value) return new ? ENOMEM : 0;
  value->value = (void *)new;
  value->generation = keys[key].generation;
  return 0;
}

/// As long as destructors set values anew, but not for ever.
static void end_values(green_thread *thread) {
  bool is_any = true;
  for (int round = 0; is_any && round < PTHREAD_DESTRUCTOR_ITERATIONS; round++) {
    is_any = false;
    for (pthread_key_t key = 0; key < KEYS; key++) {
      value *value = value_of(thread, key, false);
      if (!value) {
        key |= KEYS_A_BLOCK - 1;  // none of the block
        continue;
      }
      void *const old = value->value;
      if (!old || !keys[key].is_used || value->generation != keys[key].generation) continue;
      value->value = NULL;
      if (!keys[key].destructor) continue;
      is_any = true;
      keys[key].destructor(old);
    }
  }
  for (int i = 0; i < KEYS / KEYS_A_BLOCK; i++) free(thread->values[i]), thread->values[i] = NULL;
}

// MARK: A life

void evg_green_thread_ended(void *record) {
  green_thread *thread = record;
  if (thread->has_ended) return;
  thread->has_ended = true;
  home.alive--;
  evg_unpark(&home.alive, true);
  if (thread->is_detached) free_record(thread);
  else evg_unpark(thread, true);
}

void evg_green_thread_run(void *record) {
  green_thread *thread = record;
  const uint32_t number = evg_self.current->id;
  if (number >= MOST) return;
  thread->context = evg_self.current;
  home.running[number] = thread;
  if (setjmp(thread->end) == 0) {
    thread->result = thread->starts_in_c
      ? (void *)(intptr_t)((int (*)(void *))(void *)thread->start)(thread->argument)
      : thread->start(thread->argument);
  }
  end_values(thread);
  if (thread->is_last) exit(0);
  home.running[number] = NULL;
}

static void follow_fork(void) {
  green_thread *thread = current();
  if (thread) thread->is_last = true;
  home.alive = thread != NULL;
}

static void follow_forks(void) { evg_on_fork(follow_fork); }

static bool makes_greenlets(void) {
  return evg_threads_are_green && evg_own_calls == 0 && evg_in_greenlet() && evg_has_hub()
    && open_home();
}

static size_t stack_size_of(const pthread_attr_t *attributes) {
  size_t size = 0;
  if (attributes && pthread_attr_getstacksize(attributes, &size) == 0 && size > 0) return size;
  struct rlimit limit;
  const bool is_limited = getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return is_limited ? limit.rlim_cur : 2 << 20;  // as libc
}

static int make(
    pthread_t *id, const pthread_attr_t *attributes, void *(*start)(void *), void *argument,
    bool starts_in_c) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, follow_forks);
  green_thread *thread = new_record();
  if (!thread) return EAGAIN;
  int detached = PTHREAD_CREATE_JOINABLE;
  if (attributes) pthread_attr_getdetachstate(attributes, &detached);
  thread->start = start;
  thread->argument = argument;
  thread->starts_in_c = starts_in_c;
  thread->is_detached = detached == PTHREAD_CREATE_DETACHED;
  thread->stack_size = stack_size_of(attributes);
  *id = (pthread_t)thread;
  home.alive++;
  const int error = errno;
  evg_preload_spawn(thread, thread->stack_size);
  errno = error;
  return 0;
}

SYMBOL(int, pthread_create, pthread_t *id, const pthread_attr_t *attributes,
       void *(*start)(void *), void *argument) {
  if (!makes_greenlets()) return REAL(pthread_create)(id, attributes, start, argument);
  return make(id, attributes, start, argument, false);
}

SYMBOL(int, thrd_create, pthread_t *id, int (*start)(void *), void *argument) {
  enum { SUCCESS = 0, NO_MEMORY = 3 };
  if (!makes_greenlets()) return REAL(thrd_create)(id, start, argument);
  return make(id, NULL, (void *(*)(void *))(void *)start, argument, true) == 0 ? SUCCESS : NO_MEMORY;
}

SYMBOL(pthread_t, pthread_self, void) {
  const green_thread *thread = current();
  return thread ? (pthread_t)thread : REAL(pthread_self)();
}

SYMBOL(pthread_t, thrd_current, void) { return hook_pthread_self(); }

// MARK: Its end

static _Unwind_Reason_Code leave_frame(
    int version, _Unwind_Action actions, _Unwind_Exception_Class class,
    struct _Unwind_Exception *exception, struct _Unwind_Context *frame, void *argument) {
  (void)version, (void)class, (void)exception;
  green_thread *thread = argument;
  const uintptr_t place = _Unwind_GetIP(frame);
  const uintptr_t start = (uintptr_t)_Unwind_GetRegionStart(frame);
  const bool is_out = start == (uintptr_t)evg_green_thread_run || place == 0;
  if (is_out || actions & _UA_END_OF_STACK) longjmp(thread->end, 1);
  return _URC_NO_REASON;
}

static void forget_exception(_Unwind_Reason_Code reason, struct _Unwind_Exception *exception) {
  (void)reason, (void)exception;
}

/// Runs what was pushed by pthread_cleanup_push, then the destructors of C++, and ends.
static _Noreturn void leave(green_thread *thread) {
  __pthread_unwind_buf_t *cleanup = thread->cleanups;
  if (cleanup) {
    thread->cleanups = cleanup->__pad[0];
    // Comes back by __pthread_unwind_next.
    longjmp((struct __jmp_buf_tag *)(void *)cleanup->__cancel_jmp_buf, 1);
  }
  thread->unwinding = (struct _Unwind_Exception){.exception_cleanup = forget_exception};
  _Unwind_ForcedUnwind(&thread->unwinding, leave_frame, thread);
  longjmp(thread->end, 1);
}

SYMBOL(void, __pthread_register_cancel, __pthread_unwind_buf_t *cleanup) {
  green_thread *thread = current();
  if (!thread) return REAL(__pthread_register_cancel)(cleanup);
  cleanup->__pad[0] = thread->cleanups;
  thread->cleanups = cleanup;
}

SYMBOL(void, __pthread_unregister_cancel, __pthread_unwind_buf_t *cleanup) {
  green_thread *thread = current();
  if (!thread) return REAL(__pthread_unregister_cancel)(cleanup);
  thread->cleanups = cleanup->__pad[0];
}

SYMBOL(void, __pthread_unwind_next, __pthread_unwind_buf_t *cleanup) {
  green_thread *thread = current();
  if (thread) leave(thread);
  REAL(__pthread_unwind_next)(cleanup);
}

static int is_anybody_left(void *unused) {
  (void)unused;
  return home.alive > 0 ? EBUSY : 0;
}

SYMBOL(void, pthread_exit, void *result) {
  green_thread *thread = current();
  if (thread) {
    thread->result = result;
    leave(thread);
  }
  if (evg_threads_are_green && is_home() && evg_in_greenlet()) {
    // The main thread ends, the program with the last of the others.
    const evg_goal goal = {
      .key = &home.alive, .reason = "the end of all threads", .try = is_anybody_left, .firm = true};
    evg_obtain(&goal, evg_no_limit);
    exit(0);
  }
  REAL(pthread_exit)(result);
}

SYMBOL(void, thrd_exit, int result) { hook_pthread_exit((void *)(intptr_t)result); }

/// For the calls that wait: -1 if it is libc's, EBUSY as long as it runs.
static int try_join(pthread_t id, void **result) {
  green_thread *thread = of(id);
  if (!thread) return -1;
  if (!is_valid(thread)) return ESRCH;
  if (thread == current()) return EDEADLK;
  if (thread->is_detached) return EINVAL;
  if (!thread->has_ended) return EBUSY;
  if (result) *result = thread->result;
  free_record(thread);
  return 0;
}

SYMBOL(int, pthread_tryjoin_np, pthread_t id, void **result) {
  const int joined = try_join(id, result);
  return joined >= 0 ? joined : REAL(pthread_tryjoin_np)(id, result);
}

SYMBOL(int, pthread_detach, pthread_t id) {
  green_thread *thread = of(id);
  if (!thread) return REAL(pthread_detach)(id);
  if (!is_valid(thread)) return ESRCH;
  if (thread->is_detached) return EINVAL;
  if (thread->has_ended) free_record(thread);
  else thread->is_detached = true;
  return 0;
}

SYMBOL(int, thrd_detach, pthread_t id) { return hook_pthread_detach(id) == 0 ? 0 : 2; }

// MARK: What else is asked of threads

/// libc's function, of the thread of the system where it runs.
#define OF_SYSTEM(name, id, ...)                                                                   \
  ({                                                                                               \
    const green_thread *thread_ = of(id);                                                          \
    !thread_             ? REAL(name)(id, __VA_ARGS__)                                             \
    : is_valid(thread_)  ? REAL(name)(home.main, __VA_ARGS__)                                      \
                         : ESRCH;                                                                  \
  })

/// Would be changed for all.
#define NOT_ALONE(name, id, ...)                                                                   \
  ({                                                                                               \
    const green_thread *thread_ = of(id);                                                          \
    !thread_ ? REAL(name)(id, __VA_ARGS__) : is_valid(thread_) ? 0 : ESRCH;                        \
  })

SYMBOL(int, pthread_kill, pthread_t id, int signal) { return OF_SYSTEM(pthread_kill, id, signal); }

SYMBOL(int, pthread_sigqueue, pthread_t id, int signal, const union sigval value) {
  return OF_SYSTEM(pthread_sigqueue, id, signal, value);
}

SYMBOL(int, pthread_getschedparam, pthread_t id, int *policy, struct sched_param *parameters) {
  return OF_SYSTEM(pthread_getschedparam, id, policy, parameters);
}

SYMBOL(int, pthread_setschedparam, pthread_t id, int policy,
       const struct sched_param *parameters) {
  return NOT_ALONE(pthread_setschedparam, id, policy, parameters);
}

SYMBOL(int, pthread_setschedprio, pthread_t id, int priority) {
  return NOT_ALONE(pthread_setschedprio, id, priority);
}

SYMBOL(int, pthread_getaffinity_np, pthread_t id, size_t size, cpu_set_t *set) {
  return OF_SYSTEM(pthread_getaffinity_np, id, size, set);
}

SYMBOL(int, pthread_setaffinity_np, pthread_t id, size_t size, const cpu_set_t *set) {
  return NOT_ALONE(pthread_setaffinity_np, id, size, set);
}

SYMBOL(int, pthread_getcpuclockid, pthread_t id, clockid_t *clock) {
  return OF_SYSTEM(pthread_getcpuclockid, id, clock);
}

SYMBOL(int, pthread_setname_np, pthread_t id, const char *name) {
  green_thread *thread = of(id);
  if (!thread) return REAL(pthread_setname_np)(id, name);
  if (!is_valid(thread)) return ESRCH;
  if (strlen(name) >= sizeof thread->name) return ERANGE;
  strcpy(thread->name, name);
  return 0;
}

SYMBOL(int, pthread_getname_np, pthread_t id, char *name, size_t size) {
  const green_thread *thread = of(id);
  if (!thread) return REAL(pthread_getname_np)(id, name, size);
  if (!is_valid(thread)) return ESRCH;
  if (!thread->name[0]) return REAL(pthread_getname_np)(home.main, name, size);
  if (strlen(thread->name) >= size) return ERANGE;
  strcpy(name, thread->name);
  return 0;
}

SYMBOL(int, pthread_getattr_np, pthread_t id, pthread_attr_t *attributes) {
  const green_thread *thread = of(id);
  if (!thread) return REAL(pthread_getattr_np)(id, attributes);
  if (!is_valid(thread)) return ESRCH;
  const int error = pthread_attr_init(attributes);
  if (error) return error;
  pthread_attr_setdetachstate(
    attributes, thread->is_detached ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE);
  pthread_attr_setguardsize(attributes, EVG_GUARD_SIZE);
  if (!thread->context) return pthread_attr_setstacksize(attributes, thread->stack_size);
  return pthread_attr_setstack(attributes, thread->context->stack_low, thread->context->stack_size);
}

SYMBOL(int, pthread_cancel, pthread_t id) {
  const green_thread *thread = of(id);
  if (!thread) {
    const int error = REAL(pthread_cancel)(id);
    if (error == 0) evg_loop_cancel(id);  // it may wait in its hub
    return error;
  }
  if (!is_valid(thread)) return ESRCH;
  static bool is_told;
  if (!is_told) {
    fputs("evergreen: pthread_cancel does nothing to a thread that runs as a greenlet\n", stderr);
  }
  is_told = true;
  return ENOTSUP;
}

// MARK: Barriers

/// In the place of libc's, which would block them all.
typedef struct barrier {
  uint32_t is_green;  // where libc counts those who have come
  uint32_t count, waiting;
  uint32_t round;
} barrier;

enum { GREEN = 0x67726565 };

SYMBOL(int, pthread_barrier_init, pthread_barrier_t *memory,
       const pthread_barrierattr_t *attributes, unsigned count) {
  int shared = PTHREAD_PROCESS_PRIVATE;
  if (attributes) pthread_barrierattr_getpshared(attributes, &shared);
  if (!evg_threads_are_green || shared != PTHREAD_PROCESS_PRIVATE || count == 0) {
    return REAL(pthread_barrier_init)(memory, attributes, count);
  }
  memset(memory, 0, sizeof *memory);
  *(barrier *)memory = (barrier){GREEN, count, 0, 0};
  return 0;
}

static bool is_green(const pthread_barrier_t *memory) {
  return evg_threads_are_green && ((const barrier *)memory)->is_green == GREEN;
}

SYMBOL(int, pthread_barrier_destroy, pthread_barrier_t *memory) {
  if (!is_green(memory)) return REAL(pthread_barrier_destroy)(memory);
  memset(memory, 0, sizeof *memory);
  return 0;
}

typedef struct passage {
  const barrier *barrier;
  uint32_t round;
} passage;

static int is_round_over(void *argument) {
  const passage *passage = argument;
  return passage->barrier->round == passage->round ? EBUSY : 0;
}

SYMBOL(int, pthread_barrier_wait, pthread_barrier_t *memory) {
  if (!is_green(memory) || !evg_in_greenlet()) return REAL(pthread_barrier_wait)(memory);
  barrier *barrier = (struct barrier *)memory;
  if (++barrier->waiting == barrier->count) {
    barrier->waiting = 0;
    barrier->round++;
    evg_unpark(barrier, true);
    return PTHREAD_BARRIER_SERIAL_THREAD;
  }
  passage passage = {barrier, barrier->round};
  const evg_goal goal = {
    .key = barrier, .reason = "a barrier", .try = is_round_over, .argument = &passage, .firm = true};
  evg_obtain(&goal, evg_no_limit);
  return 0;
}

// MARK: Waiting for signals

// These are about the thread of the system, which may not stop while others could run.

static bool may_others_run(void) {
  return evg_threads_are_green && is_home() && evg_in_greenlet() && !evg_is_alone()
    && evg_is_here();
}

/// With the signals of `mask` blocked, or those that are.
static int wait_for_handler(const sigset_t *mask) {
  evg_wait wait;
  sigset_t before;
  evg_wait_begin(&wait, false);  // before a handler can run
  if (mask) pthread_sigmask(SIG_SETMASK, mask, &before);
  const int end = evg_hub->pause("a signal", EVG_NEVER);
  evg_wait_end(&wait);
  if (mask) pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = end > 0 ? end : EINTR;
  return -1;
}

SYMBOL(int, pause, void) { return may_others_run() ? wait_for_handler(NULL) : REAL(pause)(); }

SYMBOL(int, sigsuspend, const sigset_t *mask) {
  return may_others_run() ? wait_for_handler(mask) : REAL(sigsuspend)(mask);
}

SYMBOL(int, sigtimedwait, const sigset_t *signals, siginfo_t *info, const struct timespec *time) {
  if (!may_others_run() || (time && !evg_is_time(time))) {
    return REAL(sigtimedwait)(signals, info, time);
  }
  static const struct timespec none;
  const uint64_t deadline = time ? evg_deadline_after(evg_nanoseconds(time)) : EVG_NEVER;
  const int watch = evg_keep_apart(signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (watch < 0) return REAL(sigtimedwait)(signals, info, time);
  int signal, end;
  do {
    signal = REAL(sigtimedwait)(signals, info, &none);
    if (signal != -1 || errno != EAGAIN) break;
    end = evg_wait_for(watch, POLLIN, deadline, false);
    if (end != EVG_WAIT_OVER) errno = end == EVG_WAIT_TIME_UP ? EAGAIN : end;
  } while (end == EVG_WAIT_OVER);
  const int error = errno;
  evg_close_own(watch);
  errno = error;
  return signal;
}

SYMBOL(int, sigwaitinfo, const sigset_t *signals, siginfo_t *info) {
  return may_others_run() ? hook_sigtimedwait(signals, info, NULL)
                          : REAL(sigwaitinfo)(signals, info);
}

SYMBOL(int, sigwait, const sigset_t *signals, int *signal) {
  if (!may_others_run()) return REAL(sigwait)(signals, signal);
  const int error = errno;
  int found;
  do found = hook_sigtimedwait(signals, NULL, NULL);
  while (found == -1 && errno == EINTR);  // which sigwait does not know
  const int result = found == -1 ? errno : 0;
  if (found != -1) *signal = found;
  errno = error;
  return result;
}

// MARK: C's own names

SYMBOL(int, tss_create, pthread_key_t *key, void (*destructor)(void *)) {
  return hook_pthread_key_create(key, destructor) == 0 ? 0 : 2;
}

SYMBOL(void, tss_delete, pthread_key_t key) { hook_pthread_key_delete(key); }

SYMBOL(void *, tss_get, pthread_key_t key) { return hook_pthread_getspecific(key); }

SYMBOL(int, tss_set, pthread_key_t key, void *value) {
  return hook_pthread_setspecific(key, value) == 0 ? 0 : 2;
}

// MARK: The beginning

void evg_green_threads_begin(void) {
  evg_try_join_other = try_join;
  evg_threads_are_green = true;
}

#endif
