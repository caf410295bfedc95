// Evergreen: a program that knows nothing of Evergreen.
// SPDX-License-Identifier: MIT
//
// It is linked with libc alone. Tests run it with and without `evergreen run`, and compare.

#ifdef __linux__

#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

void check(int is_right, const char *what) {
  if (is_right) return;
  printf("wrong: %s\n", what);
  fflush(stdout);
  exit(70);
}

void check_child(int child, int status) {
  int found = 0;
  CHECK(waitpid(child, &found, 0) == child);
  if (found == status << 8) return;
  printf("wrong: a child's status is %#x\n", (unsigned)found);
  fflush(stdout);
  exit(70);
}

long status_of(const char *field) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long value = -1;
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, field, strlen(field)) == 0) value = strtol(line + strlen(field) + 1, NULL, 10);
  }
  if (file) fclose(file);
  return value;
}

static const struct {
  const char *name;
  void (*run)(void);
} parts[] = {
  {"serve", part_serve},
  {"descriptors", part_descriptors},
  {"close-all", part_close_all},
  {"first-free", part_first_free},
  {"first-waits", part_first_waits},
  {"signals", part_signals},
  {"mask", part_mask},
  {"threads", part_threads},
  {"many-threads", part_many_threads},
  {"cancel", part_cancel},
  {"fork", part_fork},
  {"fork-at-first", part_fork_at_first},
  {"fork-among-threads", part_fork_among_threads},
  {"files", part_files},
  {"no-descriptors", part_no_descriptors},
  {"last-thread", part_last_thread},
  {"nobody", part_nobody},
  {"pthreads", part_pthreads},
  {"crowd", part_crowd},
};

int main(int count, char **arguments) {
  for (size_t i = 0; count == 2 && i < sizeof parts / sizeof parts[0]; i++) {
    if (strcmp(parts[i].name, arguments[1]) != 0) continue;
    parts[i].run();
    printf("done\n");
    return 0;
  }
  return 64;
}

#else
int main(void) { return 64; }
#endif
