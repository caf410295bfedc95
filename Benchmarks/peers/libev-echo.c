// Evergreen: the peer that all others are measured against, an echo server in C with libev callbacks.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct connection {
  ev_io watcher;
  char *unsent;  // only while the peer does not read
  size_t length, offset;
} connection;

static char buffer[64 * 1024];

static void end(struct ev_loop *loop, connection *c) {
  ev_io_stop(loop, &c->watcher);
  close(c->watcher.fd);
  free(c->unsent);
  free(c);
}

static void when_writable(struct ev_loop *loop, ev_io *watcher, int events);

static void when_readable(struct ev_loop *loop, ev_io *watcher, int events) {
  (void)events;
  connection *c = (connection *)watcher;
  ssize_t received = recv(watcher->fd, buffer, sizeof buffer, 0);
  if (received <= 0) {
    if (received == 0 || (errno != EAGAIN && errno != EINTR)) end(loop, c);
    return;
  }
  ssize_t sent = send(watcher->fd, buffer, (size_t)received, MSG_NOSIGNAL);
  if (sent == received) return;  // and wait: the loop says when there is more, and every connection has its turn
  if (sent < 0) {
    if (errno != EAGAIN) return end(loop, c);
    sent = 0;
  }
  c->length = (size_t)(received - sent);
  c->offset = 0;
  c->unsent = malloc(c->length);
  if (!c->unsent) abort();
  memcpy(c->unsent, buffer + sent, c->length);
  ev_io_stop(loop, watcher);
  ev_io_init(watcher, when_writable, watcher->fd, EV_WRITE);
  ev_io_start(loop, watcher);
}

static void when_writable(struct ev_loop *loop, ev_io *watcher, int events) {
  (void)events;
  connection *c = (connection *)watcher;
  ssize_t sent = send(watcher->fd, c->unsent + c->offset, c->length - c->offset, MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno != EAGAIN) end(loop, c);
    return;
  }
  c->offset += (size_t)sent;
  if (c->offset < c->length) return;
  free(c->unsent);
  c->unsent = NULL;
  ev_io_stop(loop, watcher);
  ev_io_init(watcher, when_readable, watcher->fd, EV_READ);
  ev_io_start(loop, watcher);
}

static void when_acceptable(struct ev_loop *loop, ev_io *watcher, int events) {
  (void)events;
  while (true) {
    int fd = accept4(watcher->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) {
      if (errno != EAGAIN && errno != ECONNABORTED) perror("libev-echo: accept");
      return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connection *c = calloc(1, sizeof *c);
    if (!c) abort();
    ev_io_init(&c->watcher, when_readable, fd, EV_READ);
    ev_io_start(loop, &c->watcher);
  }
}

int main(int argc, char **argv) {
  int one = 1, port = argc > 1 ? atoi(argv[1]) : 0;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  socklen_t length = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &length) != 0)
    return perror("libev-echo: cannot listen"), 1;
  struct ev_loop *loop = ev_default_loop(0);
  if (!loop) return fprintf(stderr, "libev-echo: no loop\n"), 1;
  ev_io acceptor;
  ev_io_init(&acceptor, when_acceptable, fd, EV_READ);
  ev_io_start(loop, &acceptor);
  printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  ev_run(loop, 0);
}
