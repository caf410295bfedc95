// Evergreen: what has waited in a program, and for how long.
// SPDX-License-Identifier: MIT
//
// A wait is noted when it is over, in the thread that has waited and below the call that it was in. So
// the stack tells both what was called, the last frame of this library, and by whom, the one before. No
// hook need know of it.

#ifdef __linux__

#define _GNU_SOURCE
#include "CPreload.h"

#include "green.h"

#include <CDescriptors.h>
#include <CGreenCalls.h>
#include <CGreenlet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

// Where this library lies.
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static bool is_ours(uintptr_t address) {
  return address >= (uintptr_t)__ehdr_start && address < (uintptr_t)_end;
}

/// The waits of one thread in one call at one place.
typedef struct record {
  uintptr_t call;  // the address of the function; 0: a free entry
  uintptr_t place;
  pid_t thread;
  char thread_name[16];
  uint64_t count, total, longest;
} record;

enum { MOST = 1024 };

static record records[MOST];
static record others;  // for which there was no room
static atomic_flag is_taken = ATOMIC_FLAG_INIT;

// Not a lock of libc's, which may be patched. Held for some instructions.
static void take(void) {
  while (atomic_flag_test_and_set_explicit(&is_taken, memory_order_acquire)) {
  }
}
static void give(void) { atomic_flag_clear_explicit(&is_taken, memory_order_release); }

typedef struct origin {
  uintptr_t call, place;
} origin;

static _Unwind_Reason_Code find_origin(struct _Unwind_Context *context, void *argument) {
  origin *origin = argument;
  const uintptr_t address = _Unwind_GetIP(context);
  if (!is_ours(address)) {
    origin->place = address;
    return _URC_END_OF_STACK;
  }
  origin->call = _Unwind_GetRegionStart(context);
  return _URC_NO_REASON;
}

static record *record_for(const origin *origin, pid_t thread) {
  const uint64_t hash =
    (origin->call * 31 + origin->place + (uint64_t)thread * 65599) * UINT64_C(0x9e3779b97f4a7c15);
  for (unsigned i = 0; i < MOST; i++) {
    record *record = &records[((hash >> 32) + i) % MOST];
    if (record->call == 0) {
      record->call = origin->call;
      record->place = origin->place;
      record->thread = thread;
      pthread_getname_np(pthread_self(), record->thread_name, sizeof record->thread_name);
      return record;
    }
    if (record->call == origin->call && record->place == origin->place
        && record->thread == thread) {
      return record;
    }
  }
  return &others;
}

static void note_wait(uint64_t nanoseconds) {
  origin origin = {0, 0};
  _Unwind_Backtrace(find_origin, &origin);
  if (origin.call == 0) return;
  const pid_t thread = (pid_t)syscall(SYS_gettid);
  take();
  record *record = record_for(&origin, thread);
  record->count++;
  record->total += nanoseconds;
  if (nanoseconds > record->longest) record->longest = nanoseconds;
  give();
}

// MARK: The report

static int by_total(const void *one, const void *other) {
  const uint64_t a = ((const record *)one)->total, b = ((const record *)other)->total;
  return a < b ? 1 : a > b ? -1 : 0;
}

/// `read`, of `evg_green_read` or of the hook itself.
static void write_call(char *text, size_t size, uintptr_t call) {
  Dl_info info;
  const char *name = dladdr((void *)call, &info) && info.dli_sname ? info.dli_sname : "?";
  static const char prefix[] = "evg_green_";
  if (strncmp(name, prefix, sizeof prefix - 1) == 0) name += sizeof prefix - 1;
  snprintf(text, size, "%s", strcmp(name, "control") == 0 ? "fcntl" : name);
}

static void write_place(char *text, size_t size, uintptr_t place) {
  // A return address may be that of the next function.
  const void *address = (const void *)(place - 1);
  uintptr_t offset = 0;
  const char *module = evg_module_name(address, &offset);
  char *function = evg_function_name(address);
  if (function) {
    snprintf(text, size, "%s (%s+0x%lx)", function, module ? module : "?", offset + 1);
  } else if (module) {
    snprintf(text, size, "%s+0x%lx", module, offset + 1);
  } else {
    snprintf(text, size, "0x%lx", place);
  }
  free(function);
}

static void write_thread(char *text, size_t size, const record *record) {
  if (record->thread == getpid()) snprintf(text, size, "main");
  else snprintf(text, size, "%d %s", record->thread, record->thread_name);
}

// Standard error as it was in the beginning: many programs close theirs before they end.
static int errors = -1;

static void write_line(const record *record) {
  char call[64], place[512], thread[64], line[800];
  if (record == &others) {
    snprintf(call, sizeof call, "others");
    place[0] = thread[0] = 0;
  } else {
    write_call(call, sizeof call, record->call);
    write_place(place, sizeof place, record->place);
    write_thread(thread, sizeof thread, record);
  }
  const int length = snprintf(
    line, sizeof line, "%10llu %12.3f %12.3f  %-18s %-16s %s\n", (unsigned long long)record->count,
    (double)record->total / 1e6, (double)record->longest / 1e6, call, thread, place);
  (void)!write(errors, line, (size_t)length);
}

static pid_t reporter;

static void report(void) {
  if (getpid() != reporter) return;
  __atomic_store_n(&evg_on_wait, NULL, __ATOMIC_RELAXED);
  size_t count = 0;
  uint64_t total = others.total;
  take();
  for (size_t i = 0; i < MOST; i++) {
    if (records[i].call == 0) continue;
    total += records[i].total;
    records[count++] = records[i];
  }
  qsort(records, count, sizeof records[0], by_total);
  char line[256];
  int length = snprintf(
    line, sizeof line, "evergreen: %s has waited for %.3f ms in all%s\n",
    program_invocation_short_name, (double)total / 1e6, count > 0 ? "" : ": in no patched call");
  (void)!write(errors, line, (size_t)length);
  if (count > 0) {
    length = snprintf(
      line, sizeof line, "%10s %12s %12s  %-18s %-16s %s\n", "waits", "total ms", "longest ms",
      "call", "thread", "called by");
    (void)!write(errors, line, (size_t)length);
  }
  for (size_t i = 0; i < count; i++) write_line(&records[i]);
  if (others.count > 0) write_line(&others);
  give();
}

/// In the child of a fork nobody has asked.
static void forget(void) {
  evg_on_wait = NULL;
  give();
}

void evg_report_begin(void) {
  reporter = getpid();
  errors = evg_keep_apart(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  pthread_atfork(NULL, NULL, forget);
  atexit(report);
  evg_on_wait = note_wait;
}

#endif
