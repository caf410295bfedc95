// Evergreen: descriptors of the library's own, in programs that must not notice them.
// SPDX-License-Identifier: MIT
//
// An unmodified program that runs with the patch preloaded (EvergreenPreload) may close all descriptors
// from 3 on, or close 0 and expect the next file to be 0. So there the library's own, those of the loops
// foremost, are moved up out of the way, and calls of the program that would end one pass over it. In
// other programs nothing of this happens.

#ifndef EVERGREEN_CDESCRIPTORS_H
#define EVERGREEN_CDESCRIPTORS_H

#include <stdbool.h>
#include <stdint.h>

/// Whether this process keeps them apart. Set once, before there are any.
extern bool evg_keeps_apart;

/// How many calls of this thread are at work on descriptors of the library's own.
extern __thread uint32_t evg_own_works __attribute__((tls_model("initial-exec")));

static inline void evg_own_work_begins(void) { evg_own_works++; }
static inline void evg_own_work_ends(void) { evg_own_works--; }

/// Moves a new descriptor up, and remembers it. Answers its number, or -1 if it was given that; it
/// stays where it is if there is no room. Always closed in an exec. errno stays as it is.
int evg_keep_apart(int fd);

/// Whether it is one of those.
bool evg_is_kept_apart(int fd);

/// The same for the price of one look, where there are none.
static inline bool evg_is_own(int fd) {
  return __builtin_expect(evg_keeps_apart, 0) && evg_is_kept_apart(fd);
}

/// The first of them from `first` to `last`; -1 if there is none.
int evg_first_own(unsigned first, unsigned last);

/// About to be closed.
void evg_forget_own(int fd);

/// Closes one that is kept apart, or none of ours where nothing is.
void evg_close_own(int fd);

#endif
