// Evergreen: the hub's timers: a hierarchy of wheels, driven by one timer of libev's
// SPDX-License-Identifier: MIT
//
// Most timers are timeouts that never come true, so starting and stopping one must cost little,
// however many there are. In libev's heap both touch as many cold timers as the heap has levels;
// here they touch two neighbours in a list.
//
//   tick       2^20 ns, some 1.05 ms
//   level 0    64 slots of one tick
//   level n    64 slots of 64^n ticks
//
// A timer lies on the level of the highest group of six bits in which its tick differs from
// `position`, in the slot that this group names; so everything on a lower level comes first, and
// when `position` enters a slot its timers move down. Those of the tick itself, and older ones, are
// in `due`, by deadline. So order and precision are those of the deadlines, not of ticks.

#include "CLibev.h"

#include <stddef.h>
#include <stdlib.h>

enum { TICK_BITS = 20, LEVEL_BITS = 6, FEW = 16, MANY = 512, AHEAD = 16 };
enum { SLOTS = EVG_LEVELS * EVG_SLOTS, LISTS = SLOTS + 2 };

#define NEVER UINT64_MAX

static evg_timer *timer_of(evg_timer_node *node) { return (evg_timer *)node; }

static void make_empty(evg_timer_node *list) { list->next = list->previous = list; }

static bool is_empty(const evg_timer_node *list) { return list->next == list; }

static void insert_before(evg_timer_node *place, evg_timer_node *node) {
  node->next = place;
  node->previous = place->previous;
  node->previous->next = node;
  place->previous = node;
}

static void unlink_node(evg_timer_node *node) {
  node->previous->next = node->next;
  node->next->previous = node->previous;
}

/// Moves all that lies before `place` in the list `from` to `to`.
static void move_before(evg_timer_node *place, evg_timer_node *from, evg_timer_node *to) {
  make_empty(to);
  if (from->next == place) return;
  to->next = from->next;
  to->previous = place->previous;
  to->next->previous = to->previous->next = to;
  from->next = place;
  place->previous = from;
}

static void move_all(evg_timer_node *from, evg_timer_node *to) { move_before(from, from, to); }

static void append_all(evg_timer_node *list, evg_timer_node *others) {
  if (is_empty(others)) return;
  others->next->previous = list->previous;
  list->previous->next = others->next;
  others->previous->next = list;
  list->previous = others->previous;
}

/// Where timers may be: all slots, `due` and `far`.
static evg_timer_node *list_at(evg_timers *timers, int i) {
  if (i < SLOTS) return &timers->slots[i / EVG_SLOTS][i % EVG_SLOTS];
  return i == SLOTS ? &timers->due : &timers->far;
}

void evg_timers_open(evg_timers *timers) {
  for (int level = 0; level < EVG_LEVELS; level++) timers->occupied[level] = 0;
  for (int i = 0; i < LISTS; i++) make_empty(list_at(timers, i));
  timers->position = 0;
  timers->count = 0;
  timers->alarm_at = NEVER;
}

static void disarm_all(evg_timer_node *list) {
  while (!is_empty(list)) {
    evg_timer *timer = timer_of(list->next);
    unlink_node(&timer->node);
    timer->armed = false;
  }
}

void evg_timers_close(evg_timers *timers) {
  for (int i = 0; i < LISTS; i++) disarm_all(list_at(timers, i));
}

/// Behind those with the same deadline.
static void insert_due(evg_timers *timers, evg_timer *timer) {
  evg_timer_node *place = &timers->due;
  while (place->previous != &timers->due &&
         timer_of(place->previous)->deadline > timer->deadline) {
    place = place->previous;
  }
  insert_before(place, &timer->node);
}

void evg_timers_add(evg_timers *timers, evg_timer *timer) {
  uint64_t tick = timer->deadline >> TICK_BITS;
  if (tick <= timers->position) return insert_due(timers, timer);
  int level = (63 - __builtin_clzll(tick ^ timers->position)) / LEVEL_BITS;
  if (level >= EVG_LEVELS) return insert_before(&timers->far, &timer->node);
  unsigned slot = (tick >> (level * LEVEL_BITS)) % EVG_SLOTS;
  timers->occupied[level] |= (uint64_t)1 << slot;
  insert_before(&timers->slots[level][slot], &timer->node);
}

static evg_timer_node *merge(evg_timer_node *one, evg_timer_node *other) {
  evg_timer_node head, *last = &head;
  while (one && other) {
    evg_timer_node **first = timer_of(other)->deadline < timer_of(one)->deadline ? &other : &one;
    last = last->next = *first;
    *first = (*first)->next;
  }
  last->next = one ? one : other;
  return head.next;
}

/// By merging, in place.
static void sort_list(evg_timer_node *list) {
  evg_timer_node *runs[40] = {NULL};  // runs[i] holds 2^i nodes, or none
  if (is_empty(list)) return;
  list->previous->next = NULL;
  for (evg_timer_node *node = list->next, *rest; node; node = rest) {
    rest = node->next;
    node->next = NULL;
    int i = 0;
    for (; runs[i]; i++) {
      node = merge(runs[i], node);
      runs[i] = NULL;
    }
    runs[i] = node;
  }
  evg_timer_node *sorted = NULL;
  for (int i = 0; i < 40; i++) {
    if (runs[i]) sorted = merge(runs[i], sorted);
  }
  evg_timer_node *previous = list;
  for (evg_timer_node *node = sorted; node; node = node->next) {
    previous->next = node;
    node->previous = previous;
    previous = node;
  }
  previous->next = list;
  list->previous = previous;
}

typedef struct entry {
  uint64_t deadline;
  evg_timer_node *node;
} entry;

/// NULL if memory is short.
static entry *entries_of(evg_timer_node *list, size_t *count) {
  size_t room = 0, used = 0;
  entry *entries = NULL;
  for (evg_timer_node *node = list->next; node != list; node = node->next) {
    if (used == room) {
      room = room ? 2 * room : 2 * MANY;
      entry *larger = realloc(entries, room * sizeof *entries);
      if (!larger) {
        free(entries);
        return NULL;
      }
      entries = larger;
    }
    entries[used++] = (entry){timer_of(node)->deadline, node};
  }
  *count = used;
  return entries;
}

enum { DIGIT_BITS = TICK_BITS / 2, DIGITS = 1 << DIGIT_BITS };

static void sort_by_digit(const entry *from, entry *to, size_t count, int shift) {
  size_t places[DIGITS] = {0};
  for (size_t i = 0; i < count; i++) places[(from[i].deadline >> shift) % DIGITS]++;
  size_t place = 0;
  for (int digit = 0; digit < DIGITS; digit++) {
    size_t next = place + places[digit];
    places[digit] = place;
    place = next;
  }
  for (size_t i = 0; i < count; i++) to[places[(from[i].deadline >> shift) % DIGITS]++] = from[i];
}

/// By the digits in which deadlines of one tick differ. The nodes, cold if they are many, are read
/// once and written once; merging goes through them again and again. False if memory is short.
static __attribute__((noinline)) bool sort_array(evg_timer_node *list) {
  size_t count;
  entry *entries = entries_of(list, &count);
  entry *others = entries ? malloc(count * sizeof *others) : NULL;
  if (others) {
    sort_by_digit(entries, others, count, 0);
    sort_by_digit(others, entries, count, DIGIT_BITS);
    make_empty(list);
    for (size_t i = 0; i < count; i++) {
      if (i + AHEAD < count) __builtin_prefetch(entries[i + AHEAD].node, 1);
      insert_before(list, entries[i].node);
    }
  }
  free(others);
  free(entries);
  return others != NULL;
}

static bool holds_many(const evg_timer_node *list) {
  int count = 0;
  for (const evg_timer_node *node = list->next; node != list; node = node->next) {
    if (++count == MANY) return true;
  }
  return false;
}

/// Timers of one tick, by deadline; those with the same one stay in their order.
static void sort(evg_timer_node *list) {
  if (!holds_many(list) || !sort_array(list)) sort_list(list);
}

/// The first slot that holds timers, and the tick at which it begins. NULL if all are in `due`.
static evg_timer_node *next_slot(evg_timers *timers, uint64_t *begin) {
  for (int level = 0; level < EVG_LEVELS; level++) {
    int shift = level * LEVEL_BITS;
    unsigned here = (timers->position >> shift) % EVG_SLOTS;
    for (;;) {
      uint64_t later = here == EVG_SLOTS - 1 ? 0 : timers->occupied[level] >> (here + 1) << (here + 1);
      if (!later) break;
      unsigned slot = (unsigned)__builtin_ctzll(later);
      evg_timer_node *list = &timers->slots[level][slot];
      if (!is_empty(list)) {
        uint64_t above = timers->position >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
        *begin = above | (uint64_t)slot << shift;
        return list;
      }
      timers->occupied[level] &= ~((uint64_t)1 << slot);  // who stopped the last did not look
    }
  }
  if (is_empty(&timers->far)) return NULL;
  int shift = EVG_LEVELS * LEVEL_BITS;
  *begin = ((timers->position >> shift) + 1) << shift;
  return &timers->far;
}

static bool is_of_one_tick(const evg_timers *timers, const evg_timer_node *list) {
  return list >= timers->slots[0] && list < timers->slots[1];
}

/// Brings the position to the tick of `now`, and what has become due into `due`.
static void advance(evg_timers *timers, uint64_t now) {
  uint64_t target = now >> TICK_BITS, begin;
  while (timers->position < target) {
    evg_timer_node *list = next_slot(timers, &begin);
    if (!list || begin > target) {
      timers->position = target;
      return;
    }
    timers->position = begin;
    evg_timer_node moving, ripe;
    make_empty(&moving);
    make_empty(&ripe);
    move_all(list, is_of_one_tick(timers, list) ? &ripe : &moving);
    while (!is_empty(&moving)) {
      evg_timer_node *node = moving.next;
      unlink_node(node);
      if (timer_of(node)->deadline >> TICK_BITS == begin) insert_before(&ripe, node);
      else evg_timers_add(timers, timer_of(node));
    }
    sort(&ripe);  // all in `due` are of earlier ticks
    append_all(&timers->due, &ripe);
  }
}

uint64_t evg_timers_next_look(evg_timers *timers) {
  if (!is_empty(&timers->due)) return timer_of(timers->due.next)->deadline;
  uint64_t begin, first = NEVER;
  evg_timer_node *list = next_slot(timers, &begin);
  if (!list) return NEVER;
  int seen = 0;
  for (evg_timer_node *node = list->next; node != list; node = node->next) {
    if (++seen > FEW) return begin << TICK_BITS;
    if (timer_of(node)->deadline < first) first = timer_of(node)->deadline;
  }
  return first;
}

void evg_timers_take_due(evg_timers *timers, uint64_t now, evg_timer_node *taken) {
  advance(timers, now);
  evg_timer_node *due = &timers->due, *rest = due;
  if (!is_empty(due) && timer_of(due->previous)->deadline > now) {
    for (rest = due->next; timer_of(rest)->deadline <= now;) rest = rest->next;
  }
  move_before(rest, due, taken);
}

static void alarm_fired(struct ev_loop *raw, ev_timer *alarm, int revents);

/// The alarm is not referenced: the timers are.
static void set_alarm(evg_loop *loop, uint64_t deadline) {
  evg_timers *timers = &loop->timers;
  if (timers->alarm_at != NEVER) {
    ev_ref(loop->raw);
    ev_timer_stop(loop->raw, &timers->alarm);
  }
  timers->alarm_at = deadline;
  if (deadline == NEVER) return;
  // The relative time may be negative: such a timer fires in the next pass.
  double after = evg_seconds(deadline) - evg_monotonic_seconds(loop->raw);
  ev_timer_init(&timers->alarm, alarm_fired, after, 0.);
  // Below the descriptor watches: what is ready in the same pass beats the clock.
  ev_set_priority(&timers->alarm, -1);
  timers->alarm.data = loop;
  ev_timer_start(loop->raw, &timers->alarm);
  ev_unref(loop->raw);
}

static void alarm_fired(struct ev_loop *raw, ev_timer *alarm, int revents) {
  (void)revents;
  evg_loop *loop = alarm->data;
  evg_timers *timers = &loop->timers;
  ev_ref(raw);  // libev has stopped it, and has taken off a reference that it did not have
  timers->alarm_at = NEVER;
  uint64_t now = evg_read_clock();
  // Taken out first: what `fire` starts waits for the next pass, even if it is due.
  evg_timer_node firing;
  evg_timers_take_due(timers, now, &firing);
  while (!is_empty(&firing)) {
    evg_timer *timer = timer_of(firing.next);
    evg_timer_stop(loop, timer);
    timer->fire(timer);
  }
  if (timers->count) set_alarm(loop, evg_timers_next_look(timers));
}

void evg_timer_start(evg_loop *loop, evg_timer *timer, uint64_t deadline) {
  evg_timers *timers = &loop->timers;
  if (timer->armed) {
    unlink_node(&timer->node);
  } else {
    if (timers->count++ == 0) timers->position = evg_now(loop->raw) >> TICK_BITS;
    loop->references += 1;
    ev_ref(loop->raw);
    timer->armed = true;
  }
  timer->deadline = deadline;
  evg_timers_add(timers, timer);
  if (deadline < timers->alarm_at) set_alarm(loop, deadline);
}

typedef bool (*timer_test)(evg_timer *, const void *);

static void stop_in(evg_loop *loop, evg_timer_node *list, timer_test is_over, const void *argument) {
  for (evg_timer_node *node = list->next, *next; node != list; node = next) {
    next = node->next;
    if (is_over(timer_of(node), argument)) evg_timer_stop(loop, timer_of(node));
  }
}

void evg_timers_stop(evg_loop *loop, timer_test is_over, const void *argument) {
  for (int i = 0; i < LISTS; i++) stop_in(loop, list_at(&loop->timers, i), is_over, argument);
}
