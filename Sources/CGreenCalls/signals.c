// Evergreen: handlers of signals, and the calls that they interrupt.
// SPDX-License-Identifier: MIT
//
// A handler may interrupt a greenlet anywhere, also while it hands over to another: what it calls
// must not wait. And a greenlet that waits in a patched call sees a handler's run as a thread would:
// its call fails with EINTR, unless the handler was installed with SA_RESTART and the call is one of
// those that go on then.
//
// So handlers are called through `handle`, which notes both. Whoever asks for a handler is told the
// one that was installed.

#ifdef __linux__

#include "green.h"
#include "parking.h"

#include <string.h>

__thread uint32_t evg_handlers;

// Runs of handlers in this thread so far: of all, and of those that let no call go on.
static __thread volatile uint32_t runs, breaking_runs;
static __thread evg_wait *volatile waits;

typedef struct handler {
  void (*_Atomic call)(int, siginfo_t *, void *);
  _Atomic int flags;
} handler;

static handler handlers[_NSIG];

static void handle(int signal, siginfo_t *info, void *context) {
  const handler *handler = &handlers[signal];
  void (*call)(int, siginfo_t *, void *) = handler->call;
  const int flags = handler->flags;
  runs++;
  if (!(flags & SA_RESTART)) breaking_runs++;
  // Not decremented: the handler may leave by siglongjmp, and then the hub's next pass resets it.
  const uint32_t before = evg_handlers;
  evg_handlers = before + 1;
  if (flags & SA_SIGINFO) call(signal, info, context);
  else ((void (*)(int))(void *)call)(signal);
  evg_handlers = before;
  if (!waits) return;
  const int error = errno;
  evg_hub->wake_hub();
  errno = error;
}

/// Signals of faults are left alone: those who handle them look at the place.
static bool is_wrapped(int signal) {
  switch (signal) {
    case SIGSEGV: case SIGBUS: case SIGILL: case SIGFPE: case SIGTRAP: case SIGABRT: case SIGSYS:
      return false;
    default: return signal > 0 && signal < _NSIG;
  }
}

static bool is_function(const struct sigaction *action) {
  return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN
    && action->sa_handler != SIG_HOLD && action->sa_sigaction != handle;
}

/// What is to be installed for `action`.
static struct sigaction wrapped(int signal, const struct sigaction *action) {
  struct sigaction own = *action;
  if (!is_function(action)) return own;
  handlers[signal].call = action->sa_sigaction;
  handlers[signal].flags = action->sa_flags;
  own.sa_sigaction = handle;
  own.sa_flags |= SA_SIGINFO;
  return own;
}

int evg_set_action(
    int signal, const struct sigaction *action, struct sigaction *before, bool wraps) {
  if (!is_wrapped(signal)) return real(sigaction)(signal, action, before);
  // `action` and `before` may be the same.
  const handler last = {handlers[signal].call, handlers[signal].flags};
  struct sigaction own, old;
  if (action) own = wraps ? wrapped(signal, action) : *action;
  const int result = real(sigaction)(signal, action ? &own : NULL, &old);
  if (result != 0 || !before) return result;
  *before = old;
  if (old.sa_sigaction == handle) {
    before->sa_sigaction = last.call;
    before->sa_flags = (old.sa_flags & ~SA_SIGINFO) | (last.flags & SA_SIGINFO);
  }
  return result;
}

sighandler_t evg_set_handler(int signal, sighandler_t call, int flags, bool wraps) {
  if (call == SIG_ERR || signal < 1 || signal >= _NSIG) {
    errno = EINVAL;
    return SIG_ERR;
  }
  struct sigaction action = {.sa_handler = call, .sa_flags = flags}, before;
  if (!(flags & SA_NODEFER)) sigaddset(&action.sa_mask, signal);
  return evg_set_action(signal, &action, &before, wraps) == 0 ? before.sa_handler : SIG_ERR;
}

void evg_wrap_handlers(void) {
  for (int signal = 1; signal < _NSIG; signal++) {
    struct sigaction action;
    if (!is_wrapped(signal) || real(sigaction)(signal, NULL, &action) != 0) continue;
    if (!is_function(&action)) continue;
    const struct sigaction own = wrapped(signal, &action);
    real(sigaction)(signal, &own, NULL);
  }
}

// MARK: Interrupted calls

void evg_wait_begin(evg_wait *wait, bool restarts) {
  wait->context = evg_self.current;
  wait->restarts = restarts;
  wait->runs = restarts ? breaking_runs : runs;
  wait->previous = NULL;
  wait->next = waits;
  if (waits) waits->previous = wait;
  waits = wait;
  wait->since = __builtin_expect(evg_on_wait != NULL, 0) ? evg_monotonic_now() : 0;
}

void evg_wait_end(evg_wait *wait) {
  if (wait->previous) wait->previous->next = wait->next;
  else waits = wait->next;
  if (wait->next) wait->next->previous = wait->previous;
  wait->context->is_interrupted = false;
  if (__builtin_expect(wait->since != 0, 0)) evg_wait_has_ended(wait->since);
}

bool evg_interrupt_waits(void) {
  static __thread uint32_t runs_seen;
  evg_handlers = 0;
  const bool is_canceled = __builtin_expect(evg_was_canceled != NULL, 0) && evg_was_canceled();
  bool is_any = evg_take_in_woken();
  if (runs == runs_seen && !is_canceled) return is_any;
  runs_seen = runs;
  for (evg_wait *wait = waits; wait; wait = wait->next) {
    if (!is_canceled && wait->runs == (wait->restarts ? breaking_runs : runs)) continue;
    wait->context->is_interrupted = true;
    is_any |= evg_wake(wait->context);
  }
  return is_any;
}

#endif
