// Evergreen: where greenlets wait for what is only an address: a mutex, a condition, a semaphore.
// SPDX-License-Identifier: MIT
//
// Whoever waits is in a list by the address. Whoever gives free what is there, from whatever
// thread, looks whether anybody is parked at its address and wakes him, who tries again.

#ifndef EVERGREEN_CGREENCALLS_PARKING_H
#define EVERGREEN_CGREENCALLS_PARKING_H

#include "green.h"

/// A greenlet that waits, in its own frame.
typedef struct evg_parked {
  struct evg_parked *next, *previous;  // at the same place
  struct evg_parked *next_woken;
  const void *key;
  evg_context *context;
  evg_thread *thread;
  struct evg_parked *_Atomic *woken;  // those of its thread that others have woken
  void *door;                         // of its hub
  evg_wait wait;                      // from entering to leaving, however often it looks between
  _Atomic bool is_woken;
  bool is_listed;
} evg_parked;

/// How many are parked in the whole process, and whether anybody ever was.
extern _Atomic uint32_t evg_parked_count;
extern _Atomic bool evg_parks;

enum evg_end { EVG_AT_TAIL, EVG_AT_HEAD };

/// Enters the list of those who wait for `key`. From then on no wake-up is lost.
void evg_park_enter(evg_parked *parked, const void *key, enum evg_end end);

/// Leaves the list, if nobody has taken it out. Returns whether it was woken.
bool evg_park_leave(evg_parked *parked);

/// Waits until it is woken or the deadline has come. A `firm` wait ends for nothing else; another
/// one also for an error that is due or a signal's handler. Returns EVG_WAIT_OVER, EVG_WAIT_TIME_UP
/// or an errno.
int evg_park_wait(evg_parked *parked, const char *reason, uint64_t deadline, bool firm);

/// Wakes the first of those who wait for `key`, or all. Returns how many. From any thread, but not
/// from a signal's handler: there it does nothing.
uint32_t evg_unpark(const void *key, bool all);

/// Whether anybody may wait at all, whatever for. What was made free before the call is seen by
/// those who come too late to be seen here.
static inline bool evg_is_any_parked(void) {
  if (__builtin_expect(!atomic_load_explicit(&evg_parks, memory_order_relaxed), 1)) return false;
  atomic_thread_fence(memory_order_seq_cst);
  return atomic_load_explicit(&evg_parked_count, memory_order_relaxed) != 0;
}

// MARK: Waiting for what is had by trying

/// The end of a wait, on the clock of the call.
typedef struct evg_limit {
  clockid_t clock;
  const struct timespec *time;  // NULL is never
} evg_limit;

static const evg_limit evg_no_limit = {0};

typedef struct evg_goal {
  const void *key;
  const char *reason;
  int (*try)(void *);  // 0: it is had; EBUSY: not yet; else an error
  void *argument;
  bool firm;
} evg_goal;

/// Until it is had, or the limit has come. 0, ETIMEDOUT, EINVAL for a bad limit, what `try` says, or,
/// unless it is firm, EINTR. errno stays as it is.
int evg_obtain(const evg_goal *goal, evg_limit limit);

/// Tries to join what is no thread of libc's though it has a number; -1 if it is one. NULL where
/// there are none.
extern int (*evg_try_join_other)(pthread_t thread, void **value);

/// Makes those ready whom other threads have woken. Called by the hub; true if there are any.
bool evg_take_in_woken(void);

#endif
