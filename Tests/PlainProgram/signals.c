// Evergreen: signals of a program.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t alarms;
static int ends[2];

static void count(int signal) {
  (void)signal;
  alarms++;
}

static void write_byte(int signal) {
  (void)signal;
  alarms++;
  (void)!write(ends[1], "x", 1);
}

static void handle(int signal, void (*call)(int), int flags) {
  struct sigaction action = {.sa_handler = call, .sa_flags = flags}, before;
  CHECK(sigaction(signal, &action, &before) == 0);
  struct sigaction now;
  CHECK(sigaction(signal, NULL, &now) == 0 && now.sa_handler == call);
}

static void ring_in(long milliseconds) {
  const struct itimerval time = {.it_value.tv_usec = milliseconds * 1000};
  CHECK(setitimer(ITIMER_REAL, &time, NULL) == 0);
}

void part_signals(void) {
  char byte;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  handle(SIGALRM, count, 0);
  ring_in(10);
  CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR && alarms == 1);
  ring_in(10);
  struct timespec rest = {0, 0};
  CHECK(nanosleep(&(struct timespec){.tv_sec = 60}, &rest) == -1 && errno == EINTR);
  CHECK(rest.tv_sec == 59 && alarms == 2);
  ring_in(10);
  CHECK(poll(NULL, 0, -1) == -1 && errno == EINTR && alarms == 3);
  ring_in(10);
  CHECK(select(0, NULL, NULL, NULL, NULL) == -1 && errno == EINTR && alarms == 4);
  ring_in(10);
  CHECK(pause() == -1 && errno == EINTR && alarms == 5);

  handle(SIGALRM, write_byte, SA_RESTART);
  ring_in(10);
  CHECK(read(ends[0], &byte, 1) == 1 && alarms == 6);
  ring_in(10);
  CHECK(recv(ends[0], &byte, 1, 0) == 1 && alarms == 7);
  ring_in(10);
  struct pollfd one = {.fd = ends[0], .events = POLLIN};
  CHECK(poll(&one, 1, -1) == -1 && errno == EINTR && alarms == 8);
  printf("handled %d\n", (int)alarms);
}

/// A signal that is blocked but for the time of a wait.
void part_mask(void) {
  sigset_t all, none;
  sigemptyset(&none);
  sigemptyset(&all);
  sigaddset(&all, SIGALRM);
  CHECK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
  handle(SIGALRM, count, 0);
  ring_in(5);
  CHECK(nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL) == 0 && alarms == 0);
  CHECK(ppoll(NULL, 0, NULL, &none) == -1 && errno == EINTR && alarms == 1);
  ring_in(5);
  CHECK(pselect(0, NULL, NULL, NULL, NULL, &none) == -1 && errno == EINTR && alarms == 2);
  ring_in(5);
  int signal = 0;
  CHECK(sigwait(&all, &signal) == 0 && signal == SIGALRM && alarms == 2);
}

static void *end_it(void *unused) {
  (void)unused;
  nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
  printf("still there\n");
  fflush(stdout);
  _exit(0);
}

/// Waits for what never comes: from a pipe that nobody else has.
void part_nobody(void) {
  char byte;
  pthread_t thread;
  CHECK(pipe(ends) == 0);
  CHECK(pthread_create(&thread, NULL, end_it, NULL) == 0);
  (void)!read(ends[0], &byte, 1);
  printf("the wait has ended\n");
}

#endif
