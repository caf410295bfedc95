// Evergreen: what the green forms of libc's calls are made of.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CGREENCALLS_GREEN_H
#define EVERGREEN_CGREENCALLS_GREEN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
// The checked forms would call what is defined here.
#undef _FORTIFY_SOURCE

#include "CGreenlet.h"
#include "CGreenCalls.h"
#include "real.h"

#include <errno.h>
#include <stdatomic.h>

extern const evg_patch_hub *evg_hub;

extern evg_real_functions evg_real;
/// Handlers of signals that are running in this thread.
extern __thread uint32_t evg_handlers __attribute__((tls_model("initial-exec")));

void *evg_real_find(void *slot, const char *name);

/// libc's own function. Looked up on its first use, for libraries call before any constructor here
/// has run; a look-up that succeeds allocates nothing.
#define real(name)                                                                                \
  (__builtin_expect(evg_real.name != NULL, 1)                                                     \
     ? evg_real.name                                                                              \
     : (__typeof__(evg_real.name))evg_real_find(&evg_real.name, #name))

/// Whether a thread without a hub may wait, which then gets one: `evg_adopts_threads`.
bool evg_may_adopt(void);

/// Whether the calling thread has a hub, or has got one now.
bool evg_has_hub(void);

/// Who calls. A thread that has no hub yet is what will be its main greenlet.
static inline const evg_context *evg_caller(void) {
  return evg_self.current ? evg_self.current : &evg_self.main;
}

/// Whether a greenlet calls, which may wait. Not so on foreign threads, in the hub, on the reserve that
/// one gets who has no stack, in a handler of a signal, and where the greenlet asked for libc's own
/// calls.
static inline bool evg_in_greenlet(void) {
  const evg_context *current = evg_self.current;
  if (__builtin_expect(!current, 0)) return evg_adopts_threads && evg_may_adopt();
  return current->owner && !current->is_unpatched && !current->lacks_stack
    && __builtin_expect(evg_handlers == 0, 1);
}

/// Whether this is the process that began with this, or a fork's child: not that of a vfork, which has its
/// parent's memory, greenlets and all, but may not run them.
bool evg_is_here(void);

/// What a call on this descriptor says for an error that is due. Some foreign code goes on with a
/// connection on which a call was cancelled, and takes the answer to the old question for that to the
/// next (libpq does); so for a connection it is one that has been aborted.
int evg_failure_of(int fd, int error);

/// Why this call is to fail at once, if foreign code has been told already that an error is due in
/// its greenlet. Sets errno.
static inline bool evg_is_refused(void) {
  const evg_context *current = evg_self.current;
  if (__builtin_expect(!current || (!current->is_due && !current->is_raw), 1)) return false;
  int error = evg_hub->refusal();
  if (error) errno = error;
  return error != 0;
}

/// The same for a call on a descriptor: a connection is to be given up, see `evg_failure_of`.
static inline bool evg_is_refused_on(int fd) {
  const evg_context *current = evg_self.current;
  if (__builtin_expect(!current || (!current->is_due && !current->is_raw), 1)) return false;
  int error = evg_hub->refusal();
  if (error) errno = evg_failure_of(fd, error);
  return error != 0;
}

/// A turn was due in a call that must not switch.
extern __thread bool evg_owes_turn __attribute__((tls_model("initial-exec")));

/// The budget is used up: lets others run, unless the descriptor is one that never blocks. -1 is none.
void evg_end_turn(int fd);

/// Counts a call that may succeed at once, so that one which always does starves nobody.
///
/// On a descriptor that does not block, and with MSG_DONTWAIT, nothing may switch: the code that calls
/// does not expect it there, and may have a thread's state in hand, as OpenSSL has its list of errors.
static inline void evg_charge(int fd) {
  if (__builtin_expect(--evg_self.io_budget < 0, 0)) evg_end_turn(fd);
}

/// Counts a call that waits: all that is owed is paid here.
static inline void evg_charge_wait(void) {
  if (__builtin_expect(--evg_self.io_budget < 0 || evg_owes_turn, 0)) evg_end_turn(-1);
}

/// Whether the kernel could read there, as far as a look at the address tells: else it is the one to
/// say EFAULT.
static inline bool evg_is_address(const void *pointer) { return (uintptr_t)pointer >= 4096; }

// MARK: Threads that have been given a hub unasked

/// Whether nobody else could run meanwhile, on a thread that has its hub only since it waits: what
/// cannot be waited for without a trick (another thread, a changed flag, tries at intervals) is then
/// better left to libc, whose answer is exact.
static inline bool evg_is_alone(void) {
  return __builtin_expect(evg_adopts_threads, 0) && evg_self.live <= 1;  // the hub's own
}

/// Whether the calling thread was canceled (pthread_cancel(3)) since it was asked last; NULL where
/// threads are not adopted.
extern bool (*evg_was_canceled)(void);

/// Told after each wait how long it was, by the thread that has waited, in a frame of the call; NULL if
/// nobody wants to know.
extern void (*evg_on_wait)(uint64_t nanoseconds);

/// The present, in nanoseconds of CLOCK_MONOTONIC.
uint64_t evg_monotonic_now(void);
/// errno stays as it is.
void evg_wait_has_ended(uint64_t since);

/// libc's own call, which may wait.
#define EVG_PLAINLY(call)                                                                         \
  ({                                                                                              \
    const uint64_t since_ = __builtin_expect(evg_on_wait != NULL, 0) ? evg_monotonic_now() : 0;   \
    __typeof__(call) plain_ = (call);                                                             \
    if (__builtin_expect(since_ != 0, 0)) evg_wait_has_ended(since_);                             \
    plain_;                                                                                       \
  })

// MARK: Time

static inline bool evg_is_time(const struct timespec *time) {
  return evg_is_address(time) && time->tv_sec >= 0 && time->tv_nsec >= 0
    && time->tv_nsec < 1000000000;
}

/// After so many nanoseconds; the sum stays below "never".
uint64_t evg_deadline_after(uint64_t nanoseconds);
/// EVG_NEVER if there is none.
uint64_t evg_deadline_after_milliseconds(int timeout);
static inline uint64_t evg_nanoseconds(const struct timespec *time) {
  uint64_t seconds = (uint64_t)time->tv_sec;
  return seconds > 9000000000u ? 9000000000u * 1000000000u
                               : seconds * 1000000000u + (uint64_t)time->tv_nsec;
}
/// What is left until then.
uint64_t evg_time_left(uint64_t deadline);

// MARK: Waiting for a descriptor

/// Greenlets of this thread that wait for descriptors in patched calls.
extern __thread int32_t evg_waits __attribute__((tls_model("initial-exec")));

// `evg_patch_hub`'s, which a handler of a signal may interrupt: EINTR. If the call `restarts`, only
// one that was installed without SA_RESTART does.

int evg_wait_for(int fd, short events, uint64_t deadline, bool restarts);
int evg_wait_for_any(struct pollfd *fds, nfds_t count, uint64_t deadline);
int evg_pause(const char *reason, uint64_t deadline, bool restarts);
int evg_run(evg_patch_job *job, bool restarts);

// MARK: Signals

/// A greenlet in a call that handlers may interrupt.
typedef struct evg_wait {
  struct evg_wait *next, *previous;
  evg_context *context;
  uint64_t since;  // 0 if nobody wants to know
  uint32_t runs;   // of handlers, when it began
  bool restarts;
} evg_wait;

void evg_wait_begin(evg_wait *wait, bool restarts);
void evg_wait_end(evg_wait *wait);

/// Whether the hub itself calls, on its own stack.
static inline bool evg_is_hub(void) {
  const evg_context *current = evg_self.current;
  return current && current == evg_self.hub;
}

/// `sigaction`. If it `wraps`, the handler is called in such a way that it is known to run.
int evg_set_action(
  int signal, const struct sigaction *action, struct sigaction *before, bool wraps);
/// `signal`, with those flags.
sighandler_t evg_set_handler(int signal, sighandler_t call, int flags, bool wraps);
/// Wraps the handlers that are installed already.
void evg_wrap_handlers(void);

/// libc's own, called by the hub or by nobody of ours. The hub does not wait, as `look` says, if it has
/// made somebody ready.
#define EVG_PASS_ON(call, look)                                                                   \
  ({                                                                                              \
    const bool is_hub_ = evg_is_hub();                                                            \
    const int passed_ = is_hub_ && evg_interrupt_waits() ? (look) : (call);                       \
    if (is_hub_) {                                                                                \
      const int error_ = errno;                                                                   \
      evg_interrupt_waits();                                                                      \
      errno = error_;                                                                             \
    }                                                                                             \
    passed_;                                                                                      \
  })

/// What a call knows that may have to wait more than once.
typedef struct evg_patience {
  int fd;
  short events;    // POLLIN or POLLOUT
  bool has_asked;  // the descriptor does block, and until `deadline`
  uint64_t deadline;
} evg_patience;

/// The end of SO_RCVTIMEO, if `events` is POLLIN, or SO_SNDTIMEO; never for what is no socket.
uint64_t evg_limit_of(int fd, short events);

/// The call would block: waits, if a blocking call would.
///
/// Whether the caller has made the descriptor non-blocking, or has limited the time, is asked only
/// now. True: try again. False: errno says what the call is to answer.
bool evg_wait_to_repeat(evg_patience *patience);

/// Repeats `call` while it would block.
#define EVG_PATIENTLY(descriptor, event, call)                                                    \
  ({                                                                                              \
    const int errno_before = errno;                                                               \
    evg_patience patience = {.fd = (descriptor), .events = (event)};                              \
    __typeof__(call) result_;                                                                     \
    while ((result_ = (call)) == -1 && errno == EAGAIN && evg_wait_to_repeat(&patience)) {        \
    }                                                                                             \
    if (result_ != -1) errno = errno_before;                                                      \
    result_;                                                                                      \
  })

/// Makes one system call on a descriptor that does not block meanwhile. Nothing can switch between,
/// other patched threads wait, so only an unpatched one that shares the open file could see it. For
/// those calls alone that have no flag of their own.
#define EVG_WITHOUT_BLOCKING(descriptor, call)                                                    \
  ({                                                                                              \
    const int flags_ = evg_stop_blocking(descriptor);                                             \
    __typeof__(call) answer_ = (call);                                                            \
    evg_resume_blocking(descriptor, flags_);                                                      \
    answer_;                                                                                      \
  })
/// Returns the flags to restore, or a negative number if there is nothing to restore.
int evg_stop_blocking(int fd);
void evg_resume_blocking(int fd, int flags);
/// The flags of the open file, whatever `evg_stop_blocking` does to them at this moment.
int evg_flags(int fd);

// MARK: The green forms

// Each is for a greenlet that may wait. It tries so that it cannot block, and waits in its hub while
// it would; what cannot wait at all it passes on to libc's own.

#define EVG_GREEN(result, name, ...) result evg_green_##name(__VA_ARGS__);
#define EVG_GREEN_TRANSFER(result, name, ...)                                                      \
  result evg_green_##name(__VA_ARGS__, uint32_t families);
EVG_PLAIN_FUNCTIONS(EVG_GREEN)
EVG_ENDING_FUNCTIONS(EVG_GREEN)
EVG_LOCK_FUNCTIONS(EVG_GREEN)
EVG_FREEING_FUNCTIONS(EVG_GREEN)
EVG_TRANSFER_FUNCTIONS(EVG_GREEN_TRANSFER)
#undef EVG_GREEN
#undef EVG_GREEN_TRANSFER
int evg_green_sched_yield(void);
int evg_green_control(int fd, int command, void *argument, __typeof__(evg_real.fcntl) real_fcntl);

// What a list of types is as parameters, and as the arguments of a call.

#define EVG_PARAMETERS(...)                                                                        \
  EVG_PICK(__VA_ARGS__, EVG_P8, EVG_P7, EVG_P6, EVG_P5, EVG_P4, EVG_P3, EVG_P2, EVG_P1)(__VA_ARGS__)
#define EVG_ARGUMENTS(...)                                                                         \
  EVG_PICK(__VA_ARGS__, EVG_A8, EVG_A7, EVG_A6, EVG_A5, EVG_A4, EVG_A3, EVG_A2, EVG_A1)
#define EVG_PICK(_1, _2, _3, _4, _5, _6, _7, _8, picked, ...) picked
#define EVG_P1(A) A a
#define EVG_P2(A, B) A a, B b
#define EVG_P3(A, B, C) A a, B b, C c
#define EVG_P4(A, B, C, D) A a, B b, C c, D d
#define EVG_P5(A, B, C, D, E) A a, B b, C c, D d, E e
#define EVG_P6(A, B, C, D, E, F) A a, B b, C c, D d, E e, F f
#define EVG_P7(A, B, C, D, E, F, G) A a, B b, C c, D d, E e, F f, G g
#define EVG_P8(A, B, C, D, E, F, G, H) A a, B b, C c, D d, E e, F f, G g, H h
#define EVG_A1 a
#define EVG_A2 a, b
#define EVG_A3 a, b, c
#define EVG_A4 a, b, c, d
#define EVG_A5 a, b, c, d, e
#define EVG_A6 a, b, c, d, e, f
#define EVG_A7 a, b, c, d, e, f, g
#define EVG_A8 a, b, c, d, e, f, g, h

#endif
