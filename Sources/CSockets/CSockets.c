// Evergreen: the socket calls that Swift does not see, or that need care with signals.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include "CSockets.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/sendfile.h>

int evg_accept(int listener, void *address, uint32_t *length) {
  return accept4(listener, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

// sendfile has no flag against the signal, so it is held back here and taken away again.
ssize_t evg_send_file(int socket, int file, int64_t offset, size_t count) {
  sigset_t broken_pipe, before;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
  off_t position = offset;
  ssize_t sent = sendfile(socket, file, &position, count);
  int error = errno;
  if (sent < 0 && error == EPIPE && !sigismember(&before, SIGPIPE)) {
    struct timespec now = {0};
    while (sigtimedwait(&broken_pipe, NULL, &now) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = error;
  return sent;
}

#else

int evg_accept(int listener, void *address, uint32_t *length) {
  int accepted = accept(listener, address, length);
  if (accepted < 0) return accepted;
  int flags = fcntl(accepted, F_GETFL);
  if (fcntl(accepted, F_SETFL, flags | O_NONBLOCK) < 0 ||
      fcntl(accepted, F_SETFD, FD_CLOEXEC) < 0) {
    int error = errno;
    close(accepted);
    errno = error;
    return -1;
  }
  return accepted;
}

ssize_t evg_send_file(int socket, int file, int64_t offset, size_t count) {
  off_t length = (off_t)count;
  int result = sendfile(file, socket, offset, &length, NULL, 0);
  return length > 0 ? length : result;
}

#endif
