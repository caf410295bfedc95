// Evergreen: the lists of those who wait for an address.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#include "parking.h"

#include "CLocks.h"

#include <pthread.h>
#include <sched.h>

_Atomic uint32_t evg_parked_count;
_Atomic bool evg_parks;

/// Those whose addresses fall together.
typedef struct place {
  atomic_flag is_taken;
  evg_parked *first, *last;
} place;

enum { PLACES = 256 };
static place places[PLACES];

static __thread evg_parked *_Atomic woken_by_others;

static place *place_of(const void *key) {
  return &places[((uintptr_t)key * 0x9e3779b97f4a7c15u) >> 56];
}

static void take(place *place) {
  while (atomic_flag_test_and_set_explicit(&place->is_taken, memory_order_acquire)) {
    real(sched_yield)();
  }
}

static void give(place *place) {
  atomic_flag_clear_explicit(&place->is_taken, memory_order_release);
}

/// The others are in the parent, and whoever held a place there is not here to give it back.
static void forget_all(void) {
  for (int i = 0; i < PLACES; i++) places[i] = (place){.is_taken = ATOMIC_FLAG_INIT};
  atomic_store(&evg_parked_count, 0);
  atomic_store(&woken_by_others, NULL);
}

static void prepare(void) {
  evg_on_fork(forget_all);
  atomic_store(&evg_parks, true);
}

void evg_park_enter(evg_parked *parked, const void *key, enum evg_end end) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  evg_own_calls++;
  real(pthread_once)(&once, prepare);
  evg_own_calls--;
  void *const door = evg_hub->door();  // makes the hub of a thread that has none yet
  *parked = (evg_parked){
    .key = key, .context = evg_self.current, .thread = &evg_self, .woken = &woken_by_others,
    .door = door, .is_listed = true};
  evg_wait_begin(&parked->wait, true);
  place *place = place_of(key);
  take(place);
  if (end == EVG_AT_HEAD) {
    parked->next = place->first;
    if (place->first) place->first->previous = parked;
    else place->last = parked;
    place->first = parked;
  } else {
    parked->previous = place->last;
    if (place->last) place->last->next = parked;
    else place->first = parked;
    place->last = parked;
  }
  give(place);
  atomic_fetch_add(&evg_parked_count, 1);
  atomic_thread_fence(memory_order_seq_cst);
}

static void take_out(place *place, evg_parked *parked) {
  if (parked->previous) parked->previous->next = parked->next;
  else place->first = parked->next;
  if (parked->next) parked->next->previous = parked->previous;
  else place->last = parked->previous;
  parked->is_listed = false;
  atomic_fetch_sub_explicit(&evg_parked_count, 1, memory_order_relaxed);
}

bool evg_park_leave(evg_parked *parked) {
  // Also if it is woken already: whoever did may still be at it.
  place *place = place_of(parked->key);
  take(place);
  if (parked->is_listed) take_out(place, parked);
  give(place);
  evg_wait_end(&parked->wait);
  evg_take_in_woken();  // it may be among them, and its frame goes
  return atomic_load_explicit(&parked->is_woken, memory_order_acquire);
}

int evg_park_wait(evg_parked *parked, const char *reason, uint64_t deadline, bool firm) {
  int end = EVG_WAIT_OVER;
  while (!atomic_load_explicit(&parked->is_woken, memory_order_acquire)) {
    if (!firm && (end = evg_hub->leave()) != 0) break;
    if (!evg_hub->suspend(reason, (int64_t)(intptr_t)parked->key, deadline)) continue;
    if (atomic_load_explicit(&parked->is_woken, memory_order_acquire)) break;
    // A handler may have run in the very moment when the time was up.
    if (firm || (end = evg_hub->leave()) == 0) end = EVG_WAIT_TIME_UP;
    break;
  }
  return end;
}

uint32_t evg_unpark(const void *key, bool all) {
  if (__builtin_expect(evg_handlers != 0, 0)) return 0;
  place *place = place_of(key);
  uint32_t count = 0;
  take(place);
  for (evg_parked *parked = place->first, *next; parked; parked = next) {
    next = parked->next;
    if (parked->key != key) continue;
    take_out(place, parked);
    atomic_store_explicit(&parked->is_woken, true, memory_order_release);
    count++;
    if (parked->thread == &evg_self) {
      evg_wake(parked->context);
    } else {
      parked->next_woken = atomic_load_explicit(parked->woken, memory_order_relaxed);
      while (!atomic_compare_exchange_weak_explicit(
        parked->woken, &parked->next_woken, parked, memory_order_release, memory_order_relaxed)) {
      }
      // While the place is held: it cannot leave, so its hub is there.
      evg_hub->wake_other(parked->door);
    }
    if (!all) break;
  }
  give(place);
  return count;
}

bool evg_take_in_woken(void) {
  if (!atomic_load_explicit(&woken_by_others, memory_order_relaxed)) return false;
  bool is_any = false;
  evg_parked *parked = atomic_exchange_explicit(&woken_by_others, NULL, memory_order_acquire);
  while (parked) {
    evg_parked *const next = parked->next_woken;  // once it is ready it may go
    is_any |= evg_wake(parked->context);
    parked = next;
  }
  return is_any;
}

#endif
