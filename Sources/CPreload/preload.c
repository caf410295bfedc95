// Evergreen: what happens when the library is loaded into a program.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "CPreload.h"

#include "green.h"

#include <CDescriptors.h>
#include <CGreenCalls.h>
#include <CGreenlet.h>
#include <CLibev.h>
#include <CMonkey.h>
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name;
  uint32_t bit;
} families[] = {
  {"sockets", EVG_PATCH_SOCKETS}, {"dns", EVG_PATCH_DNS},         {"time", EVG_PATCH_TIME},
  {"select", EVG_PATCH_SELECT},   {"process", EVG_PATCH_PROCESS}, {"files", EVG_PATCH_FILES},
};
enum { FAMILY_COUNT = sizeof families / sizeof families[0] };

/// Those in a list with commas; all if there is none. What is unknown is the business of whoever set it.
static uint32_t families_in(const char *list) {
  uint32_t bits = 0;
  for (int i = 0; i < FAMILY_COUNT; i++) {
    const size_t length = strlen(families[i].name);
    if (!list) bits |= families[i].bit;
    for (const char *at = list; at && *at;) {
      const size_t size = strcspn(at, ",");
      if (size == length && memcmp(at, families[i].name, size) == 0) bits |= families[i].bit;
      at += size;
      if (*at) at++;
    }
  }
  return bits;
}

// MARK: Swift's backtracer

// Swift's runtime handles faults, also SIGABRT and SIGQUIT, from when it is loaded on. In a program that
// would not have loaded it they are to end the program as ever.

static bool needs_swift(void) {
  struct link_map *program = NULL;
  void *handle = dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD);
  if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &program) != 0 || !program->l_ld) return false;
  const char *names = NULL;
  for (const ElfW(Dyn) *entry = program->l_ld; entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_STRTAB) names = (const char *)entry->d_un.d_ptr;
  }
  for (const ElfW(Dyn) *entry = program->l_ld; names && entry->d_tag != DT_NULL; entry++) {
    const char *name = names + entry->d_un.d_val;
    if (entry->d_tag == DT_NEEDED && strstr(name, "libswiftCore.so")) return true;
  }
  return false;
}

/// Whether a handler came with this library: with the runtime that it needs, or has inside.
static bool came_with_this(const void *handler) {
  Dl_info own, info;
  if (!dladdr(handler, &info) || !dladdr((const void *)needs_swift, &own)) return false;
  return info.dli_fbase == own.dli_fbase || strstr(info.dli_fname, "libswiftCore.so");
}

static void silence_backtracer(void) {
  bool is_any = false;
  for (int signal = 1; signal < SIGRTMIN; signal++) {
    struct sigaction action;
    if (evg_real.sigaction(signal, NULL, &action) != 0) continue;
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
    if (!came_with_this((const void *)action.sa_sigaction)) continue;
    const struct sigaction none = {.sa_handler = SIG_DFL};
    evg_real.sigaction(signal, &none, NULL);
    is_any = true;
  }
  // Its handlers alone had use for a stack of their own.
  if (is_any) sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
}

// MARK: The beginning

/// Whether a variable names this process. Children have it too, and are not meant.
static bool is_for_this_process(const char *variable) {
  const char *process = getenv(variable);
  return process && strtol(process, NULL, 10) == getpid();
}

__attribute__((constructor)) static void load(void) {
  if (!needs_swift()) silence_backtracer();
  evg_adopts_threads = true;
  evg_keeps_apart = true;
  evg_was_canceled = evg_loop_was_canceled;
  evg_preload_begin();
  if (is_for_this_process("EVERGREEN_RUN_REPORT")) evg_report_begin();
  uint32_t families = families_in(getenv("EVERGREEN_RUN_FAMILIES"));
  if (is_for_this_process("EVERGREEN_RUN_THREADS")) {
    families |= EVG_PATCH_LOCKS;
    evg_green_threads_begin();
  }
  evg_patch_set(families);
}

#endif
