// Evergreen: stackful contexts, their stacks, and the queue of those that are ready to run.
// SPDX-License-Identifier: MIT
//
// A context is one flow of control with a stack of its own. It belongs to the thread that made it
// and never leaves it, so nothing here locks. What is hot is inline: a wake-up is five stores.

#ifndef EVERGREEN_CGREENLET_H
#define EVERGREEN_CGREENLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#pragma clang assume_nonnull begin
#else
#define _Nullable
#define _Nonnull
#endif

/// The words of the Swift runtime that belong to a greenlet rather than to its thread.
enum {
  EVG_WORD_ACCESSES,     // head of the list of exclusive accesses in progress
  EVG_WORD_TASK,         // the current Task
  EVG_WORD_EXECUTOR,     // what the running executor tracks; points into the stack of its job
  EVG_WORD_TASK_LOCALS,  // task locals bound outside a Task
  EVG_WORD_COUNT
};

enum {
  EVG_FREE,       // in the pool of contexts
  EVG_UNSTARTED,  // made; has neither a stack nor a place in the queue
  EVG_RUNNING,    // the thread's current context
  EVG_PARKED,     // waits for `evg_wake`
  EVG_READY,      // in the ready queue; without a stack pointer if it has never run
  EVG_SUSPENDED,  // left by `evg_switch`, waits for another `evg_switch` to it
  EVG_FINISHED,   // its entry has returned; only the last switch is left
  EVG_LOST,       // another greenlet forked: in this process it never runs again
};

enum { EVG_NO_ARGUMENT = -1 };

typedef struct evg_context evg_context;
typedef struct evg_thread evg_thread;
typedef void (*evg_entry)(evg_context *);

// In the order of their use, three lines of the cache: a switch touches the first, beginning and
// end the second, a wait the third.
struct evg_context {
  void *_Nullable stack_pointer;  // where it was left; NULL before the first run
  evg_context *_Nullable next;    // in the ready queue, or in the pool
  void *_Nullable owner;          // the hub's greenlet on whose behalf it runs, its own or not
  void *_Nullable words[EVG_WORD_COUNT];
  int32_t saved_errno;
  uint8_t state;
  bool is_due : 1;       // an error is to be thrown at the owner's next switch point
  bool is_raw : 1;       // switched by hand: takes over the owner of whoever switches to it
  bool is_orphan : 1;    // raw, and the last reference to it is gone
  bool lacks_stack : 1;  // no memory for one: runs its entry on the reserve, which must only fail
  bool is_named : 1;     // `name` is to be freed
  bool is_followed : 1;  // `successor` is set
  bool is_unpatched : 1; // its calls of libc are the real ones, whatever is patched
  bool is_deputized : 1; // a raw greenlet that it has switched to is parked on its behalf
  bool has_message;      // something came with the switch to it
  bool is_interrupted : 1;  // the wait in a call of foreign code ends, after a handler of a signal
  bool is_shielded : 1;     // what is thrown into it from outside of a block is held back

  evg_entry _Nullable entry;
  void *_Nullable raw;              // the Swift object by which it is switched by hand
  uint8_t *_Nullable stack_low;     // lowest usable byte; the guard lies below
  uint32_t stack_size;              // usable bytes
  uint32_t id;                      // small, unique among the thread's live contexts; main is 0
  uint64_t serial;                  // of the hub's greenlet that it runs; 0 for main
  const char *_Nullable origin;     // where it was spawned: a file name that lives for ever
  uint32_t origin_line;
  uint32_t generation;              // counts the lives of this memory
  char *_Nullable name;             // owned, for reports that may not allocate

  const char *_Nullable wait_text;  // what it waits for; lives for ever
  int64_t wait_argument;            // shown behind the text unless EVG_NO_ARGUMENT; if less, minus
                                    // the address of the descriptor watch that it waits for
  uint64_t wait_since;              // the loop's time, nanoseconds
  evg_thread *_Nullable thread;
  evg_context *_Nullable successor;  // runs when this one has finished; NULL: the next ready one
  evg_context *_Nullable resumer;    // who switched to it last, by hand
  uint32_t resumer_generation;
  uint32_t valgrind_id;
  void *_Nullable sanitizer;         // what ASan calls a fake stack, TSan a fiber
};

/// What the C++ runtime keeps per thread: exceptions that are being handled, the innermost first, and
/// how many are on their way to a handler. The layout is that of the C++ ABI.
typedef struct evg_exceptions {
  void *_Nullable caught;
  unsigned int uncaught;
} evg_exceptions;

/// What a thread knows about its contexts. Swift reads it; only this module writes it, but for the
/// objects and `now`.
struct evg_thread {
  evg_context *_Nullable current;  // NULL until `evg_attach`
  evg_context *_Nullable hub;      // runs when nothing else can
  void *_Nullable hub_object;
  void *_Nullable raw_object;      // what the raw greenlets of this thread share
  /// The hub's: takes back an error (a Swift `any Error`) that met code which cannot throw. If the
  /// hub itself threw it, when `switches` was `since` or more, it is thrown again at the next
  /// switch point.
  void (*_Nullable postpone)(const void *error, uint64_t since);
  /// Called when another context is about to run, on the stack of the one that leaves or has finished;
  /// must not switch.
  void (*_Nullable on_switch)(const evg_context *from, const evg_context *to);
  evg_context *_Nullable ready_head;
  evg_context *_Nullable ready_tail;
  evg_context *_Nullable finished;  // its stack is taken back by whoever runs next
  void *_Nullable *_Nullable words[EVG_WORD_COUNT];
  evg_exceptions *_Nullable exceptions;  // the running context's
  int32_t *_Nullable place_of_errno;     // a call less at each switch
  uint64_t switches;       // runs so far; the watchdog reads it from its own thread
  uint64_t serials;        // given to the hub's greenlets so far
  uint64_t now;            // the loop's time after its last pass, nanoseconds; the hub sets it
  int32_t budget;          // runs left until the hub must look at its loop
  int32_t io_budget;       // system calls that may still succeed before others get a turn
  uint32_t ready_count;
  uint32_t live;           // contexts in use, the main one not counted
  uint32_t stacks_in_use;
  uint32_t raw_attention;  // raw switches must look closer; other threads set it too
  bool shares_accesses;    // debug: one access set for all, so that overlaps trap
  bool swaps_words;        // the runtime's words were found
  bool calls_runtime;      // they were not: the slower exported functions serve exclusivity
  bool on_valgrind;
  bool notes_spawns;       // the hub wants to know who is spawned where
  evg_exceptions no_exceptions;  // where there is no C++
  evg_context main;
};

extern __thread evg_thread evg_self __attribute__((tls_model("initial-exec")));

static inline evg_thread *evg_thread_self(void) { return &evg_self; }

// MARK: Contexts

/// Makes the calling thread's own stack its main context. Idempotent.
/// `swaps_words`: what `evg_words_probe` found may be used.
void evg_attach(bool swaps_words);

/// Gives back all that the thread holds: pooled stacks, contexts. None may be in use.
void evg_detach(void);

/// Called when an attached thread ends, the hub's first, before the thread is detached.
void evg_set_exit_hooks(void (*_Nullable hub)(void), void (*_Nullable raw)(void));

/// A context that has not run yet. `stack_size` is rounded up to a power of two, 32 KiB to 1 GiB.
/// The caller says whose it is: `owner`, or `is_raw` and `raw`.
evg_context *evg_context_new(evg_entry entry, size_t stack_size);

/// Gives back a context that never ran.
void evg_context_free(evg_context *context);

/// What runs when the context has finished, if not the next ready one.
static inline void evg_context_set_successor(evg_context *context, evg_context *successor) {
  context->successor = successor;
  context->is_followed = true;
}

/// Keeps a copy of the name, for reports that may not allocate.
void evg_context_set_name(evg_context *context, const char *name);

/// Calls `visit` for each context in use, the main one first.
void evg_contexts(void (*visit)(evg_context *, void *_Nullable), void *_Nullable argument);

/// In the child of a fork: makes lost all contexts but the hub's, those of the greenlet that forked,
/// and raw ones that are suspended, which run only if somebody switches to them. The stacks of the
/// lost ones stay as they are: what lies on them is the parent's business.
void evg_lose_others(void);

/// Runs `to` now, on its own stack; returns when someone switches back. The caller sets its own
/// state first.
void evg_switch(evg_context *to);

/// Runs the next ready context, or the hub. The caller has set its own state, and returns when it
/// was made ready and its turn has come.
void evg_park(void);

/// Lets those that are ready run before the caller goes on.
void evg_yield(void);

/// The hub's part: runs ready contexts until there is none or the budget is spent.
void evg_run_ready(int32_t budget);

/// Appends a context to the ready queue, whatever its state.
static inline void evg_ready(evg_context *context) {
  evg_thread *self = &evg_self;
  context->state = EVG_READY;
  context->next = NULL;
  if (self->ready_head) {
    self->ready_tail->next = context;
  } else {
    self->ready_head = context;
  }
  self->ready_tail = context;
  self->ready_count++;
}

/// Puts the ready context at `place`, 0 for the first, before all others. For schedulers of tests.
void evg_ready_promote(uint32_t place);

/// Makes a parked context ready. False if it was not parked: somebody else was first.
static inline bool evg_wake(evg_context *context) {
  if (context->state != EVG_PARKED) return false;
  evg_ready(context);
  return true;
}

/// Whether a switch point must look closer before or after a wait: an error is due, the context is
/// a raw greenlet's or the hub's own, or it runs on the reserve, which it may not leave to others.
static inline bool evg_needs_care(const evg_context *context) {
  return context->is_due || context->is_raw || context->lacks_stack || !context->owner;
}

/// Whether a timeout that begins must note where it does: in a raw greenlet, or under a shield.
static inline bool evg_is_unusual(const evg_context *context) {
  return context->is_raw || context->is_shielded;
}

/// Switches by hand to a suspended context, if there is nothing else to be done with it: same
/// thread, a stack of one's own, nobody watches, nobody was dropped. True when control is back.
bool evg_switch_plainly(evg_context *to);

/// Makes raw switches of a thread look closer, or not. From any thread.
static inline void evg_set_raw_attention(evg_thread *thread, bool on) {
  __atomic_store_n(&thread->raw_attention, on, __ATOMIC_RELAXED);
}

/// Whether something came with the switch to the current context, or raw greenlets need attention.
static inline bool evg_must_arrive(void) {
  const evg_thread *self = &evg_self;
  return self->current->has_message || __atomic_load_n(&self->raw_attention, __ATOMIC_RELAXED);
}

static inline evg_context *_Nullable evg_current(void) { return evg_self.current; }
static inline void evg_set_hub(evg_context *_Nullable hub, void *_Nullable object) {
  evg_self.hub = hub;
  evg_self.hub_object = object;
}

// MARK: Stacks

enum { EVG_GUARD_SIZE = 64 * 1024 };

/// Gives memory of pooled stacks back to the system, all but the `keep` used last, at most `most`
/// stacks a call. Returns how many it trimmed.
size_t evg_stacks_trim(size_t keep, size_t most);

/// Pooled stacks whose memory may still be resident.
size_t evg_stacks_warm(void);

/// The deepest use of the context's stack so far, in bytes, rounded up to a page.
size_t evg_stack_high_water(const evg_context *context);

/// The addresses in the functions in which a context is, the innermost first, as far as they keep frame
/// pointers; none for one that has never run. Returns how many.
size_t evg_context_frames(const evg_context *context, const void *_Nullable *_Nonnull frames, size_t most);

/// Why the last stack could not be had: an errno, 0 if none failed.
int evg_stack_error(void);

// MARK: The Swift runtime's words

/// Finds the words, on a thread that runs nothing else. Two steps round a job that Swift starts:
/// the first before it, the second inside it. True when all were found and the self-test passed.
bool evg_words_probe_begin(void);
bool evg_words_probe_in_job(void);

/// Task locals that the running code sees, copied for a new context; NULL if there are none.
void *_Nullable evg_task_locals_copy(void);

/// Whether task locals are bound where the running code could see them.
static inline bool evg_has_task_locals(void) {
  const evg_thread *self = &evg_self;
  return self->swaps_words && (*self->words[EVG_WORD_TASK_LOCALS] || *self->words[EVG_WORD_TASK]);
}

/// Gives back the task locals of the context that is about to finish.
void evg_task_locals_drop(void);

/// Whether the running code is a Task's.
bool evg_in_task(void);

/// Calls `report` when a context parks while it holds an exclusive access, in debug builds, once a
/// place.
typedef void (*evg_access_report)(evg_context *, const void *access, const void *place, bool modifies);
void evg_set_access_report(evg_access_report _Nullable report);

// MARK: Threads

/// Whether threads that nobody has given a hub get one at their first call that waits: so where a
/// program runs that was not written for this. Set once, before the first hub.
extern bool evg_adopts_threads;
static inline bool evg_is_adopting(void) { return evg_adopts_threads; }  // for Swift

/// A thread that does not: the library's own, those that end, those for which no hub could be made.
extern __thread bool evg_stays_foreign __attribute__((tls_model("initial-exec")));

/// Runs `body` on a thread of its own and waits for it. Returns an errno, 0 if it has run.
int evg_on_new_thread(void (*body)(void));

/// Starts a detached thread that receives no signals but those of its own faults: the others are for
/// the program's own threads.
/// `stack_size` 0 is the system's default. Returns an errno, 0 if it runs.
int evg_start_thread(void (*body)(void *_Nullable), void *_Nullable argument, size_t stack_size);

enum { EVG_FRAMES = 48, EVG_NAME = 64 };

/// What a thread does at this moment, seen from another one.
typedef struct evg_glimpse {
  size_t count;
  void *_Nullable frames[EVG_FRAMES];
  uint32_t id;                   // of the running context
  char name[EVG_NAME];           // "" if it has none
  const char *_Nullable origin;
  uint32_t origin_line;
  uint32_t others;               // unfinished contexts beside it, main and hub not counted
  uint64_t switches;
} evg_glimpse;

/// Looks at `thread` by a signal, SIGURG, whose handler there writes the answer. False if it did
/// not answer within a second, or if the program uses the signal for itself.
bool evg_look_at(uintptr_t thread, evg_glimpse *glimpse);

/// The switches of a thread so far, read from any thread.
static inline uint64_t evg_switches_of(const evg_thread *thread) {
  return __atomic_load_n(&thread->switches, __ATOMIC_RELAXED);
}

/// The name of the function at `address`, demangled if it is Swift's; NULL if unknown. Free it.
char *_Nullable evg_function_name(const void *address);
/// The file name of the module at `address`, and the offset in it; NULL if unknown.
const char *_Nullable evg_module_name(const void *address, uintptr_t *offset);

#if defined(__clang__)
#pragma clang assume_nonnull end
#endif
#endif
