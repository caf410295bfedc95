// Evergreen: what each patched call begins with.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CMONKEY_GATE_H
#define EVERGREEN_CMONKEY_GATE_H

#include "green.h"

#include "CMonkey.h"
#include "real.h"

/// A definition that takes the place of libc's, also where symbols are hidden by default.
#define EVG_HOOK __attribute__((visibility("default"), used))

extern _Atomic uint32_t evg_families;

/// Which of the families are patched.
static inline uint32_t evg_patched(uint32_t families) {
  return atomic_load_explicit(&evg_families, memory_order_relaxed) & families;
}

/// Whether a greenlet calls, and the family is patched.
static inline bool evg_is_green(uint32_t family) { return evg_patched(family) && evg_in_greenlet(); }

#endif
