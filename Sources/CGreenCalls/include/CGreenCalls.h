// Evergreen: green forms of libc's blocking calls.
// SPDX-License-Identifier: MIT
//
// `evg_call_read` is `read` for whoever knows that he calls it: where a greenlet calls, that greenlet
// waits, and not its thread; elsewhere it is libc's own. CMonkey calls the same forms on behalf of
// those who know nothing, by taking over libc's names. This module defines none of these.
//
// A form tries so that it cannot block, and while it would, the greenlet waits in its hub. What
// waiting is, Swift says: `evg_patch_hub`. Here nothing is remembered about a descriptor, and none of
// its flags is changed.

#ifndef EVERGREEN_CGREENCALLS_H
#define EVERGREEN_CGREENCALLS_H

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wnullability-completeness"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Calls that belong together: what can be patched by itself.
enum {
  EVG_PATCH_SOCKETS = 1 << 0,  // transfers, connect, accept
  EVG_PATCH_DNS = 1 << 1,
  EVG_PATCH_TIME = 1 << 2,
  EVG_PATCH_SELECT = 1 << 3,
  EVG_PATCH_PROCESS = 1 << 4,
  EVG_PATCH_FILES = 1 << 5,  // pipes, terminals and others that are no sockets; locks of files
  EVG_PATCH_LOCKS = 1 << 6,  // mutexes, conditions, semaphores, ends of threads
};

/// The end of a wait, beside an errno.
enum { EVG_WAIT_OVER = 0, EVG_WAIT_TIME_UP = -1 };

/// A wait without an end.
#define EVG_NEVER UINT64_MAX

/// Work for another thread. `run` must need nothing of the thread that asks for it; `drop` is called
/// instead of the asker's use of the result when the asker has gone.
typedef struct evg_patch_job {
  void (*_Nonnull run)(struct evg_patch_job *_Nonnull);
  void (*_Nonnull drop)(struct evg_patch_job *_Nonnull);
  bool is_look_up;  // for a thread of the resolver's
} evg_patch_job;

enum { EVG_ADDRESS_TEXT = 64 };

/// How a greenlet waits. Deadlines are in nanoseconds of the hub's clock. Each wait answers
/// EVG_WAIT_OVER, EVG_WAIT_TIME_UP or an errno: EINTR after a signal's handler has run, EBADF if the
/// descriptor was closed, ECANCELED or ETIMEDOUT if an error is due in the greenlet.
typedef struct evg_patch_hub {
  /// Gives the calling thread a hub. False if there is none to be had.
  bool (*_Nonnull adopt)(void);
  /// The hub's clock: CLOCK_MONOTONIC, unless a test has another.
  uint64_t (*_Nonnull now)(void);
  /// Until the descriptor is ready for `events`, POLLIN or POLLOUT.
  int (*_Nonnull wait)(int fd, short events, uint64_t deadline);
  /// Until `poll` would report one of them. Answers how many, or the negative of an errno; 0 if
  /// time is up.
  int (*_Nonnull wait_any)(void *_Nullable pollfds, size_t count, uint64_t deadline);
  /// Until the deadline.
  int (*_Nonnull pause)(const char *_Nonnull reason, uint64_t deadline);
  /// Until something wakes the calling greenlet, or the deadline. True if that has come, whatever
  /// came before it.
  bool (*_Nonnull suspend)(const char *_Nonnull reason, int64_t argument, uint64_t deadline);
  /// 0, or why a wait is to end that has brought nothing: an errno.
  int (*_Nonnull leave)(void);
  /// The hub's door for other threads, which is there as long as a greenlet of the hub waits.
  void *_Nonnull (*_Nonnull door)(void);
  /// Has the hub behind a door look around soon. From any thread.
  void (*_Nonnull wake_other)(void *_Nonnull door);
  /// Until `job` has run on another thread; it has been dropped if this answers an errno.
  int (*_Nonnull run)(evg_patch_job *_Nonnull job);
  /// Lets others run.
  void (*_Nonnull give_turn)(void);
  /// 0, or why calls of this greenlet are to fail: an error is due, and one has failed already.
  int (*_Nonnull refusal)(void);
  /// Has the hub look around soon. May be called by a handler of a signal, on the hub's thread.
  void (*_Nonnull wake_hub)(void);
  /// Whether somebody has given the hub a resolver of his own, who is to be asked.
  bool (*_Nonnull has_resolver)(void);
  /// Asks that one. Writes numeric addresses, each EVG_ADDRESS_TEXT bytes behind the one before, into
  /// memory that is zero, and answers how many, or one of the EAI_ errors; with
  /// EAI_SYSTEM, errno is set.
  int (*_Nonnull resolve)(
    const char *_Nonnull node, int family, char *_Nonnull texts, int most);
  /// The descriptor is about to be closed: who waits for it is told.
  void (*_Nonnull forget)(int fd);
} evg_patch_hub;

void evg_patch_hub_set(const evg_patch_hub *_Nonnull hub);

/// Ends those of the waits that handlers of signals have interrupted since. Called by the hub; true if
/// there are any.
bool evg_interrupt_waits(void);

#ifdef __linux__

// MARK: The calls

/// Defined in Swift: calls `evg_patch_hub_set`. Called before the first green call.
void evg_green_prepare(void);

#include "real.h"

#define EVG_CALL(result, name, ...) result evg_call_##name(__VA_ARGS__);
EVG_TRANSFER_FUNCTIONS(EVG_CALL)
EVG_PLAIN_FUNCTIONS(EVG_CALL)
EVG_ENDING_FUNCTIONS(EVG_CALL)
#undef EVG_CALL
/// `fcntl` with whatever it takes behind the command, as a word.
int evg_call_fcntl(int fd, int command, void *argument);
int evg_call_sigaction(int signal, const struct sigaction *action, struct sigaction *before);
__sighandler_t evg_call_signal(int signal, __sighandler_t handler);

#endif

#if defined(__clang__)
#pragma clang diagnostic pop
#endif
#endif
