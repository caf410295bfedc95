// Evergreen: libc's blocking calls, patched.
// SPDX-License-Identifier: MIT
//
// This module defines `read`, `poll`, `sleep` and their like once more. An executable's symbols take
// the place of libc's for every library of the process, so all of them call these. Each goes on to
// libc's own, unless its family is patched and a greenlet calls (gate.h); then it goes on to the
// green form (CGreenCalls). Before the gate nothing is allocated, locked or looked up twice.

#ifndef EVERGREEN_CMONKEY_H
#define EVERGREEN_CMONKEY_H

#include "CGreenCalls.h"

/// Which families are patched. Set it after `evg_patch_hub_set`.
void evg_patch_set(uint32_t families);
uint32_t evg_patch_families(void);

/// The name of a call that other libraries do not get from here, but from elsewhere; NULL if all is
/// well. `where` is the file that defines it.
const char *_Nullable evg_patch_bypassed(const char *_Nullable *_Nonnull where);

#endif
