// Evergreen: what is patched.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#include "gate.h"

#include <dlfcn.h>
#include <unistd.h>

_Atomic uint32_t evg_families;

void evg_patch_set(uint32_t families) {
  if (families && !evg_patch_families()) evg_wrap_handlers();
  atomic_store_explicit(&evg_families, families, memory_order_release);
}

uint32_t evg_patch_families(void) {
  return atomic_load_explicit(&evg_families, memory_order_relaxed);
}

const char *evg_patch_bypassed(const char **where) {
  static const struct {
    const char *name;
    void *own;
  } samples[] = {
    {"read", (void *)read}, {"recv", (void *)recv}, {"poll", (void *)poll},
    {"nanosleep", (void *)nanosleep}, {"getaddrinfo", (void *)getaddrinfo},
  };
  Dl_info own, found;
  if (!dladdr((void *)evg_patch_bypassed, &own)) return NULL;
  for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
    void *global = dlsym(RTLD_DEFAULT, samples[i].name);
    if (global && dladdr(global, &found) && found.dli_fbase != own.dli_fbase) {
      *where = found.dli_fname;
      return samples[i].name;
    }
  }
  return NULL;
}

#else  // nothing is patched
#include "CMonkey.h"
void evg_patch_set(uint32_t families) { (void)families; }
uint32_t evg_patch_families(void) { return 0; }
const char *evg_patch_bypassed(const char **where) {
  *where = "this system's libc, which is not patched here";
  return "read";
}

#endif
