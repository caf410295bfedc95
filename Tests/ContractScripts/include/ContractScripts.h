// Evergreen: scripts that call libc, and tell all that it answers.
// SPDX-License-Identifier: MIT
//
// Each is run twice: as it is, on a thread, and patched, in a greenlet. What it has told must be the
// same, byte for byte.

#ifndef CONTRACT_SCRIPTS_H
#define CONTRACT_SCRIPTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { MOST_PEERS = 16, STORY_SIZE = 65536 };

/// What a script tells, and who helps it.
typedef struct contract_log {
  char story[STORY_SIZE];
  size_t length;
  pthread_t peers[MOST_PEERS];
  int peer_count;
  pthread_t self;
} contract_log;

typedef struct contract_script {
  const char *_Nonnull name;
  void (*_Nonnull run)(contract_log *_Nonnull);
  /// It waits at least once, so that others must be able to run.
  bool waits;
  /// It is about locks of threads, which are patched apart.
  bool locks;
} contract_script;

extern const contract_script *const _Nonnull contract_scripts;
extern const int contract_script_count;

/// Runs a script, and waits for its peers. Returns what it has told.
const char *_Nonnull contract_run(
  const contract_script *_Nonnull script, contract_log *_Nonnull log);

#endif
