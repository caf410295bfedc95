// Evergreen: libev for Swift, and the raw watchers that live in parked stack frames
// SPDX-License-Identifier: MIT
//
// Swift imports functions and structs, but no function-like macro, so each macro of ev.h that the
// event loop needs has an inline function here. Below them is what the hub uses at every park:
//
// 1. `evg_timer` and `evg_io` are plain structs. The hub puts them in the stack frame of the
//    parked greenlet; starting one allocates nothing, counts no reference and calls no closure.
//    Timers are kept in wheels of our own (timers.c), descriptor watches are libev's.
// 2. A timer is one-shot: it is stopped before `fire` is called. A descriptor watch stays active
//    until it is stopped, and fires in each pass in which the descriptor is ready: who waits stops
//    it when it runs. Were it stopped at once and started anew some passes later, the kernel would
//    have to be told twice.
// 3. A timer is given an absolute deadline, libev wants one relative to its cached time of the
//    last poll, and that has no accessor. `ev_timer_remaining` on a probe that claims to be an
//    active timer at 0 answers exactly its negative: two nanoseconds, no clock read, no rounding.
// 4. libev does not tell how many referenced watchers are active (only ev_run's result does, too
//    late), so `evg_loop.references` counts along.

#ifndef EVERGREEN_CLIBEV_H
#define EVERGREEN_CLIBEV_H

#if !__has_include(<ev.h>)
#error "ev.h not found. Install libev 4.33 or later: apt-get install libev-dev (Debian, Ubuntu), dnf install libev-devel (Fedora), brew install libev (macOS, then export CPATH=$(brew --prefix)/include LIBRARY_PATH=$(brew --prefix)/lib)"
#else

// libev's own aliases for libev 3 would only add a second name to everything.
#ifndef EV_COMPAT3
#define EV_COMPAT3 0
#endif
#if defined(__swift__) && defined(__linux__)
// libc's types are to be those of Swift's Glibc, not this module's.
#pragma clang module import SwiftGlibc
#undef EV_NONE  // of <elf.h>
#endif
#include <CLocks.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#if !EV_MULTIPLICITY
#error "This libev was built for one loop per process (EV_MULTIPLICITY 0); Evergreen needs one per thread."
#endif

#define EVG_INLINE static inline __attribute__((always_inline))

// MARK: The loop

/// A place in a list of timers.
typedef struct evg_timer_node {
  struct evg_timer_node * _Nonnull next;
  struct evg_timer_node * _Nonnull previous;
} evg_timer_node;

enum { EVG_LEVELS = 6, EVG_SLOTS = 64 };

/// The timers of a loop; see timers.c.
typedef struct evg_timers {
  uint64_t position;  // in ticks
  uint64_t count;
  uint64_t alarm_at;  // when libev's timer rings; UINT64_MAX: it does not run
  ev_timer alarm;
  evg_timer_node due, far;
  uint64_t occupied[EVG_LEVELS];
  evg_timer_node slots[EVG_LEVELS][EVG_SLOTS];
} evg_timers;

/// What a `Loop` owns: libev's loop, and what libev does not tell about it.
typedef struct evg_loop {
  /// NULL once the loop has been destroyed.
  struct ev_loop * _Nullable raw;
  /// Active watchers that keep the loop running, plus explicit references.
  int64_t references;
  /// The number of forks when this loop was last brought up to date.
  uint32_t forks;
  /// Whether an extra reference makes a waiting poll block although nothing is referenced.
  bool held;
  /// Wakes a waiting poll from other threads and from signal handlers.
  ev_async wakeup;
  /// Whose loop it is: in the child of a fork only those of the forking thread go on.
  pthread_t thread;
  const char * _Nullable place;  // different in each thread
  /// `evg_loop_cancel` was called.
  bool is_canceled;
  struct evg_loop * _Nullable next;
  struct evg_loop * _Nullable previous;
  evg_timers timers;
} evg_loop;

/// Prepares the process once: loops follow forks, libev's fatal system errors become sentences.
void evg_prepare_process(void);

/// `ev_loop_new`.
struct ev_loop * _Nullable evg_loop_new(uint32_t flags);

/// Starts the wake-up watcher of a new loop, unreferenced.
void evg_loop_open(evg_loop * _Nonnull loop, struct ev_loop * _Nonnull raw);

/// Stops the wake-up watcher and frees libev's loop. Does nothing the second time.
void evg_loop_close(evg_loop * _Nonnull loop);

/// In the child of a fork: tells libev, which makes the backend anew in the next pass.
void evg_loop_forked(evg_loop * _Nonnull loop);

/// A program that was not written for this has closed all descriptors by a call that nobody can take
/// over: the loops of this thread make theirs anew in the next pass. False if there are none.
bool evg_loops_make_anew(void);

/// The thread was canceled: its loop, if it has one, is to look around.
void evg_loop_cancel(pthread_t thread);

/// Whether that was so for the calling thread, since it was asked last.
bool evg_loop_was_canceled(void);

EVG_INLINE void evg_check_fork(evg_loop * _Nonnull loop) {
  if (__builtin_expect(loop->forks != evg_forks(), 0)) evg_loop_forked(loop);
}

/// Whether this is a loop of this process, and not one of a thread that stayed in the parent: what
/// would wake that one shares its descriptor with the parent's.
EVG_INLINE bool evg_loop_is_here(const evg_loop * _Nonnull loop) {
  return loop->forks == evg_forks();
}

EVG_INLINE void evg_poll(evg_loop * _Nonnull loop, bool wait) {
  evg_check_fork(loop);
  ev_run(loop->raw, wait ? EVRUN_ONCE : EVRUN_NOWAIT);
}

EVG_INLINE void evg_interrupt(evg_loop * _Nonnull loop) {
  ev_async_send(loop->raw, &loop->wakeup);
}

/// Has `call` called in each loop's pass that `evg_interrupt` has woken, by the loop's thread.
void evg_when_interrupted(void (* _Nonnull call)(void));

/// From any thread, while the loop is open: makes an active watcher fire. Nothing happens in a child
/// where the loop's thread is not.
EVG_INLINE void evg_send(evg_loop * _Nonnull loop, ev_async * _Nonnull watcher) {
  if (evg_loop_is_here(loop)) ev_async_send(loop->raw, watcher);
}

/// Counts an active watcher that libev counts by itself. Not done in Swift, where to change one
/// member is to write to the whole: other threads read `raw` and `forks` meanwhile.
EVG_INLINE void evg_count(evg_loop * _Nonnull loop, int64_t change) { loop->references += change; }

EVG_INLINE void evg_ref(evg_loop * _Nonnull loop) {
  loop->references += 1;
  ev_ref(loop->raw);
}

EVG_INLINE void evg_unref(evg_loop * _Nonnull loop) {
  loop->references -= 1;
  ev_unref(loop->raw);
}

EVG_INLINE void evg_hold(evg_loop * _Nonnull loop, bool on) {
  if (loop->held == on) return;
  loop->held = on;
  if (on) ev_ref(loop->raw);
  else ev_unref(loop->raw);
}

// MARK: Time

/// libev's monotonic time of the last poll, in seconds (see 3. above).
EVG_INLINE double evg_monotonic_seconds(struct ev_loop * _Nonnull loop) {
  ev_timer probe;
  probe.active = 1;
  probe.at = 0;
  return -ev_timer_remaining(loop, &probe);
}

/// The monotonic time of the last poll in nanoseconds, never later than it was.
EVG_INLINE uint64_t evg_now(struct ev_loop * _Nonnull loop) {
  return (uint64_t)(int64_t)(evg_monotonic_seconds(loop) * (1e9 * (1 - 0x1p-51)));
}

/// CLOCK_MONOTONIC in nanoseconds, read now.
EVG_INLINE uint64_t evg_read_clock(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// A deadline in seconds. The factor outweighs the roundings here and in libev (four, each at
/// most 2^-53 of the value), so that a timer is late by some nanoseconds rather than early.
EVG_INLINE double evg_seconds(uint64_t nanoseconds) {
  int64_t bounded = nanoseconds > INT64_MAX ? INT64_MAX : (int64_t)nanoseconds;
  return (double)bounded * (1e-9 * (1 + 0x1p-50));
}

// MARK: Raw watchers

/// A one-shot timer. Make it with `evg_timer_init`, or set `fire` and `armed = false`.
typedef struct evg_timer {
  evg_timer_node node;
  void (* _Nonnull fire)(struct evg_timer * _Nonnull);
  void * _Nullable context;
  /// CLOCK_MONOTONIC nanoseconds.
  uint64_t deadline;
  bool armed;
} evg_timer;

/// A descriptor watch. Make it with `evg_io_init`.
typedef struct evg_io {
  ev_io watcher;
  void (* _Nonnull fire)(struct evg_io * _Nonnull, int32_t events);
  void * _Nullable context;
  /// For `fire` to say that it has been called; libev does not look at it.
  bool is_ready;
  /// Active, but nobody waits: does not keep the loop running, and stops when it fires.
  bool rests;
  /// The watch has ended by itself before it fired: the descriptor was forgotten, or the kernel
  /// watches no more of them.
  bool has_failed;
  /// It was forgotten: by now the number may stand for another file.
  bool is_forgotten;
} evg_io;

void evg_io_fired(struct ev_loop * _Nonnull, ev_io * _Nonnull, int);

/// A new timer, to be put where it is to stay.
EVG_INLINE evg_timer evg_timer_make(
    void (* _Nonnull fire)(evg_timer * _Nonnull), void * _Nullable context) {
  evg_timer timer = {.fire = fire, .context = context};
  return timer;
}

/// Makes a timer where it is to stay, and writes no more than it must: memory of a parked stack.
EVG_INLINE void evg_timer_init(
    evg_timer * _Nonnull timer, void (* _Nonnull fire)(evg_timer * _Nonnull),
    void * _Nullable context) {
  timer->fire = fire;
  timer->context = context;
  timer->armed = false;
}

void evg_timers_open(evg_timers * _Nonnull timers);

// The wheels by themselves, without the loop that drives them:

/// Puts a timer, whose deadline is set and which is in no list, where it belongs.
void evg_timers_add(evg_timers * _Nonnull timers, evg_timer * _Nonnull timer);
/// Moves those whose deadline has come to the list `taken`, by deadline, and by start among equals.
void evg_timers_take_due(
    evg_timers * _Nonnull timers, uint64_t now, evg_timer_node * _Nonnull taken);
/// When to look again: at the first deadline, or, if that is one of many in a slot, when the slot
/// begins. UINT64_MAX if there are none.
uint64_t evg_timers_next_look(evg_timers * _Nonnull timers);

/// Stops all.
void evg_timers_close(evg_timers * _Nonnull timers);

/// Re-arms an armed timer.
void evg_timer_start(evg_loop * _Nonnull loop, evg_timer * _Nonnull timer, uint64_t deadline);

/// No-op when not armed. Libev is not told: at worst it rings once for nothing.
EVG_INLINE void evg_timer_stop(evg_loop * _Nonnull loop, evg_timer * _Nonnull timer) {
  if (!timer->armed) return;
  timer->armed = false;
  if (__builtin_expect(!loop->raw, 0)) return;
  timer->node.previous->next = timer->node.next;
  timer->node.next->previous = timer->node.previous;
  loop->timers.count -= 1;
  loop->references -= 1;
  ev_unref(loop->raw);
}

/// Stops those of the armed timers that are over.
void evg_timers_stop(
    evg_loop * _Nonnull loop,
    bool (* _Nonnull is_over)(evg_timer * _Nonnull, const void * _Nullable argument),
    const void * _Nullable argument);

/// `events` is EV_READ, EV_WRITE or both.
///
/// `fresh` says that the descriptor's number may stand for another file than in the watch before
/// (first watch of a new socket). libev then registers it with the kernel even though nothing
/// seems to have changed; without it a stop and start in one pass costs no system call.
EVG_INLINE void evg_io_init(
    evg_io * _Nonnull io, int32_t fd, int32_t events, bool fresh,
    void (* _Nonnull fire)(evg_io * _Nonnull, int32_t events), void * _Nullable context) {
  ev_init(&io->watcher, evg_io_fired);
  io->watcher.fd = fd;
  io->watcher.events = fresh ? events | EV__IOFDSET : events;
  io->watcher.data = 0;
  io->fire = fire;
  io->context = context;
  io->is_ready = false;
  io->rests = false;
  io->has_failed = false;
  io->is_forgotten = false;
}

// libev stops the watchers of descriptors that it finds closed, before it calls back; so whether
// a watch is on is what `data` says, not libev.
EVG_INLINE bool evg_io_is_active(const evg_io * _Nonnull io) {
  return io->watcher.data != 0;
}

EVG_INLINE void evg_io_start(evg_loop * _Nonnull loop, evg_io * _Nonnull io) {
  if (evg_io_is_active(io)) {
    if (!io->rests) return;
    io->rests = false;
    loop->references += 1;
    ev_ref(loop->raw);
    return;
  }
  io->watcher.data = loop;
  loop->references += 1;
  ev_io_start(loop->raw, &io->watcher);
}

/// Instead of a stop, where the watch will most likely be started again before it fires: libev is
/// told nothing then. One that does fire meanwhile is stopped, and nobody is called.
EVG_INLINE void evg_io_rest(evg_loop * _Nonnull loop, evg_io * _Nonnull io) {
  if (!evg_io_is_active(io) || io->rests || !loop->raw) return;
  io->rests = true;
  loop->references -= 1;
  ev_unref(loop->raw);
}

/// Also clears an event that is pending. No-op when not active.
EVG_INLINE void evg_io_stop(evg_loop * _Nonnull loop, evg_io * _Nonnull io) {
  if (!evg_io_is_active(io)) return;
  io->watcher.data = 0;
  if (__builtin_expect(!loop->raw, 0)) {
    io->watcher.active = io->watcher.pending = 0;
    return;
  }
  if (io->rests) {
    io->rests = false;
    ev_ref(loop->raw);
  } else {
    loop->references -= 1;
  }
  ev_io_stop(loop->raw, &io->watcher);
}

/// The descriptor's number is about to be closed, or stands for another file now: libev's next
/// registration of it reaches the kernel, whatever libev believes. No system call by itself.
/// Watchers that are still active on it end, and are called with EV_ERROR in the next pass; of
/// descriptor watches `is_forgotten` is set.
void evg_forget_descriptor(evg_loop * _Nonnull loop, int32_t fd);

/// A descriptor that can be read while poll(2) would report anything of those that were added to it:
/// of whatever events, where libev knows two. -1 if there is none to be had.
int32_t evg_poll_set_open(void);
void evg_poll_set_close(int32_t set);

/// Adds a descriptor with poll(2)'s `events`, or gives one that is there others. 0, or an errno if it is
/// not watched though something may yet happen to it; EEXIST if it is to be added and is there.
int32_t evg_poll_set_put(int32_t set, int32_t fd, int16_t events, bool is_there);

// MARK: ev.h's macros

typedef void (* _Nonnull evg_callback)(
    struct ev_loop * _Nonnull, ev_watcher * _Nonnull, int revents);

/// For a watcher of any type (all begin as an ev_watcher does): inactive, priority 0.
EVG_INLINE void evg_watcher_init(
    void * _Nonnull watcher, evg_callback callback, void * _Nullable data) {
  ev_watcher *base = watcher;
  ev_init(base, callback);
  base->data = data;
}

EVG_INLINE void * _Nullable evg_watcher_data(const ev_watcher * _Nonnull watcher) {
  return watcher->data;
}

EVG_INLINE bool evg_watcher_is_active(const void * _Nonnull watcher) {
  return ((const ev_watcher *)watcher)->active != 0;
}

EVG_INLINE bool evg_watcher_is_pending(const void * _Nonnull watcher) {
  return ((const ev_watcher *)watcher)->pending != 0;
}

EVG_INLINE int32_t evg_watcher_priority(const void * _Nonnull watcher) {
  return ((const ev_watcher *)watcher)->priority;
}

EVG_INLINE void evg_watcher_set_priority(void * _Nonnull watcher, int32_t priority) {
  ((ev_watcher *)watcher)->priority = priority;
}

EVG_INLINE void evg_io_set(ev_io * _Nonnull watcher, int32_t fd, int32_t events) {
  ev_io_set(watcher, fd, events);
}

EVG_INLINE void evg_timer_set(ev_timer * _Nonnull watcher, double after, double repeat) {
  ev_timer_set(watcher, after, repeat);
}

EVG_INLINE void evg_periodic_set(
    ev_periodic * _Nonnull watcher, double offset, double interval,
    double (* _Nullable reschedule)(ev_periodic * _Nonnull, double now)) {
  ev_periodic_set(watcher, offset, interval, reschedule);
}

EVG_INLINE double evg_periodic_at(const ev_periodic * _Nonnull watcher) {
  return watcher->at;
}

EVG_INLINE void evg_signal_set(ev_signal * _Nonnull watcher, int32_t signal) {
  ev_signal_set(watcher, signal);
}

EVG_INLINE void evg_child_set(ev_child * _Nonnull watcher, int32_t pid, bool trace) {
  ev_child_set(watcher, pid, trace);
}

EVG_INLINE void evg_stat_set(
    ev_stat * _Nonnull watcher, const char * _Nonnull path, double interval) {
  ev_stat_set(watcher, path, interval);
}

/// When it was modified: seconds since 1970 began, and nanoseconds.
EVG_INLINE int64_t evg_stat_modified(
    const struct stat * _Nonnull data, int64_t * _Nonnull nanoseconds) {
#ifdef __APPLE__
  const struct timespec *time = &data->st_mtimespec;
#else
  const struct timespec *time = &data->st_mtim;
#endif
  *nanoseconds = time->tv_nsec;
  return time->tv_sec;
}

EVG_INLINE bool evg_async_is_pending(ev_async * _Nonnull watcher) {
  return ev_async_pending(watcher) != 0;
}

// Constants as the types in which libev takes them.
static const int32_t evg_read = EV_READ;
static const int32_t evg_write = EV_WRITE;
static const int32_t evg_error = (int32_t)EV_ERROR;

/// One more than the highest signal.
static const int32_t evg_signal_count = NSIG;

#endif
#endif
