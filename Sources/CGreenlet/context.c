// Evergreen: contexts, the one place where they are switched, and the ready queue.
// SPDX-License-Identifier: MIT
//
// Every switch of the process goes through `transfer`, so that its return address is always the
// same and the processor predicts it; that is most of the difference between 7 ns and 20.
//
// A context gets its stack when it first runs. When one has finished and the next one has never
// run, the next takes over the stack as it is, without a switch: a thousand greenlets that never
// block need one stack, which stays in the cache.
//
// A finished context cannot give back the stack that it stands on. It leaves itself in
// `finished`, and whoever runs next, at the far end of the last switch, takes the stack back.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"
#include "internal.h"

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND false
#define VALGRIND_STACK_REGISTER(low, high) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

__thread evg_thread evg_self;

// MARK: The pool of contexts

enum { CHUNK = 64, LINE = 64 };

/// Contexts are made by the chunk and never moved; chunks are how all of them are found.
typedef struct chunk {
  struct chunk *next;
  char unused[LINE - sizeof(void *)];
  evg_context contexts[CHUNK];
} chunk;

_Static_assert(sizeof(evg_context) == 3 * LINE, "a context is three lines of the cache");

static __thread chunk *chunks;
static __thread evg_context *pool;
static __thread uint32_t made;
static __thread uint8_t *reserve_stack;  // for contexts that could get no stack of their own

enum { RESERVE_SHIFT = 17 };

// The smallest stack: guards begin at pages, of which some kernels have large ones.
static uint32_t least_stack = (uint32_t)1 << EVG_STACK_MIN_SHIFT;

static uint32_t rounded(size_t size) {
  if (size <= least_stack) return least_stack;
  if (size >= (size_t)1 << EVG_STACK_MAX_SHIFT) return (uint32_t)1 << EVG_STACK_MAX_SHIFT;
  return (uint32_t)1 << (64 - __builtin_clzll((unsigned long long)size - 1));
}

static __attribute__((noinline)) void grow_pool(void) {
  void *memory = NULL;
  if (posix_memalign(&memory, LINE, sizeof(chunk)) != 0) {
    fputs("evergreen: fatal: out of memory for a greenlet\n", stderr);
    abort();
  }
  chunk *fresh = memset(memory, 0, sizeof(chunk));
  fresh->next = chunks;
  chunks = fresh;
  for (int i = CHUNK - 1; i >= 0; i--) {
    fresh->contexts[i].id = made + (uint32_t)i + 1;
    fresh->contexts[i].thread = &evg_self;
    fresh->contexts[i].next = pool;
    pool = &fresh->contexts[i];
  }
  made += CHUNK;
}

evg_context *evg_context_new(evg_entry entry, size_t stack_size) {
  if (EVG_UNLIKELY(!pool)) grow_pool();
  evg_context *context = pool;
  pool = context->next;
  context->entry = entry;
  context->state = EVG_UNSTARTED;
  context->stack_size = rounded(stack_size);
  evg_self.live++;
  return context;
}

/// A signal handler may read the name at any moment.
static void replace_name(evg_context *context, char *name) {
  char *earlier = context->name;
  __atomic_store_n(&context->name, name, __ATOMIC_RELEASE);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  free(earlier);
}

/// What only few contexts have is not even looked at in the others: it lies in a colder line.
void evg_context_free(evg_context *context) {
  if (EVG_UNLIKELY(context->is_named)) replace_name(context, NULL);
  if (EVG_UNLIKELY(context->raw != NULL)) {
    context->raw = NULL;
    context->resumer = NULL;
  }
  memset(context->words, 0, sizeof context->words);
  context->stack_pointer = NULL;
  context->stack_low = NULL;
  context->owner = NULL;
  context->saved_errno = 0;
  context->is_due = context->is_raw = context->is_orphan = context->lacks_stack = false;
  context->is_named = context->is_followed = context->is_unpatched = false;
  context->has_message = false;
  context->generation++;
  context->serial = 0;
  context->origin = NULL;
  context->state = EVG_FREE;
  context->next = pool;
  pool = context;
  evg_self.live--;
}

void evg_context_set_name(evg_context *context, const char *name) {
  replace_name(context, strdup(name));
  context->is_named = true;
}

void evg_contexts(void (*visit)(evg_context *, void *), void *argument) {
  visit(&evg_self.main, argument);
  for (chunk *c = chunks; c; c = c->next) {
    for (int i = 0; i < CHUNK; i++) {
      if (c->contexts[i].state != EVG_FREE) visit(&c->contexts[i], argument);
    }
  }
}

// MARK: Attaching a thread

static pthread_key_t exit_key;
static void (*hub_exit_hook)(void);
static void (*raw_exit_hook)(void);

void evg_set_exit_hooks(void (*hub)(void), void (*raw)(void)) {
  if (hub) __atomic_store_n(&hub_exit_hook, hub, __ATOMIC_RELEASE);
  if (raw) __atomic_store_n(&raw_exit_hook, raw, __ATOMIC_RELEASE);
}

static void thread_ends(void *unused) {
  (void)unused;
  evg_stays_foreign = true;
  void (*hub)(void) = __atomic_load_n(&hub_exit_hook, __ATOMIC_ACQUIRE);
  void (*raw)(void) = __atomic_load_n(&raw_exit_hook, __ATOMIC_ACQUIRE);
  if (evg_self.hub_object && hub) hub();
  if (evg_self.raw_object && raw) raw();
  evg_detach();
}

#if EVG_TSAN
// In the child of a fork of several threads the sanitizer looks away from the fiber that forked. It does not from the
// others, takes their switches for races, and fails in the middle of the reports. So it is told to look away from each.
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);

static bool has_forked;
static bool is_ignored[1 << 16];  // by the context's id

static void ignore_after_fork(const evg_context *context) {
  bool *ignored = &is_ignored[context->id % (1 << 16)];
  if (!has_forked || *ignored) return;
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  *ignored = true;
}
#endif

static bool goes_on(const evg_context *context) {
  const evg_thread *self = &evg_self;
  if (context == self->current || context == self->hub) return true;
  if (context->is_raw) return context->state == EVG_SUSPENDED;
  return self->current->owner && context->owner == self->current->owner;
}

void evg_lose_others(void) {
  evg_thread *self = &evg_self;
#if EVG_TSAN
  has_forked = is_ignored[self->current->id % (1 << 16)] = true;
#endif
  self->ready_head = self->ready_tail = NULL;
  self->ready_count = 0;
  if (!goes_on(&self->main)) self->main.state = EVG_LOST;
  for (chunk *c = chunks; c; c = c->next) {
    for (int i = 0; i < CHUNK; i++) {
      evg_context *context = &c->contexts[i];
      if (context->state == EVG_FREE || context->state == EVG_LOST || goes_on(context)) continue;
      context->state = EVG_LOST;
      self->live--;
      if (context->stack_low && !context->lacks_stack) self->stacks_in_use--;
    }
  }
}

static void prepare_process(void) {
  long page = sysconf(_SC_PAGESIZE);
  if (page > (long)least_stack) least_stack = (uint32_t)page;
  pthread_key_create(&exit_key, thread_ends);
}

void evg_attach(bool swaps_words) {
  evg_thread *self = &evg_self;
  if (self->current) return;
  self->main.state = EVG_RUNNING;
  self->main.thread = self;
  pthread_attr_t attributes;
#if defined(__linux__)
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void *low;
    size_t size;
    pthread_attr_getstack(&attributes, &low, &size);
    self->main.stack_low = low;
    self->main.stack_size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
    pthread_attr_destroy(&attributes);
  }
#endif
#if EVG_TSAN
  self->main.sanitizer = __tsan_get_current_fiber();
#endif
  self->on_valgrind = RUNNING_ON_VALGRIND;
  self->swaps_words = swaps_words && evg_words_attach(self);
  self->calls_runtime = !self->swaps_words;
  evg_exceptions_attach(self);
  self->place_of_errno = &errno;
  const char *accesses = getenv("EVERGREEN_EXCLUSIVITY");
#if DEBUG
  self->shares_accesses = self->swaps_words && !(accesses && strcmp(accesses, "isolated") == 0);
#else
  self->shares_accesses = self->swaps_words && accesses && strcmp(accesses, "shared") == 0;
#endif
  reserve_stack = evg_stack_acquire(RESERVE_SHIFT);
  evg_overflow_thread_attach();
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare_process);
  pthread_setspecific(exit_key, self);
  self->current = &self->main;
}

void evg_detach(void) {
  evg_thread *self = &evg_self;
  if (!self->current) return;
  if (reserve_stack) evg_stack_release(reserve_stack, RESERVE_SHIFT);
  reserve_stack = NULL;
  evg_overflow_thread_detach();
  evg_stacks_unmap();
  while (chunks) {
    chunk *next = chunks->next;
    free(chunks);
    chunks = next;
  }
  pool = NULL;
  made = 0;
  free(self->main.name);
  pthread_setspecific(exit_key, NULL);
  memset(self, 0, sizeof *self);
}

// MARK: The switch

static void context_main(void *argument);

static void take_back(evg_context *context) {
  if (context->lacks_stack) {
#if EVG_ASAN
    __asan_unpoison_memory_region(context->stack_low, context->stack_size);
#endif
  } else if (context->stack_low) {
#if EVG_ASAN
    // Its last frames never returned: their red zones are still poisoned.
    __asan_unpoison_memory_region(context->stack_low, context->stack_size);
#endif
    if (EVG_UNLIKELY(evg_self.on_valgrind)) VALGRIND_STACK_DEREGISTER(context->valgrind_id);
    evg_stack_release(context->stack_low, (unsigned)__builtin_ctz(context->stack_size));
    evg_self.stacks_in_use--;
  }
#if EVG_TSAN
  if (context->sanitizer) __tsan_destroy_fiber(context->sanitizer);
  context->sanitizer = NULL;
#endif
  evg_context_free(context);
}

static inline void take_back_finished(evg_thread *self) {
  evg_context *finished = self->finished;
  if (EVG_UNLIKELY(finished != NULL)) {
    self->finished = NULL;
    take_back(finished);
  }
}

static __attribute__((noinline)) void give_stack(evg_context *context) {
  uint8_t *low = evg_stack_acquire((unsigned)__builtin_ctz(context->stack_size));
  if (EVG_UNLIKELY(!low)) {
    if (!reserve_stack) {
      fprintf(stderr, "evergreen: fatal: no memory for the stack of greenlet %u: %s\n",
              context->id, strerror(evg_stack_error()));
      abort();
    }
    context->lacks_stack = true;
    low = reserve_stack;
    context->stack_size = 1u << RESERVE_SHIFT;
  } else {
    evg_self.stacks_in_use++;
    if (EVG_UNLIKELY(evg_self.on_valgrind)) {
      context->valgrind_id = VALGRIND_STACK_REGISTER(low, low + context->stack_size);
    }
  }
  context->stack_low = low;
  // All stacks lie alike in their pages, so their tops would compete for the same lines of the
  // cache. Sixteen different beginnings spread them; what is left of the page is still enough for
  // a greenlet that sleeps.
  size_t color = (context->id % 16) * 128;
  context->stack_pointer =
      evg_first_frame(low + context->stack_size - color, context_main, context);
#if EVG_TSAN
  context->sanitizer = __tsan_create_fiber(0);
  if (has_forked) is_ignored[context->id % (1 << 16)] = false;
#endif
}

static inline void exchange_word(void **word, void **kept, void *next) {
  *kept = *word;
  *word = next;
}

/// What belongs to the greenlet and lies in the thread: out with the one's, in with the other's.
static inline void exchange_words(evg_thread *self, evg_context *from, evg_context *to) {
  if (EVG_LIKELY(self->swaps_words)) {
    void **accesses = self->words[EVG_WORD_ACCESSES];
    if (EVG_UNLIKELY(self->shares_accesses)) {
      if (*accesses) evg_access_check(from);
    } else {
      exchange_word(accesses, &from->words[EVG_WORD_ACCESSES], to->words[EVG_WORD_ACCESSES]);
    }
    for (int i = EVG_WORD_TASK; i < EVG_WORD_COUNT; i++) {
      exchange_word(self->words[i], &from->words[i], to->words[i]);
    }
  } else if (self->calls_runtime) {
    swift_task_exitThreadLocalContext((char *)&from->words[0]);
    swift_task_enterThreadLocalContext((char *)&to->words[0]);
  }
}

/// Only this thread writes it; the watchdog reads it from another.
static inline void count_switch(evg_thread *self) {
  __atomic_store_n(&self->switches, self->switches + 1, __ATOMIC_RELAXED);
}

static inline void tell_of_switch(const evg_thread *self, const evg_context *from,
                                  const evg_context *to) {
  if (EVG_UNLIKELY(self->on_switch != NULL)) self->on_switch(from, to);
}

static inline bool has_exceptions(const evg_thread *self) {
  const evg_exceptions *exceptions = self->exceptions;
  return ((uintptr_t)exceptions->caught | exceptions->uncaught) != 0;
}

static void transfer(evg_context *from, evg_context *to);

/// From inside a C++ handler, or while an exception unwinds the stack; see exceptions.c.
static __attribute__((noinline, cold)) void transfer_with_exceptions(
    evg_context *from, evg_context *to) {
  evg_exceptions *exceptions = evg_self.exceptions, kept = *exceptions;
  *exceptions = (evg_exceptions){NULL, 0};
  transfer(from, to);
  *exceptions = kept;
}

static __attribute__((noinline)) void transfer(evg_context *from, evg_context *to) {
  evg_thread *self = &evg_self;
  if (EVG_UNLIKELY(has_exceptions(self))) return transfer_with_exceptions(from, to);
  from->saved_errno = *self->place_of_errno;
  tell_of_switch(self, from, to);
  if (EVG_UNLIKELY(to->stack_pointer == NULL)) give_stack(to);
  exchange_words(self, from, to);
  to->state = EVG_RUNNING;
  self->current = to;
  count_switch(self);
#if EVG_ASAN
  __sanitizer_start_switch_fiber(
      from->state == EVG_FINISHED ? NULL : &from->sanitizer, to->stack_low, to->stack_size);
#endif
#if EVG_TSAN
  __tsan_switch_to_fiber(to->sanitizer, 0);
#endif
  evg_switch_stack(&from->stack_pointer, to->stack_pointer);
#if EVG_ASAN
  __sanitizer_finish_switch_fiber(from->sanitizer, NULL, NULL);
#endif
#if EVG_TSAN
  ignore_after_fork(from);
#endif
  take_back_finished(self);
  *self->place_of_errno = from->saved_errno;
}

/// Where control goes when nothing is ready.
static inline evg_context *home(evg_thread *self) { return self->hub ? self->hub : &self->main; }

/// What a context that is about to run touches first is most likely cold: the frames in which it
/// waited, and what it said of the wait.
static inline void prefetch(const evg_context *context) {
  const char *frames = context->stack_pointer;
  if (!frames) return;  // has never run; and to look for what is at NULL takes time, too
  for (int i = 0; i < 8; i++) __builtin_prefetch(frames + i * LINE);
  __builtin_prefetch(&context->wait_text, 1);
}

/// The next context to run: the first that is ready while the budget lasts, else the hub.
static inline evg_context *take_next(evg_thread *self) {
  evg_context *next = self->ready_head;
  if (EVG_LIKELY(next != NULL) && EVG_LIKELY(--self->budget >= 0)) {
    self->ready_head = next->next;
    self->ready_count--;
    if (next->next) prefetch(next->next);
    return next;
  }
  return home(self);
}

static void context_main(void *argument) {
  evg_context *context = argument;
  evg_thread *self = &evg_self;
#if EVG_ASAN
  __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
#if EVG_TSAN
  ignore_after_fork(context);
#endif
  take_back_finished(self);
  errno = 0;
  for (;;) {
    context->entry(context);  // all its frames are gone now; nothing is retained by a dead stack
    evg_context *next = EVG_UNLIKELY(context->is_followed) ? context->successor
                        // The reserve must be free before another one may need it.
                        : context->lacks_stack ? home(self) : take_next(self);
    if (next->stack_pointer != NULL || next->stack_size != context->stack_size ||
        context->lacks_stack || next == context) {
      context->state = EVG_FINISHED;
      self->finished = context;
      transfer(context, next);
      abort();  // nobody switches to a finished context
    }
    context->state = EVG_FINISHED;
    tell_of_switch(self, context, next);
    // The next has never run: it takes over this stack.
    next->stack_low = context->stack_low;
    if (EVG_UNLIKELY(self->on_valgrind)) next->valgrind_id = context->valgrind_id;
#if EVG_TSAN
    next->sanitizer = context->sanitizer;
    if (has_forked) is_ignored[next->id % (1 << 16)] = is_ignored[context->id % (1 << 16)];
    context->sanitizer = NULL;
#elif EVG_ASAN
    next->sanitizer = NULL;
#endif
    exchange_words(self, context, next);
    // It has jumped out of a C++ handler.
    if (EVG_UNLIKELY(has_exceptions(self))) *self->exceptions = (evg_exceptions){NULL, 0};
    evg_context_free(context);
    evg_reset_float_environment();
    errno = 0;
    next->state = EVG_RUNNING;
    self->current = next;
    count_switch(self);
    context = next;
  }
}

void evg_switch(evg_context *to) {
  evg_context *from = evg_self.current;
  if (to->is_raw) to->owner = from->owner;
  to->resumer = from;
  to->resumer_generation = from->generation;
  transfer(from, to);
}

bool evg_switch_plainly(evg_context *to) {
  evg_thread *self = &evg_self;
  evg_context *from = self->current;
  if (to->state != EVG_SUSPENDED || to->thread != self || !from || !from->raw || from->is_orphan ||
      from->lacks_stack || __atomic_load_n(&self->raw_attention, __ATOMIC_RELAXED)) {
    return false;
  }
  from->state = EVG_SUSPENDED;
  evg_switch(to);
  return true;
}

void evg_park(void) {
  evg_thread *self = &evg_self;
  evg_context *from = self->current;
  evg_context *to = take_next(self);
  if (EVG_UNLIKELY(to == from)) {  // made ready before it had left, and alone in the queue
    from->state = EVG_RUNNING;
    return;
  }
  transfer(from, to);
}

void evg_yield(void) {
  evg_thread *self = &evg_self;
  if (!self->ready_head && --self->budget >= 0) {
    count_switch(self);  // not blocked, only alone
    return;
  }
  evg_ready(self->current);
  evg_park();
}

void evg_ready_promote(uint32_t place) {
  evg_thread *self = &evg_self;
  evg_context *before = self->ready_head;
  if (place == 0 || place >= self->ready_count) return;
  while (--place > 0) before = before->next;
  evg_context *chosen = before->next;
  before->next = chosen->next;
  if (self->ready_tail == chosen) self->ready_tail = before;
  chosen->next = self->ready_head;
  self->ready_head = chosen;
}

void evg_run_ready(int32_t budget) {
  evg_thread *self = &evg_self;
  self->budget = budget;
  if (!self->ready_head) return;
  evg_context *hub = self->current;
  evg_context *next = take_next(self);
  if (next == hub) return;
  hub->state = EVG_SUSPENDED;
  transfer(hub, next);
}
