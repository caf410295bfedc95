// Evergreen: memory for stacks, in slabs, with a guard below each, pooled and trimmed when idle.
// SPDX-License-Identifier: MIT
//
//   slab   |guard| stack 0        |guard| stack 1        |guard| ...
//           64 KiB  2^shift bytes
//
// The memory is reserved, not committed: a stack costs the pages that it has touched. The guard is
// 64 KiB because Swift does not probe the stack: a large frame steps over a smaller one into the
// neighbour. `MADV_GUARD_INSTALL` (Linux 6.13) makes a guard without splitting the mapping, so a
// million stacks are some dozens of mappings; older kernels get `mprotect`, two mappings a stack,
// and meet `vm.max_map_count` (65,530) at some 32,000 stacks.
//
// The list of free stacks lies outside them, so that an idle one can be given back whole.

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#ifndef MAP_STACK
#define MAP_STACK 0
#endif

enum { CLASSES = EVG_STACK_MAX_SHIFT - EVG_STACK_MIN_SHIFT + 1 };

typedef struct slab {
  struct slab *next;
  uint8_t *memory;
  size_t size;
} slab;

/// The stacks of one size.
typedef struct stack_class {
  uint8_t *fresh;  // the first byte of the slab's part that was never handed out
  size_t fresh_count;
  size_t slab_stacks;  // how many the last slab held
  uint8_t **free;      // [0, cold) hold no memory, [cold, count) may
  size_t count, cold, capacity;
  size_t made;         // stacks ever carved: `free` never holds more
} stack_class;

static __thread stack_class classes[CLASSES];
static __thread slab *slabs;
static __thread int last_error;
static __thread size_t warm_total;

static bool guard_with_mprotect(void) {
  const char *wanted = getenv("EVERGREEN_GUARD");
  return wanted && strcmp(wanted, "mprotect") == 0;
}

static int install_guard(uint8_t *guard) {
  static int method;  // 0 unknown, 1 madvise, 2 mprotect; each thread finds the same
  int how = __atomic_load_n(&method, __ATOMIC_RELAXED);
  if (how != 2 && !(how == 0 && guard_with_mprotect())) {
    if (madvise(guard, EVG_GUARD_SIZE, MADV_GUARD_INSTALL) == 0) {
      if (how == 0) __atomic_store_n(&method, 1, __ATOMIC_RELAXED);
      return 0;
    }
    if (errno != EINVAL) return -1;
  }
  __atomic_store_n(&method, 2, __ATOMIC_RELAXED);
  return mprotect(guard, EVG_GUARD_SIZE, PROT_NONE);
}

/// Reserves room for the next stacks, twice as many as the last time, 1 GiB at most; fewer where
/// the address space is limited.
static bool add_slab(stack_class *c, unsigned shift) {
  size_t stride = ((size_t)1 << shift) + EVG_GUARD_SIZE;
  size_t stacks = c->slab_stacks ? c->slab_stacks * 2 : 16;
  size_t most = ((size_t)1 << 30) / stride;
  if (stacks > most) stacks = most ? most : 1;
  slab *s = malloc(sizeof *s);
  if (!s) return false;
  for (;; stacks /= 2) {
    s->size = stacks * stride;
    s->memory = mmap(NULL, s->size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (s->memory != MAP_FAILED || errno != ENOMEM || stacks == 1) break;
  }
  if (s->memory == MAP_FAILED) {
    int error = errno;
    free(s);
    errno = error;
    return false;
  }
#ifdef MADV_NOHUGEPAGE
  madvise(s->memory, s->size, MADV_NOHUGEPAGE);  // one touched page must not become 2 MiB
#endif
  s->next = slabs;
  slabs = s;
  c->fresh = s->memory;
  c->fresh_count = stacks;
  c->slab_stacks = stacks;
  return true;
}

uint8_t *evg_stack_acquire(unsigned shift) {
  stack_class *c = &classes[shift - EVG_STACK_MIN_SHIFT];
  if (EVG_LIKELY(c->count)) {
    c->count--;
    if (c->cold > c->count) {
      c->cold = c->count;
    } else {
      warm_total--;
    }
    return c->free[c->count];
  }
  if (!c->fresh_count && !add_slab(c, shift)) {
    last_error = errno;
    return NULL;
  }
  if (c->made == c->capacity) {  // room to give it back must be certain
    size_t capacity = c->capacity ? c->capacity * 2 : 16;
    uint8_t **grown = realloc(c->free, capacity * sizeof *grown);
    if (!grown) {
      last_error = ENOMEM;
      return NULL;
    }
    c->free = grown;
    c->capacity = capacity;
  }
  if (install_guard(c->fresh) != 0) {
    last_error = errno;
    return NULL;
  }
  uint8_t *low = c->fresh + EVG_GUARD_SIZE;
  c->fresh = low + ((size_t)1 << shift);
  c->fresh_count--;
  c->made++;
  return low;
}

void evg_stack_release(uint8_t *low, unsigned shift) {
  stack_class *c = &classes[shift - EVG_STACK_MIN_SHIFT];
  c->free[c->count++] = low;
  warm_total++;
}

size_t evg_stacks_warm(void) { return warm_total; }

size_t evg_stacks_trim(size_t keep, size_t most) {
  size_t trimmed = 0;
  for (int i = 0; i < CLASSES && warm_total > keep && trimmed < most; i++) {
    stack_class *c = &classes[i];
    while (c->cold < c->count && warm_total > keep && trimmed < most) {
      madvise(c->free[c->cold++], (size_t)1 << (i + EVG_STACK_MIN_SHIFT), MADV_DONTNEED);
      warm_total--;
      trimmed++;
    }
  }
  return trimmed;
}

void evg_stacks_unmap(void) {
  while (slabs) {
    slab *next = slabs->next;
    munmap(slabs->memory, slabs->size);
    free(slabs);
    slabs = next;
  }
  for (int i = 0; i < CLASSES; i++) free(classes[i].free);
  memset(classes, 0, sizeof classes);
  warm_total = 0;
}

size_t evg_stack_high_water(const evg_context *context) {
  if (!context->stack_low || context == &evg_self.main) return 0;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t pages = context->stack_size / page;
#if defined(__linux__)
  typedef unsigned char residency;
#else
  typedef char residency;
#endif
  residency *resident = malloc(pages);
  size_t untouched = 0;
  if (resident && mincore(context->stack_low, context->stack_size, resident) == 0) {
    while (untouched < pages && !(resident[untouched] & 1)) untouched++;
  }
  free(resident);
  return (pages - untouched) * page;
}

int evg_stack_error(void) { return last_error; }
