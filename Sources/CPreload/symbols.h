// Evergreen: taking over functions of libc that CMonkey leaves alone.
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CPRELOAD_SYMBOLS_H
#define EVERGREEN_CPRELOAD_SYMBOLS_H

#include <dlfcn.h>

/// A function that is known to the linker as `name`.
#define SYMBOL(result, name, ...)                                                                  \
  result hook_##name(__VA_ARGS__) __asm__(#name);                                                  \
  __attribute__((visibility("default"), used)) result hook_##name(__VA_ARGS__)

/// libc's own, of a name that is taken over above.
#define REAL(name)                                                                                 \
  ({                                                                                               \
    static __typeof__(hook_##name) *_Atomic found_;                                                \
    if (!found_) found_ = (__typeof__(hook_##name) *)dlsym(RTLD_NEXT, #name);                      \
    found_;                                                                                        \
  })

#endif
