// Evergreen: a program's descriptors, which are all its own as far as it can tell.
// SPDX-License-Identifier: MIT

#ifdef __linux__

#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void wait_a_moment(void) {
  CHECK(nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL) == 0);
}

/// Sleeps, and reads in time what comes by a pipe.
static void wait_in_all_ways(void) {
  int ends[2];
  char byte;
  CHECK(pipe(ends) == 0);
  printf("pipe %d %d\n", ends[0], ends[1]);
  struct pollfd one = {.fd = ends[0], .events = POLLIN};
  CHECK(poll(&one, 1, 2) == 0);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  struct timeval time = {.tv_usec = 2000};
  CHECK(select(ends[0] + 1, &set, NULL, NULL, &time) == 0);
  wait_a_moment();
  const pid_t child = fork();
  if (child == 0) {
    wait_a_moment();
    _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
  }
  CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
  CHECK(close(ends[0]) == -1 && errno == EBADF);
}

void part_descriptors(void) {
  wait_in_all_ways();
  // What the program makes is where it would be, though the same calls make the library's own.
  const int set = epoll_create1(EPOLL_CLOEXEC), event = eventfd(0, 0);
  printf("epoll %d, event %d\n", set, event);
  struct epoll_event one = {.events = EPOLLIN, .data.fd = event}, found;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, event, &one) == 0);
  CHECK(epoll_wait(set, &found, 1, 2) == 0);
  CHECK(eventfd_write(event, 1) == 0);
  CHECK(epoll_wait(set, &found, 1, 10000) == 1 && found.data.fd == event);
}

static int count_open(int first, int last) {
  int count = 0;
  for (int fd = first; fd <= last; fd++) count += fcntl(fd, F_GETFD) != -1;
  return count;
}

/// As daemons do, in all of their ways.
void part_close_all(void) {
  wait_a_moment();
  for (int fd = 3; fd < 1024; fd++) close(fd);
  wait_in_all_ways();
  close_range(3, ~0u, 0);
  wait_in_all_ways();
  closefrom(3);
  wait_in_all_ways();
  syscall(SYS_close_range, 3, ~0u, 0);  // which nobody can take over
  wait_in_all_ways();
  CHECK(dup2(1, 500) == 500 && dup2(2, 1000) != -1);
  CHECK(close_range(3, ~0u, 0) == 0);
  printf("open below 900: %d\n", count_open(3, 899));
  const pid_t child = vfork();
  if (child == 0) {
    closefrom(3);
    execl("/bin/sh", "sh", "-c", "sleep 0.01; ls /proc/self/fd | wc -l", NULL);
    _exit(127);
  }
  int status;
  fflush(stdout);
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  wait_in_all_ways();
}

void part_first_free(void) {
  wait_a_moment();
  CHECK(close(0) == 0);
  printf("opened %d\n", open("/dev/null", O_RDONLY));
  wait_a_moment();
  close(0);
  printf("socket %d\n", socket(AF_INET, SOCK_STREAM, 0));
}

/// Where there is no room for the library's own, calls block as ever.
void part_no_descriptors(void) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  const struct rlimit limit = {.rlim_cur = 5, .rlim_max = 5};
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  for (int round = 0; round < 3; round++) {
    wait_a_moment();
    struct pollfd one = {.fd = ends[0], .events = POLLIN};
    CHECK(poll(&one, 1, 2) == 0);
    const pid_t child = fork();
    if (child == 0) {
      wait_a_moment();
      _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
    }
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    CHECK(wait(NULL) == child);
  }
  printf("no room: %d\n", open("/dev/null", O_RDONLY));
}

void part_files(void) {
  char name[] = "/tmp/plain-program-XXXXXX";
  const int file = mkstemp(name), other = open(name, O_RDWR);
  CHECK(unlink(name) == 0);
  CHECK(flock(file, LOCK_EX) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(file);
    const int lock = fcntl(other, F_SETLKW, &(struct flock){.l_type = F_WRLCK});
    _exit(lock == 0 && flock(other, LOCK_EX) == 0 ? 0 : 1);
  }
  wait_a_moment();
  CHECK(flock(file, LOCK_UN) == 0);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  printf("locked\n");
}

#endif
