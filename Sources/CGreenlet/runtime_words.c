// Evergreen: the words that the Swift runtime keeps per thread and that belong to a greenlet.
// SPDX-License-Identifier: MIT
//
// The runtime offers no way to set them, and their symbols are local. So each is found once per
// process by what it does: on a thread that runs nothing else, something is done that must change
// the word, and the thread-local memory of every module is searched for the change.
//
//   1. An exclusive access begins: one word now holds the address of its record.
//   2. A task local is bound outside a Task: one word turned from NULL to a list with our key.
//   3. Inside a job of a Task: one word equals the current Task, one points into this stack.
//   4. A task local is bound inside it: the Task's memory tells where its list begins.
//   5. Copy a binding, read it back: only then is the layout of a binding trusted.
//
// What was found is kept as (module, offset), which holds for every thread. Where a step fails,
// nothing is swapped, exclusivity goes through the runtime's exported functions, and task locals
// are not inherited.

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#if defined(__linux__)
#include <link.h>
#include <malloc.h>

enum { MODULES = 64, MODULE_BYTES = 4096, ACCESS_MODIFY_TRACKED = 0x21 };

extern const char $sSiN[];  // the metadata of Swift.Int

typedef struct snapshot {
  void **memory;
  size_t words;
  void *copy[MODULE_BYTES / sizeof(void *)];
} snapshot;

typedef struct snapshots {
  size_t count;
  snapshot modules[MODULES];
} snapshots;

/// Where a word lies in the thread-local memory of whatever thread.
static struct {
  uintptr_t module;
  size_t offset;
  bool found;
} places[EVG_WORD_COUNT];
static long task_locals_offset = -1;  // of the list's head in a Task
static bool copies_task_locals;
static snapshots *before_job;

static size_t tls_size(const struct dl_phdr_info *info) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type == PT_TLS) return info->dlpi_phdr[i].p_memsz;
  }
  return 0;
}

static int take_snapshot(struct dl_phdr_info *info, size_t size, void *argument) {
  (void)size;
  snapshots *all = argument;
  size_t bytes = tls_size(info);
  if (info->dlpi_tls_data && bytes && bytes <= MODULE_BYTES && all->count < MODULES) {
    snapshot *module = &all->modules[all->count++];
    module->memory = info->dlpi_tls_data;
    module->words = bytes / sizeof(void *);
    memcpy(module->copy, module->memory, module->words * sizeof(void *));
  }
  return 0;
}

static snapshots *snapshot_all(void) {
  snapshots *all = calloc(1, sizeof *all);
  if (all) dl_iterate_phdr(take_snapshot, all);
  return all;
}

/// The one word that was NULL in the snapshot and passes `test` now; NULL if none or several do.
static void **changed_word(snapshots *all, bool (*test)(void *word, void *argument), void *argument) {
  void **hit = NULL;
  for (size_t m = 0; all && m < all->count; m++) {
    snapshot *module = &all->modules[m];
    for (size_t i = 0; i < module->words; i++) {
      if (module->copy[i] != NULL || !test(module->memory[i], argument)) continue;
      if (hit) return NULL;
      hit = &module->memory[i];
    }
  }
  return hit;
}

typedef struct {
  void **word;
  int which;
} placed;

static int note_place(struct dl_phdr_info *info, size_t size, void *argument) {
  (void)size;
  placed *it = argument;
  char *base = info->dlpi_tls_data, *word = (char *)it->word;
  if (!base || word < base || word >= base + tls_size(info)) return 0;
  places[it->which].module = info->dlpi_addr;
  places[it->which].offset = (size_t)(word - base);
  places[it->which].found = true;
  return 1;
}

static bool note(int which, void **word) {
  if (!word) return false;
  placed it = {word, which};
  dl_iterate_phdr(note_place, &it);
  return places[which].found;
}

static int attach_module(struct dl_phdr_info *info, size_t size, void *argument) {
  (void)size;
  evg_thread *self = argument;
  for (int i = 0; i < EVG_WORD_COUNT; i++) {
    if (places[i].found && info->dlpi_tls_data && places[i].module == info->dlpi_addr) {
      self->words[i] = (void **)((char *)info->dlpi_tls_data + places[i].offset);
    }
  }
  return 0;
}

/// Makes the thread-local memory of the runtime's libraries exist in this thread.
static void touch_runtime(void) {
  uintptr_t record[3] = {0};
  int victim = 0;
  swift_beginAccess(&victim, record, ACCESS_MODIFY_TRACKED, NULL);
  swift_endAccess(record);
  uintptr_t key[2] = {0, 0}, value = 0;
  if (!swift_task_getCurrent()) {
    swift_task_localValuePush(key, &value, $sSiN);
    swift_task_localValuePop();
  }
}

bool evg_words_attach(evg_thread *self) {
  for (int i = 0; i < EVG_WORD_COUNT; i++) {
    if (!places[i].found) return false;
  }
  touch_runtime();
  dl_iterate_phdr(attach_module, self);
  for (int i = 0; i < EVG_WORD_COUNT; i++) {
    if (!self->words[i]) return false;
  }
  return true;
}

// MARK: Probing

static bool is_equal(void *word, void *argument) { return word == argument; }

/// A list of bindings: its first word points to {next, key, type, value...}.
static bool is_list_with_key(void *word, void *argument) {
  if (!word || (uintptr_t)word % sizeof(void *)) return false;
  void ***list = word;
  return list[0] && list[0][1] == argument;
}

static bool is_above_in_stack(void *word, void *argument) {
  uintptr_t here = (uintptr_t)argument, there = (uintptr_t)word;
  return there > here && there < here + 64 * 1024;
}

bool evg_words_probe_begin(void) {
  touch_runtime();
  snapshots *all = snapshot_all();
  if (!all) return false;
  uintptr_t record[3] = {0};
  int victim = 0;
  swift_beginAccess(&victim, record, ACCESS_MODIFY_TRACKED, NULL);
  bool found = note(EVG_WORD_ACCESSES, changed_word(all, is_equal, record));
  swift_endAccess(record);

  uintptr_t key[2] = {0, 0}, value = 42;
  swift_task_localValuePush(key, &value, $sSiN);
  found = note(EVG_WORD_TASK_LOCALS, changed_word(all, is_list_with_key, key)) && found;
  swift_task_localValuePop();
  free(all);
  before_job = snapshot_all();
  return found && before_job;
}

static bool copy_test(void) {
  uintptr_t key[2] = {0, 0}, value = 4242;
  evg_thread probe = {0};
  if (!evg_words_attach(&probe)) return false;
  void **task = probe.words[EVG_WORD_TASK], **locals = probe.words[EVG_WORD_TASK_LOCALS];
  void *saved_task = *task, *saved_locals = *locals;
  *task = NULL;  // as in a greenlet
  *locals = NULL;
  evg_thread saved_self = evg_self;
  memcpy(evg_self.words, probe.words, sizeof probe.words);
  swift_task_localValuePush(key, &value, $sSiN);
  void *copy = evg_task_locals_copy();
  swift_task_localValuePop();
  bool same = copy != NULL && *locals == NULL;
  if (same) {
    *locals = copy;
    uintptr_t *seen = swift_task_localValueGet(key);
    same = seen && *seen == value;
    evg_task_locals_drop();
    same = same && *locals == NULL;
  }
  evg_self = saved_self;
  *task = saved_task;
  *locals = saved_locals;
  return same;
}

bool evg_words_probe_in_job(void) {
  void *task = swift_task_getCurrent();
  snapshots *all = before_job;
  before_job = NULL;
  if (!task || !all) return false;
  bool found = note(EVG_WORD_TASK, changed_word(all, is_equal, task));
  found = note(EVG_WORD_EXECUTOR,
               changed_word(all, is_above_in_stack, __builtin_frame_address(0))) && found;
  free(all);
  if (!found) return false;

  size_t words = malloc_usable_size(task) / sizeof(void *);
  if (words > 64) words = 64;
  void *copy[64];
  memcpy(copy, task, words * sizeof(void *));
  uintptr_t key[2] = {0, 0}, value = 42;
  swift_task_localValuePush(key, &value, $sSiN);
  char *binding = (char *)swift_task_localValueGet(key) - 3 * sizeof(void *);
  for (size_t i = 0; i < words && task_locals_offset < 0; i++) {
    void *word = ((void **)task)[i];
    if (word != copy[i] && word == binding) task_locals_offset = (long)(i * sizeof(void *));
  }
  swift_task_localValuePop();
  copies_task_locals = true;
  copies_task_locals = copy_test();
  return true;
}

// MARK: Task locals

typedef struct binding {
  uintptr_t next;  // the next binding, with flags in the low bits
  const void *key;
  const void **type;
  // the value follows, aligned as its type wants
} binding;

enum { MARKER = 4, STOP = 6, FLAGS = 7 };
enum { WITNESS_COPY = 2, WITNESS_SIZE = 8, WITNESS_FLAGS = 10 };

static bool bound_before(const binding *from, const binding *to) {
  for (const binding *b = from; b != to; b = (const binding *)(b->next & ~(uintptr_t)FLAGS)) {
    if (!(b->next & MARKER) && b->key == to->key) return true;
  }
  return false;
}

void *evg_task_locals_copy(void) {
  void **fallback = evg_self.words[EVG_WORD_TASK_LOCALS];
  if (!fallback || !copies_task_locals) return NULL;
  void *task = *evg_self.words[EVG_WORD_TASK];
  binding *head;
  if (task) {
    if (task_locals_offset < 0) return NULL;
    head = *(binding **)((char *)task + task_locals_offset);
  } else {
    if (!*fallback) return NULL;
    head = *(binding **)*fallback;
  }
  binding *first = NULL, *last = NULL;
  for (binding *b = head; b; b = (binding *)(b->next & ~(uintptr_t)FLAGS)) {
    if (b->next & MARKER) {
      if ((b->next & STOP) == STOP) break;
      continue;
    }
    if (bound_before(head, b)) continue;
    void **witnesses = (void **)b->type[-1];
    size_t mask = (size_t)witnesses[WITNESS_FLAGS] & 0xff;
    size_t offset = (sizeof(binding) + mask) & ~mask;
    binding *copy = malloc(offset + (size_t)witnesses[WITNESS_SIZE]);
    if (!copy) break;
    copy->next = 0;
    copy->key = b->key;
    copy->type = b->type;
    void *(*initialize)(void *, void *, const void *) =
        (void *(*)(void *, void *, const void *))witnesses[WITNESS_COPY];
    initialize((char *)copy + offset, (char *)b + offset, b->type);
    if (last) {
      last->next = (uintptr_t)copy;
    } else {
      first = copy;
    }
    last = copy;
  }
  if (!first) return NULL;
  void **storage = malloc(sizeof *storage);
  if (storage) *storage = first;
  return storage;
}

#else  // no way to find the words here

bool evg_words_attach(evg_thread *self) {
  (void)self;
  return false;
}
bool evg_words_probe_begin(void) { return false; }
bool evg_words_probe_in_job(void) { return false; }
void *evg_task_locals_copy(void) { return NULL; }

#endif

void evg_task_locals_drop(void) {
  void **fallback = evg_self.words[EVG_WORD_TASK_LOCALS];
  while (fallback && *fallback) swift_task_localValuePop();
}

bool evg_in_task(void) { return swift_task_getCurrent() != NULL; }

// MARK: Accesses that span a switch

enum { ACCESS_ACTION_MASK = 1, REPORTED = 64 };

static evg_access_report access_report;

void evg_set_access_report(evg_access_report report) {
  __atomic_store_n(&access_report, report, __ATOMIC_RELEASE);
}

void evg_access_check(evg_context *context) {
  static const void *reported[REPORTED];  // racing threads may report a place twice: harmless
  evg_access_report report = __atomic_load_n(&access_report, __ATOMIC_ACQUIRE);
  if (!report || !context->stack_low || context->state == EVG_FINISHED) return;
  uintptr_t *record = *evg_self.words[EVG_WORD_ACCESSES];
  for (; record; record = (uintptr_t *)(record[2] & ~(uintptr_t)ACCESS_ACTION_MASK)) {
    uint8_t *place = (uint8_t *)record;
    if (place < context->stack_low || place >= context->stack_low + context->stack_size) continue;
    const void *begun = (const void *)record[1];
    for (int i = 0; i < REPORTED; i++) {
      if (reported[i] == begun) return;
      if (reported[i]) continue;
      reported[i] = begun;
      report(context, (const void *)record[0], begun, record[2] & 1);
      break;
    }
  }
}
