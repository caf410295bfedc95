// Evergreen: a program's threads, and its children.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void sleep_for(long milliseconds) {
  const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, NULL);
}

// MARK: A server

static void *serve_one(void *argument) {
  const int peer = (int)(long)argument;
  char buffer[4096];
  ssize_t count;
  while ((count = read(peer, buffer, sizeof buffer)) > 0) {
    if (write(peer, buffer, (size_t)count) != count) break;
  }
  close(peer);
  return NULL;
}

static void *accept_all(void *argument) {
  const int listener = (int)(long)argument;
  int peer;
  while ((peer = accept(listener, NULL, NULL)) >= 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve_one, (void *)(long)peer) != 0) abort();
    pthread_detach(thread);
  }
  return NULL;
}

/// Echoes, a thread for each connection, until standard input ends.
void part_serve(void) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  CHECK(bind(listener, (struct sockaddr *)&address, length) == 0);
  CHECK(listen(listener, 128) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
  printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, accept_all, (void *)(long)listener) == 0);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  exit(0);
}

// MARK: Threads

static void *wait_shortly(void *argument) {
  sleep_for((long)argument);
  return argument;
}

void part_threads(void) {
  enum { COUNT = 40 };
  pthread_t threads[COUNT];
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  for (long i = 0; i < COUNT; i++) {
    CHECK(pthread_create(&threads[i], NULL, wait_shortly, (void *)(100 + i)) == 0);
  }
  for (long i = 0; i < COUNT; i++) {
    void *result;
    CHECK(pthread_join(threads[i], &result) == 0 && (long)result == 100 + i);
  }
  clock_gettime(CLOCK_MONOTONIC, &after);
  CHECK(after.tv_sec - before.tv_sec < 3);  // at the same time, not one after the other
  printf("threads of the process: %ld\n", status_of("Threads:"));
}

/// Thousands of short ones leave nothing behind.
void part_many_threads(void) {
  long memory = 0;
  for (int i = 0; i < 3000; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_shortly, (void *)(long)(i % 50 == 0)) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    if (i == 500) memory = status_of("VmSize:");
  }
  CHECK(status_of("VmSize:") <= memory + 4096);
}

static int cleaned;

static void clean(void *unused) {
  (void)unused;
  cleaned++;
}

static void *read_for_ever(void *argument) {
  char byte;
  pthread_cleanup_push(clean, NULL);
  while (read(*(int *)argument, &byte, 1) >= 0) {
  }
  pthread_cleanup_pop(0);
  return argument;
}

static void *sleep_for_ever(void *argument) {
  pthread_cleanup_push(clean, NULL);
  while (1) poll(NULL, 0, -1);
  pthread_cleanup_pop(0);
  return argument;
}

/// Those that wait are canceled, and clean up.
void part_cancel(void) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  for (int i = 0; i < 20; i++) {
    pthread_t one, two;
    CHECK(pthread_create(&one, NULL, read_for_ever, &ends[0]) == 0);
    CHECK(pthread_create(&two, NULL, sleep_for_ever, NULL) == 0);
    sleep_for(i % 3 * 4);
    CHECK(pthread_cancel(one) == 0 && pthread_cancel(two) == 0);
    void *result;
    CHECK(pthread_join(one, &result) == 0 && result == PTHREAD_CANCELED);
    CHECK(pthread_join(two, &result) == 0 && result == PTHREAD_CANCELED);
  }
  // One that is canceled before it runs has nothing to clean up.
  CHECK(cleaned >= 20 && cleaned <= 40);
}

static void *end_process(void *unused) {
  (void)unused;
  sleep_for(20);
  printf("ended by the last thread\n");
  fflush(stdout);
  exit(5);
}

void part_last_thread(void) {
  pthread_t thread;
  sleep_for(1);
  CHECK(pthread_create(&thread, NULL, end_process, NULL) == 0);
  pthread_exit(NULL);
}

// MARK: Children

void part_fork(void) {
  sleep_for(1);
  int ends[2];
  CHECK(pipe(ends) == 0);
  for (long i = 0; i < 5; i++) {
    fflush(stdout);
    if (fork() == 0) {
      // A child waits, has threads, and children of its own.
      pthread_t thread;
      sleep_for(5);
      CHECK(pthread_create(&thread, NULL, wait_shortly, (void *)5L) == 0);
      CHECK(pthread_join(thread, NULL) == 0);
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        sleep_for(2);
        _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
      }
      int status;
      CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
      _exit((int)i);
    }
  }
  char byte;
  int sum = 0;
  for (int i = 0; i < 5; i++) CHECK(read(ends[0], &byte, 1) == 1);
  for (int i = 0; i < 5; i++) {
    int status;
    CHECK(wait(&status) > 0 && WIFEXITED(status));
    sum += WEXITSTATUS(status);
  }
  printf("sum %d\n", sum);
}

static void *wait_at_once(void *barrier) {
  pthread_barrier_wait(barrier);
  sleep_for(1);
  return NULL;
}

/// Forks while another thread waits for the first time in this process.
void part_fork_at_first(void) {
  pthread_barrier_t barrier;
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  CHECK(pthread_create(&thread, NULL, wait_at_once, &barrier) == 0);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 5; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      sleep_for(1);
      _exit(7);
    }
    check_child(child, 7);
  }
  CHECK(pthread_join(thread, NULL) == 0);
}

static volatile int is_over;

static void *have_threads(void *unused) {
  while (!is_over) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, wait_shortly, NULL) == 0) pthread_join(thread, NULL);
  }
  return unused;
}

/// Forks while other threads begin, wait and end.
void part_fork_among_threads(void) {
  enum { COUNT = 3, FORKS = 300 };
  pthread_t threads[COUNT];
  for (int i = 0; i < COUNT; i++) CHECK(pthread_create(&threads[i], NULL, have_threads, NULL) == 0);
  for (int i = 0; i < FORKS; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      sleep_for(1);
      _exit(7);
    }
    check_child(child, 7);
  }
  is_over = 1;
  for (int i = 0; i < COUNT; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

#endif
