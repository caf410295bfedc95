// Evergreen: threads of the library's own.
// SPDX-License-Identifier: MIT

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "internal.h"

#include "CLocks.h"

bool evg_adopts_threads;
__thread bool evg_stays_foreign;

static void *run_once(void *body) {
  evg_stays_foreign = true;
  ((void (*)(void))body)();
  return NULL;
}

int evg_on_new_thread(void (*body)(void)) {
  pthread_t thread;
  evg_own_calls++;
  int error = pthread_create(&thread, NULL, run_once, (void *)body);
  if (!error) pthread_join(thread, NULL);
  evg_own_calls--;
  return error;
}

typedef struct start {
  void (*body)(void *);
  void *argument;
} start;

static void *run(void *argument) {
  start s = *(start *)argument;
  free(argument);
  evg_stays_foreign = true;
  s.body(s.argument);
  return NULL;
}

int evg_start_thread(void (*body)(void *), void *argument, size_t stack_size) {
  start *s = malloc(sizeof *s);
  if (!s) abort();
  *s = (start){body, argument};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (stack_size) pthread_attr_setstacksize(&attributes, stack_size);
  sigset_t all, before;
  sigfillset(&all);
  // A blocked fault ends the process without its handler, and so without a word.
  static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  evg_own_calls++;
  int error = pthread_create(&thread, &attributes, run, s);
  evg_own_calls--;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (error) free(s);
  return error;
}
