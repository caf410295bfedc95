// Evergreen: libc's own functions, and how a green call waits.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#include "green.h"

#include <CLocks.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

const evg_patch_hub *evg_hub;
static _Atomic pid_t here;

static void note_process(void) { atomic_store_explicit(&here, getpid(), memory_order_relaxed); }

void evg_patch_hub_set(const evg_patch_hub *hub) {
  static atomic_flag is_following = ATOMIC_FLAG_INIT;
  note_process();
  if (!atomic_flag_test_and_set(&is_following)) pthread_atfork(NULL, NULL, note_process);
  __atomic_store_n(&evg_hub, hub, __ATOMIC_RELEASE);
}

bool evg_is_here(void) {
  return atomic_load_explicit(&here, memory_order_relaxed) == getpid();
}

// MARK: The real functions

evg_real_functions evg_real;

// The address sanitizer has definitions of its own, which would be libc's but for these here. The
// weak ones are called instead: it wants to see what memory a call fills.
#define EVG_INTERCEPTOR(result, name, ...)                                                         \
  extern __attribute__((weak)) result __interceptor_##name(__VA_ARGS__);
EVG_REAL_FUNCTIONS(EVG_INTERCEPTOR)

// In a program that is linked statically there is nobody to ask for them, and nobody has taken over
// their names.
#define EVG_STATIC(result, name, ...) extern result static_##name(__VA_ARGS__) __asm__(#name);
EVG_REAL_FUNCTIONS(EVG_STATIC)
// Which some libc lack.
extern __attribute__((weak)) __typeof__(static_close_range) static_close_range;
extern __attribute__((weak)) __typeof__(static_epoll_pwait2) static_epoll_pwait2;

static const struct {
  const char *name;
  void *interceptor, *static_function;
} functions[] = {
#define EVG_ENTRY(result, name, ...)                                                               \
  {#name, (void *)__interceptor_##name, (void *)static_##name},
  EVG_REAL_FUNCTIONS(EVG_ENTRY)
};
enum { FUNCTION_COUNT = sizeof functions / sizeof functions[0] };

static int is_missing(void) {
  errno = ENOSYS;
  return -1;
}

static bool is_static(void) { return !dlsym(RTLD_NEXT, "getpid"); }

void *evg_real_find(void *slot, const char *name) {
  const long index = (void **)slot - (void **)&evg_real;
  void *found = functions[index].interceptor;
  if (!found) found = dlsym(RTLD_NEXT, name);
  if (!found && is_static()) found = functions[index].static_function;
  if (!found) found = (void *)is_missing;
  *(void *volatile *)slot = found;
  return found;
}

// Early, so that no hook need look up what it cannot find: that would allocate.
__attribute__((constructor(101))) static void load(void) {
  for (int i = 0; i < FUNCTION_COUNT; i++) {
    void **slot = (void **)&evg_real + i;
    if (!*slot) evg_real_find(slot, functions[i].name);
  }
}

// MARK: Turns

__thread bool evg_owes_turn;

void evg_end_turn(int fd) {
  enum { SOME = 64 };
  if (!evg_is_here()) return;
  if (!evg_self.current) {  // nobody who could have a turn
    evg_self.io_budget = SOME;
    return;
  }
  evg_owes_turn = fd >= 0 && evg_flags(fd) & O_NONBLOCK;
  if (evg_owes_turn) evg_self.io_budget = SOME;
  else evg_hub->give_turn();
}

// MARK: Time

/// Without a hub, not Swift's: nothing of that runs in a thread that has not been adopted.
static uint64_t now(void) {
  return __builtin_expect(evg_self.current != NULL, 1) ? evg_hub->now() : evg_monotonic_now();
}

uint64_t evg_deadline_after(uint64_t nanoseconds) {
  uint64_t deadline;
  return __builtin_add_overflow(now(), nanoseconds, &deadline) || deadline == EVG_NEVER
    ? EVG_NEVER - 1 : deadline;
}

uint64_t evg_deadline_after_milliseconds(int timeout) {
  return timeout < 0 ? EVG_NEVER : evg_deadline_after((uint64_t)timeout * 1000000);
}

uint64_t evg_time_left(uint64_t deadline) {
  const uint64_t time = now();
  return deadline > time ? deadline - time : 0;
}

// MARK: Threads that have been given a hub unasked

bool evg_may_adopt(void) {
  return !evg_stays_foreign && evg_handlers == 0 && !evg_in_task();
}

bool evg_has_hub(void) {
  if (__builtin_expect(evg_self.current != NULL, 1)) return true;
  const int error = errno;
  int cancelability;
  sigset_t signals;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelability);
  evg_own_calls++;  // what is made for the hub is no business of the program's
  evg_forbid_forks(&signals);
  const bool has = evg_hub->adopt();
  if (!has) evg_stays_foreign = true;  // from now on its calls are libc's
  evg_allow_forks(&signals);
  evg_own_calls--;
  pthread_setcancelstate(cancelability, NULL);
  errno = error;
  return has;
}

/// Waits as libc does, where there is no hub.
static int wait_plainly(struct pollfd *fds, nfds_t count, uint64_t deadline, bool restarts) {
  while (true) {
    const uint64_t left = deadline == EVG_NEVER ? 0 : evg_time_left(deadline);
    const struct timespec time = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
    const int found = real(ppoll)(fds, count, deadline == EVG_NEVER ? NULL : &time, NULL);
    if (found == -1 && errno == EINTR && restarts) continue;
    return found > 0 ? EVG_WAIT_OVER : found == 0 ? EVG_WAIT_TIME_UP : errno;
  }
}

bool (*evg_was_canceled)(void);
void (*evg_on_wait)(uint64_t nanoseconds);

/// A thread that is canceled ends with its own frames, not with those of the hub, where it waits: the
/// wait is over then, as by a signal, and here is where it ends. Returns what to give to `expose`.
static inline int shield(void) {
  int before = PTHREAD_CANCEL_DISABLE;
  if (__builtin_expect(evg_was_canceled != NULL, 0)) {
    pthread_testcancel();
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
  }
  return before;
}

static inline void expose(int before) {
  if (__builtin_expect(before == PTHREAD_CANCEL_DISABLE, 1)) return;
  pthread_setcancelstate(before, NULL);
  pthread_testcancel();
}

uint64_t evg_monotonic_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return evg_nanoseconds(&now);
}

void evg_wait_has_ended(uint64_t since) {
  enum { SHORTEST = 20000 };  // libc's own call may not have waited at all
  const int error = errno;
  const uint64_t length = evg_monotonic_now() - since;
  // Another thread may end the program meanwhile, and with it the report.
  void (*note)(uint64_t) = __atomic_load_n(&evg_on_wait, __ATOMIC_RELAXED);
  if (note && length >= SHORTEST) note(length);
  errno = error;
}

// MARK: Waiting for a descriptor

__thread int32_t evg_waits;

/// `call` as long as a handler of a signal may interrupt it.
#define INTERRUPTIBLY(restarts, call)                                                              \
  ({                                                                                               \
    evg_wait wait_;                                                                                \
    evg_wait_begin(&wait_, restarts);                                                              \
    const int end_ = (call);                                                                       \
    evg_wait_end(&wait_);                                                                          \
    end_;                                                                                          \
  })

int evg_wait_for(int fd, short events, uint64_t deadline, bool restarts) {
  if (!evg_has_hub()) {
    return wait_plainly(&(struct pollfd){.fd = fd, .events = events}, 1, deadline, restarts);
  }
  const int shielded = shield();
  evg_waits++;
  const int end = INTERRUPTIBLY(restarts, evg_hub->wait(fd, events, deadline));
  evg_waits--;
  expose(shielded);
  return end;
}

int evg_wait_for_any(struct pollfd *fds, nfds_t count, uint64_t deadline) {
  if (!evg_has_hub()) return wait_plainly(fds, count, deadline, false);
  const int shielded = shield();
  evg_waits++;
  const int ready = INTERRUPTIBLY(false, evg_hub->wait_any(fds, count, deadline));
  evg_waits--;
  expose(shielded);
  return ready > 0 ? EVG_WAIT_OVER : ready == 0 ? EVG_WAIT_TIME_UP : -ready;
}

int evg_pause(const char *reason, uint64_t deadline, bool restarts) {
  if (!evg_has_hub()) return wait_plainly(NULL, 0, deadline, restarts);
  const int shielded = shield();
  const int end = INTERRUPTIBLY(restarts, evg_hub->pause(reason, deadline));
  expose(shielded);
  return end;
}

int evg_run(evg_patch_job *job, bool restarts) {
  return INTERRUPTIBLY(restarts, evg_hub->run(job));
}

uint64_t evg_limit_of(int fd, short events) {
  struct timeval limit = {0};
  socklen_t size = sizeof limit;
  const int option = events & POLLIN ? SO_RCVTIMEO : SO_SNDTIMEO;
  if (getsockopt(fd, SOL_SOCKET, option, &limit, &size) != 0) return EVG_NEVER;
  if (limit.tv_sec == 0 && limit.tv_usec == 0) return EVG_NEVER;
  const struct timespec time = {limit.tv_sec, limit.tv_usec * 1000};
  return evg_deadline_after(evg_nanoseconds(&time));
}

bool evg_wait_to_repeat(evg_patience *patience) {
  if (!patience->has_asked) {
    const int flags = evg_flags(patience->fd);
    if (flags == -1) return false;
    if (flags & O_NONBLOCK) {
      errno = EAGAIN;
      return false;
    }
    patience->deadline = evg_limit_of(patience->fd, patience->events);
    patience->has_asked = true;
  }
  if (!evg_is_here()) {
    // A vfork's child: nobody else may run, so it waits as it would by itself.
    struct pollfd one = {.fd = patience->fd, .events = patience->events};
    const uint64_t left = patience->deadline == EVG_NEVER ? 0 : evg_time_left(patience->deadline);
    const int timeout = patience->deadline == EVG_NEVER ? -1 : (int)(left / 1000000 + 1);
    const int ready = real(poll)(&one, 1, timeout);
    if (ready == 0) errno = EAGAIN;
    return ready > 0;
  }
  const int end = evg_wait_for(
    patience->fd, patience->events, patience->deadline, patience->deadline == EVG_NEVER);
  if (end == EVG_WAIT_OVER) return true;
  errno = end == EVG_WAIT_TIME_UP ? EAGAIN : evg_failure_of(patience->fd, end);
  return false;
}

int evg_failure_of(int fd, int error) {
  if (error != ECANCELED) return error;
  int listens = 1;
  socklen_t size = sizeof listens;
  const bool is_socket = getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0;
  return is_socket && !listens ? ECONNABORTED : error;
}

// Held for the time of one system call that cannot block.
static atomic_flag is_changing_flags = ATOMIC_FLAG_INIT;

static void take_flags(void) {
  while (atomic_flag_test_and_set_explicit(&is_changing_flags, memory_order_acquire)) sched_yield();
}

static void give_flags(void) {
  atomic_flag_clear_explicit(&is_changing_flags, memory_order_release);
}

int evg_stop_blocking(int fd) {
  take_flags();
  const int flags = real(fcntl)(fd, F_GETFL);
  if (flags == -1 || flags & O_NONBLOCK || real(fcntl)(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    give_flags();
    return -1;
  }
  return flags;
}

void evg_resume_blocking(int fd, int flags) {
  if (flags < 0) return;
  const int error = errno;
  real(fcntl)(fd, F_SETFL, flags);
  give_flags();
  errno = error;
}

int evg_flags(int fd) {
  take_flags();
  const int flags = real(fcntl)(fd, F_GETFL);
  give_flags();
  return flags;
}

#else  // nothing is green
#include "CGreenCalls.h"
void evg_patch_hub_set(const evg_patch_hub *hub) { (void)hub; }
bool evg_interrupt_waits(void) { return false; }

#endif
