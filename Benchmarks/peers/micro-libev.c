// Evergreen: small work in C on libev, the measure for `micro`: timers, and getaddrinfo on ten threads.
// SPDX-License-Identifier: MIT
//
// usage: micro-libev TEST N, and one line of JSON, per operation; status 2 for a test it does not have.

#define _GNU_SOURCE
#include <errno.h>
#include <ev.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LIVE = 1000000, RESOLVERS = 10 };

static double clock_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double resident(void) {
  long size, pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  if (!statm || fscanf(statm, "%ld %ld", &size, &pages) != 2) abort();
  fclose(statm);
  return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double wall, cpu, memory;
static void begin(void) {
  memory = resident();
  cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  wall = clock_ns(CLOCK_MONOTONIC);
}
static void end(long n) {
  wall = clock_ns(CLOCK_MONOTONIC) - wall;
  cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  memory = resident() - memory;
  printf("{\"n\":%ld,\"ns\":%.2f,\"cpu_ns\":%.2f,\"rss_bytes\":%.2f}\n", n, wall / (double)n, cpu / (double)n,
         memory / (double)n);
}

static void ignore(struct ev_loop *loop, ev_timer *watcher, int events) { (void)loop, (void)watcher, (void)events; }

static void timers(struct ev_loop *loop, long n) {
  ev_timer timer;
  begin();
  for (long i = 0; i < n; i++) {
    ev_timer_init(&timer, ignore, 5, 0);
    ev_timer_start(loop, &timer);
    ev_timer_stop(loop, &timer);
  }
  end(n);
}

/// A million live timers of one hour, one begun 100 ns after the other; an operation cancels the oldest and starts a
/// new one, as a server with a million connections does whenever one of them says something.
static void timers_churn(struct ev_loop *loop, long n) {
  ev_timer *live = calloc(LIVE, sizeof *live);
  if (!live) abort();
  for (long i = 0; i < LIVE; i++) {
    ev_timer_init(&live[i], ignore, 3600 + 1e-7 * (double)i, 0);
    ev_timer_start(loop, &live[i]);
  }
  begin();
  for (long i = 0; i < n; i++) {
    ev_timer *timer = &live[i % LIVE];
    ev_timer_stop(loop, timer);
    ev_timer_init(timer, ignore, 3600 + 1e-7 * (double)(LIVE + i), 0);
    ev_timer_start(loop, timer);
  }
  end(n);
}

static atomic_long lookups;
static void *resolve(void *unused) {
  (void)unused;
  while (atomic_fetch_sub(&lookups, 1) > 0) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo("localhost", "80", &hints, &found);
    if (error) fprintf(stderr, "micro-libev: getaddrinfo localhost: %s\n", gai_strerror(error)), exit(1);
    freeaddrinfo(found);
  }
  return NULL;
}

static void names(struct ev_loop *loop, long n) {
  (void)loop;
  pthread_t threads[RESOLVERS];
  atomic_store(&lookups, n);
  begin();
  for (int i = 0; i < RESOLVERS; i++) pthread_create(&threads[i], NULL, resolve, NULL);
  for (int i = 0; i < RESOLVERS; i++) pthread_join(threads[i], NULL);
  end(n);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(struct ev_loop *, long);
  } tests[] = {{"timers", timers}, {"timers_churn", timers_churn}, {"getaddrinfo", names}};
  char *rest = "";
  long n = argc == 3 ? strtol(argv[2], &rest, 10) : 0;
  if (n < 1 || *rest) return fprintf(stderr, "usage: micro-libev TEST N\n"), 2;
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (!strcmp(argv[1], tests[i].name)) return tests[i].run(ev_default_loop(0), n), 0;
  fprintf(stderr, "micro-libev: no test \"%s\"\n", argv[1]);
  return 2;
}
