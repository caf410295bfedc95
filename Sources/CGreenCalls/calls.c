// Evergreen: the calls as those make them who know that they are green.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#include "green.h"

static __attribute__((noinline)) void prepare(void) {
  const int error = errno;
  evg_green_prepare();
  errno = error;
}

static inline bool may_wait(void) {
  if (!evg_in_greenlet()) return false;
  if (__builtin_expect(!__atomic_load_n(&evg_hub, __ATOMIC_ACQUIRE), 0)) prepare();
  return true;
}

#define CALL(result, name, ...)                                                                    \
  result evg_call_##name(EVG_PARAMETERS(__VA_ARGS__)) {                                            \
    return may_wait() ? evg_green_##name(EVG_ARGUMENTS(__VA_ARGS__))                               \
                      : real(name)(EVG_ARGUMENTS(__VA_ARGS__));                                    \
  }
EVG_PLAIN_FUNCTIONS(CALL)
EVG_ENDING_FUNCTIONS(CALL)

#define TRANSFER(result, name, ...)                                                                \
  result evg_call_##name(EVG_PARAMETERS(__VA_ARGS__)) {                                            \
    return may_wait()                                                                              \
      ? evg_green_##name(EVG_ARGUMENTS(__VA_ARGS__), EVG_PATCH_SOCKETS | EVG_PATCH_FILES)          \
      : real(name)(EVG_ARGUMENTS(__VA_ARGS__));                                                    \
  }
EVG_TRANSFER_FUNCTIONS(TRANSFER)

int evg_call_fcntl(int fd, int command, void *argument) {
  return may_wait() ? evg_green_control(fd, command, argument, real(fcntl))
                    : real(fcntl)(fd, command, argument);
}

// Handlers that are set here know that they are: what they call does not wait.

int evg_call_sigaction(int signal, const struct sigaction *action, struct sigaction *before) {
  return evg_set_action(signal, action, before, true);
}

sighandler_t evg_call_signal(int signal, sighandler_t handler) {
  return evg_set_handler(signal, handler, SA_RESTART, true);
}

#endif
