// Evergreen: calls that wait, each the first one of its process.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 22 };

static int ends[2], pipes[2];
static const struct timespec moment = {.tv_nsec = 2000000};
static const struct timespec past = {.tv_sec = 1};

static fd_set *readable(void) {
  fd_set *set = calloc(1, sizeof *set);
  FD_SET(ends[0], set);
  return set;
}

static int in_a_moment(int error) { return error == ETIMEDOUT ? 0 : -1; }

static int wait_for_child(void) {
  if (fork() == 0) _exit(0);
  return wait(NULL) > 0 ? 0 : -1;
}

static int look_up(void) {
  struct addrinfo *found = NULL;
  if (getaddrinfo("127.0.0.1", "80", NULL, &found) != 0) return -1;
  freeaddrinfo(found);
  return 0;
}

static int call(int number) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
  struct pollfd one = {.fd = ends[0], .events = POLLIN};
  struct timeval time = {.tv_usec = 2000};
  struct epoll_event event = {.events = EPOLLIN};
  sem_t semaphore;
  char byte;
  const int set = number == 8 || number == 9 ? epoll_create1(0) : -1;
  if (set != -1) epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event);
  switch (number) {
    case 0: return nanosleep(&moment, NULL);
    case 1: return usleep(2000);
    case 2: return poll(&one, 1, 2);
    case 3: return poll(NULL, 0, 2);
    case 4: return ppoll(&one, 1, &moment, NULL);
    case 5: return select(ends[0] + 1, readable(), NULL, NULL, &time);
    case 6: return select(0, NULL, NULL, NULL, &time);
    case 7: return pselect(ends[0] + 1, readable(), NULL, NULL, &moment, NULL);
    case 8: return epoll_wait(set, &event, 1, 2);
    case 9: return epoll_pwait(set, &event, 1, 2, NULL);
    case 10: return read(pipes[0], &byte, 1) == 1 ? 0 : -1;
    case 11: return recv(ends[0], &byte, 1, 0) == -1 && errno == EAGAIN ? 0 : -1;
    case 12: return write(ends[1], "x", 1) == 1 ? 0 : -1;
    case 13: return flock(pipes[0], LOCK_EX);
    case 14: return wait_for_child();
    case 15: return look_up();
    case 16: return sched_yield();
    case 17: return sem_init(&semaphore, 0, 0) == 0 && sem_timedwait(&semaphore, &past) == -1
        && errno == ETIMEDOUT ? 0 : -1;
    case 18:
      pthread_mutex_lock(&mutex);
      return in_a_moment(pthread_cond_timedwait(&condition, &mutex, &past));
    case 19:
      pthread_mutex_lock(&mutex);
      return in_a_moment(pthread_mutex_timedlock(&mutex, &past));
    case 20:
      pthread_rwlock_rdlock(&lock);
      return in_a_moment(pthread_rwlock_timedwrlock(&lock, &past));
    default:
      return pthread_mutex_lock(&recursive) | pthread_mutex_lock(&recursive)
        | pthread_mutex_unlock(&recursive) | pthread_mutex_unlock(&recursive);
  }
}

void part_first_waits(void) {
  const struct timeval limit = {.tv_usec = 2000};
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && pipe(pipes) == 0);
  CHECK(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  CHECK(write(pipes[1], "x", 1) == 1);
  for (int number = 0; number < CALLS; number++) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      _exit(call(number) == 0 ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    printf("call %d: %d\n", number, status);
  }
}

#endif
