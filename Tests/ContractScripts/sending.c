// Evergreen: scripts that send and write.
// SPDX-License-Identifier: MIT

#include "scripts.h"

#define CLOSE(ends) (close(ends[0]), close(ends[1]))
enum { LARGE = 300000 };

static char *pattern(void) {
  char *bytes = malloc(LARGE);
  for (int i = 0; i < LARGE; i++) bytes[i] = (char)(i * 31 >> 3);
  return bytes;
}

/// Reads all that comes, and tells it to nobody.
static void drain_to_end(int fd, long unused) {
  (void)unused;
  drain_slowly(fd, LONG_MAX);
  close(fd);
}

SCRIPT(send_small) {
  int ends[2];
  char buffer[64];
  make_tcp_pair(ends);
  CALL(send(ends[0], "hello", 5, 0));
  CALL(send(ends[0], "hello", 0, 0));
  CALL(sendto(ends[0], " you", 4, MSG_NOSIGNAL, NULL, 0));
  CALL_FILLING(buffer, recv(ends[1], buffer, 9, MSG_WAITALL));
  CLOSE(ends);
}

SCRIPT(send_large) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]);
  char *bytes = pattern();
  later(log, drain_to_end, ends[1], 0);
  CALL(send(ends[0], bytes, LARGE, 0));
  CALL(fcntl(ends[0], F_GETFL));
  free(bytes), close(ends[0]);
}

SCRIPT(send_large_tcp) {
  int ends[2];
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  later(log, drain_to_end, ends[1], 0);
  CALL(send(ends[0], bytes, LARGE, MSG_NOSIGNAL));
  CALL(write(ends[0], bytes, LARGE));
  free(bytes), close(ends[0]);
}

SCRIPT(send_until_reset) {
  int ends[2];
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  later(log, reset_it, ends[1], 0);
  CALL_FOR_PART(LARGE * 10, send(ends[0], bytes, LARGE, MSG_NOSIGNAL));
  CALL(send(ends[0], bytes, LARGE, MSG_NOSIGNAL));
  CALL(send(ends[0], bytes, LARGE, MSG_NOSIGNAL));
  free(bytes), close(ends[0]);
}

SCRIPT(send_to_nobody) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  close(ends[1]);
  CALL(send(ends[0], "hello", 5, MSG_NOSIGNAL));
  CALL(sendto(ends[0], "hello", 5, MSG_NOSIGNAL, NULL, 0));
  struct iovec vector = {"hello", 5};
  const struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  CALL(sendmsg(ends[0], &message, MSG_NOSIGNAL));
  close(ends[0]);
}

SCRIPT(send_time_limit) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]);
  limit_time(ends[0], SO_SNDTIMEO, 50);
  char *bytes = pattern();
  CALL_FOR_PART(LARGE, send(ends[0], bytes, LARGE, 0));
  CALL(send(ends[0], bytes, LARGE, 0));
  CALL(write(ends[0], bytes, 100));
  free(bytes);
  CLOSE(ends);
}

SCRIPT(send_not_blocking) {
  int ends[2];
  make_pair(SOCK_STREAM | SOCK_NONBLOCK, ends);
  make_small(ends[0]);
  char *bytes = pattern();
  CALL_FOR_PART(LARGE, send(ends[0], bytes, LARGE, 0));
  CALL(send(ends[0], bytes, LARGE, 0));
  CALL(write(ends[0], bytes, LARGE));
  CLOSE(ends);
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]);
  CALL_FOR_PART(LARGE, send(ends[0], bytes, LARGE, MSG_DONTWAIT));
  CALL(send(ends[0], bytes, LARGE, MSG_DONTWAIT));
  free(bytes);
  CLOSE(ends);
}

SCRIPT(send_bad) {
  int ends[2];
  CALL(send(-1, "hello", 5, 0));
  const int file = open_file(""), fresh = socket(AF_INET, SOCK_STREAM, 0);
  CALL(send(file, "hello", 5, 0));
  CALL_BADLY(sendmsg(file, (void *)8, 0));
  CALL(send(fresh, "hello", 5, MSG_NOSIGNAL));
  close(file), close(fresh);
  const int lone = socket(AF_INET, SOCK_DGRAM, 0);
  CALL(send(lone, "hello", 5, 0));
  CALL_BADLY(sendto(lone, "hello", 5, 0, (void *)8, 16));
  close(lone);
  make_pair(SOCK_STREAM, ends);
  CALL_BADLY(send(ends[0], (void *)8, 5, 0));
  CALL_BADLY(sendmsg(ends[0], (void *)8, 0));
  CALL_BADLY(sendmmsg(ends[0], (void *)8, 1, 0));
  CALL(send(ends[0], "hello", 5, MSG_OOB));
  CLOSE(ends);
  make_pair(SOCK_DGRAM, ends);
  char *bytes = pattern();
  CALL(send(ends[0], bytes, LARGE, 0));  // EMSGSIZE
  free(bytes);
  CLOSE(ends);
}

SCRIPT(sendmsg_large) {
  int ends[2];
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  struct iovec vector[] = {{bytes, 7}, {bytes + 7, LARGE - 10000}, {NULL, 0}, {bytes, 10000}};
  const struct msghdr message = {.msg_iov = vector, .msg_iovlen = 4};
  later(log, drain_to_end, ends[1], 0);
  CALL(sendmsg(ends[0], &message, MSG_NOSIGNAL));
  tell(log, "%zu %zu\n", vector[0].iov_len, vector[1].iov_len);
  free(bytes), close(ends[0]);
}

SCRIPT(sendmsg_rights) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  const int file = open_file("passed on");
  char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x', buffer[64];
  struct iovec vector = {&byte, 1};
  struct msghdr message = {
    .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
  struct cmsghdr *head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  *(int *)(void *)CMSG_DATA(head) = file;
  CALL(sendmsg(ends[0], &message, 0));
  char answer[CMSG_SPACE(sizeof(int))];
  message.msg_control = answer;
  CALL_FILLING(&byte, recvmsg(ends[1], &message, 0));
  const int passed = *(int *)(void *)CMSG_DATA(CMSG_FIRSTHDR(&message));
  tell_bytes(log, buffer, pread(passed, buffer, sizeof buffer, 0));
  close(passed), close(file);
  CLOSE(ends);
}

SCRIPT(sendmmsg_some) {
  int ends[2];
  char buffer[64];
  make_pair(SOCK_DGRAM, ends);
  struct iovec vectors[] = {{"one", 3}, {"two", 3}, {"three", 5}};
  struct mmsghdr messages[3] = {0};
  for (int i = 0; i < 3; i++) {
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  CALL(sendmmsg(ends[0], messages, 3, 0));
  for (int i = 0; i < 3; i++) {
    tell(log, "%u\n", messages[i].msg_len);
    CALL_FILLING(buffer, recv(ends[1], buffer, sizeof buffer, 0));
  }
  CALL(sendmmsg(ends[0], messages, 0, 0));
  CLOSE(ends);
}

SCRIPT(sendmmsg_large) {
  int ends[2];
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  struct iovec vectors[] = {{bytes, LARGE}, {bytes, LARGE}};
  struct mmsghdr messages[2] = {0};
  for (int i = 0; i < 2; i++) {
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  later(log, drain_to_end, ends[1], 0);
  CALL(sendmmsg(ends[0], messages, 2, MSG_NOSIGNAL));
  tell(log, "%u %u\n", messages[0].msg_len, messages[1].msg_len);
  free(bytes), close(ends[0]);
}

static void drain_datagrams(int fd, long count) {
  char buffer[64];
  for (long i = 0; i < count; i++) {
    if (recv(fd, buffer, sizeof buffer, 0) < 0) abort();
  }
}

SCRIPT(send_full_datagrams) {
  int ends[2];
  make_pair(SOCK_DGRAM, ends);
  int queued = 0;
  while (send(ends[0], "hello", 5, MSG_DONTWAIT) == 5) queued++;
  later(log, drain_datagrams, ends[1], queued + 1);
  CALL(send(ends[0], "hello", 5, 0));
  close(ends[0]);
  // The peer still reads; it is closed when the script's helpers have ended.
  much_later(log, 4, close_it, ends[1], 0);
}

SCRIPT(sendto_datagram) {
  int port;
  char buffer[64];
  const int fd = make_udp(&port), other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in address = {
    .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
    .sin_addr = {htonl(INADDR_LOOPBACK)}};
  CALL(sendto(other, "hello", 5, 0, (const struct sockaddr *)&address, sizeof address));
  CALL_FILLING(buffer, recv(fd, buffer, sizeof buffer, 0));
  CALL(sendto(other, "", 0, 0, (const struct sockaddr *)&address, sizeof address));
  CALL(recv(fd, buffer, sizeof buffer, 0));
  CALL(sendto(other, "hello", 5, 0, (const struct sockaddr *)&address, 3));
  close(fd), close(other);
}

// MARK: write

SCRIPT(write_small) {
  int ends[2];
  char buffer[64];
  make_tcp_pair(ends);
  CALL(write(ends[0], "hello", 5));
  CALL_FILLING(buffer, read(ends[1], buffer, sizeof buffer));
  CLOSE(ends);
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  CALL(write(ends[1], "hello", 5));
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
}

SCRIPT(write_pipe_large) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  char *bytes = pattern();
  later(log, drain_to_end, ends[0], 0);
  CALL(write(ends[1], bytes, LARGE));
  CALL(fcntl(ends[1], F_GETFL));
  free(bytes), close(ends[1]);
}

SCRIPT(write_pipe_atomic) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  fcntl(ends[1], F_SETPIPE_SZ, 4096);
  char bytes[4096] = {1};
  CALL(write(ends[1], bytes, 100));
  later(log, drain_some, ends[0], 100);
  CALL(write(ends[1], bytes, sizeof bytes));  // as one, when there is room for all
  CALL(read(ends[0], bytes, sizeof bytes));
  CLOSE(ends);
}

SCRIPT(write_pipe_to_nobody) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  close(ends[0]);
  CALL(write(ends[1], "hello", 5));  // SIGPIPE is ignored where this runs
  struct iovec vector = {"hello", 5};
  CALL(writev(ends[1], &vector, 1));
  close(ends[1]);
}

static void take_number(int fd, long unused) {
  (void)unused;
  uint64_t number;
  if (read(fd, &number, sizeof number) != sizeof number) abort();
}

SCRIPT(write_eventfd_full) {
  const int fd = eventfd(0, EFD_CLOEXEC);
  const uint64_t most = UINT64_MAX - 1, one = 1;
  CALL(write(fd, &most, sizeof most));
  later(log, take_number, fd, 0);
  CALL(write(fd, &one, sizeof one));
  CALL(write(fd, &one, 4));
  close(fd);
}

SCRIPT(write_terminal) {
  int master, slave;
  struct termios raw;
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) abort();
  tcgetattr(slave, &raw);
  cfmakeraw(&raw);
  tcsetattr(slave, TCSANOW, &raw);
  char *bytes = pattern();
  later(log, drain_slowly, master, 100000);
  CALL(write(slave, bytes, 100000));
  free(bytes), close(slave);
  much_later(log, 3, close_it, master, 0);
}

SCRIPT(write_named_fifo) {
  char path[] = "/tmp/evergreen-XXXXXX/fifo";
  path[21] = 0;
  if (!mkdtemp(path)) abort();
  path[21] = '/';
  if (mkfifo(path, 0600) != 0) abort();
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  char *bytes = pattern();
  later(log, drain_slowly, fd, LARGE);
  CALL(write(fd, bytes, LARGE));
  free(bytes);
  much_later(log, 4, close_it, fd, 0);
  unlink(path), path[21] = 0, rmdir(path);
}

SCRIPT(writev_pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  char *bytes = pattern();
  struct iovec vector[] = {{bytes, 7}, {bytes + 7, LARGE - 10000}, {NULL, 0}, {bytes, 10000}};
  later(log, drain_to_end, ends[0], 0);
  CALL(writev(ends[1], vector, 4));
  tell(log, "%zu %zu\n", vector[0].iov_len, vector[1].iov_len);
  free(bytes), close(ends[1]);
}

SCRIPT(writev_socket) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]);
  char *bytes = pattern();
  struct iovec vector[] = {{bytes, 7}, {bytes + 7, LARGE - 7}};
  later(log, drain_to_end, ends[1], 0);
  CALL(writev(ends[0], vector, 2));
  CALL(writev(ends[0], vector, 0));
  free(bytes), close(ends[0]);
}

SCRIPT(write_file) {
  char buffer[64];
  const int fd = open_file("");
  struct iovec vector[] = {{"one ", 4}, {"two", 3}};
  CALL(write(fd, "hello ", 6));
  CALL(writev(fd, vector, 2));
  CALL(pwrite(fd, "J", 1, 0));
  CALL(pwritev(fd, vector, 1, 2));
  CALL_FILLING(buffer, pread(fd, buffer, sizeof buffer, 0));
  close(fd);
}

SCRIPT(write_bad) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  CALL(write(-1, "hello", 5));
  CALL(write(ends[0], "hello", 5));
  CALL_BADLY(write(ends[1], (void *)8, 5));
  CALL_BADLY(writev(ends[1], (void *)8, 1));
  CALL(writev(ends[1], NULL, -1));
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  CALL(write(full, "hello", 5));
  close(full);
  CLOSE(ends);
}

SCRIPT(write_not_blocking) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) abort();
  char *bytes = pattern();
  CALL(write(ends[1], bytes, LARGE));
  CALL(write(ends[1], bytes, LARGE));
  CALL(write(ends[1], bytes, 1));
  free(bytes);
  CLOSE(ends);
}

// MARK: From descriptor to descriptor

SCRIPT(sendfile_large) {
  int ends[2];
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  const int file = open_file("");
  if (pwrite(file, bytes, LARGE, 0) != LARGE) abort();
  off_t offset = 1000;
  later(log, drain_to_end, ends[1], 0);
  CALL(sendfile(ends[0], file, &offset, LARGE));
  tell(log, "offset %ld\n", (long)offset);
  CALL(sendfile(ends[0], -1, NULL, 10));
  CALL(sendfile(-1, file, NULL, 10));
  CALL(fcntl(ends[0], F_GETFL));
  free(bytes), close(ends[0]), close(file);
}

SCRIPT(splice_late) {
  int ends[2], pair[2];
  char buffer[64];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  make_tcp_pair(pair);
  later(log, write_hello, pair[1], 0);
  CALL(splice(pair[0], NULL, ends[1], NULL, 100, 0));
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  later(log, write_hello, pair[1], 0);
  CALL(splice(pair[0], NULL, ends[1], NULL, 100, SPLICE_F_NONBLOCK));  // is for the pipe alone
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CALL(splice(ends[0], NULL, pair[1], NULL, 100, SPLICE_F_NONBLOCK));
  CALL(splice(pair[0], NULL, pair[1], NULL, 100, 0));
  later(log, write_hello, ends[1], 0);
  CALL(splice(ends[0], NULL, pair[0], NULL, 100, 0));
  CALL_FILLING(buffer, read(pair[1], buffer, sizeof buffer));
  CLOSE(ends);
  CLOSE(pair);
}

// MARK: connect and accept

static struct sockaddr_in at(int port) {
  return (struct sockaddr_in){
    .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
    .sin_addr = {htonl(INADDR_LOOPBACK)}};
}


SCRIPT(connect_ready) {
  int port;
  const int listener = make_listener(&port), fd = socket(AF_INET, SOCK_STREAM, 0);
  const struct sockaddr_in address = at(port);
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  CALL(fcntl(fd, F_GETFL));
  const int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  CALL(connect(datagrams, (const struct sockaddr *)&address, sizeof address));
  close(listener), close(fd), close(datagrams);
}

SCRIPT(connect_refused) {
  int port;
  close(make_listener(&port));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const struct sockaddr_in address = at(port);
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  close(fd);
}

SCRIPT(connect_bad) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0), file = open_file("");
  const struct sockaddr_in address = at(1);
  const struct sockaddr_un nowhere = {AF_UNIX, "/nowhere/at/all"};
  CALL(connect(-1, (const struct sockaddr *)&address, sizeof address));
  CALL(connect(file, (const struct sockaddr *)&address, sizeof address));
  CALL(connect(fd, (const struct sockaddr *)&address, 3));
  CALL_BADLY(connect(fd, (const struct sockaddr *)8, sizeof address));
  CALL(connect(fd, (const struct sockaddr *)&nowhere, sizeof nowhere));
  const int local = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL(connect(local, (const struct sockaddr *)&nowhere, sizeof nowhere));
  close(fd), close(file), close(local);
}

SCRIPT(connect_not_blocking) {
  int port;
  const int listener = make_listener(&port), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const struct sockaddr_in address = at(port);
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  struct pollfd one = {.fd = fd, .events = POLLOUT};
  CALL(poll(&one, 1, 5000));
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  close(listener), close(fd);
}

/// Nobody answers there while its queue is full.
static int make_deaf(int *port, int *in_queue) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = at(0);
  socklen_t length = sizeof address;
  if (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 0) != 0) abort();
  getsockname(fd, (struct sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  *in_queue = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(*in_queue, (struct sockaddr *)&address, length) != 0) abort();
  return fd;
}

SCRIPT(connect_time_limit) {
  int port, in_queue;
  const int listener = make_deaf(&port, &in_queue), fd = socket(AF_INET, SOCK_STREAM, 0);
  limit_time(fd, SO_SNDTIMEO, 100);
  const struct sockaddr_in address = at(port);
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  CALL(connect(fd, (const struct sockaddr *)&address, sizeof address));
  close(listener), close(in_queue), close(fd);
}

static void take_two(int fd, long unused) {
  (void)unused;
  for (int i = 0; i < 2; i++) {
    const int taken = accept(fd, NULL, NULL);
    if (taken == -1) abort();
    close(taken);
  }
}

SCRIPT(connect_full_queue) {
  struct sockaddr_un address = {AF_UNIX, {0}};
  socklen_t length = sizeof(sa_family_t);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 0) != 0) abort();
  length = sizeof address;
  getsockname(listener, (struct sockaddr *)&address, &length);
  const int first = socket(AF_UNIX, SOCK_STREAM, 0), second = socket(AF_UNIX, SOCK_STREAM, 0);
  const int third = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL(connect(first, (const struct sockaddr *)&address, length));
  limit_time(second, SO_SNDTIMEO, 50);
  CALL(connect(second, (const struct sockaddr *)&address, length));
  later(log, take_two, listener, 0);
  CALL(connect(third, (const struct sockaddr *)&address, length));
  close(first), close(second), close(third);
  much_later(log, 3, close_it, listener, 0);
}

SCRIPT(accept_late) {
  int port;
  char buffer[64];
  const int listener = make_listener(&port);
  later(log, connect_to, port, 0);
  struct sockaddr_in peer;
  socklen_t length = sizeof peer;
  errno = 0;
  const int taken = accept(listener, (struct sockaddr *)&peer, &length);
  tell(log, "%d, errno %d, length %u, %08x\n", taken >= 0, errno, length, peer.sin_addr.s_addr);
  tell(log, "%x %x\n", fcntl(taken, F_GETFL), fcntl(taken, F_GETFD));
  CALL_FILLING(buffer, recv(taken, buffer, 5, MSG_WAITALL));
  CALL(fcntl(listener, F_GETFL));
  close(taken), close(listener);
}

SCRIPT(accept_ready) {
  int port;
  const int listener = make_listener(&port);
  connect_to(port, 0);
  errno = 0;
  const int taken = accept(listener, NULL, NULL);
  tell(log, "%d, errno %d\n", taken >= 0, errno);
  close(taken), close(listener);
}

SCRIPT(accept_time_limit) {
  int port;
  const int listener = make_listener(&port);
  limit_time(listener, SO_RCVTIMEO, 50);
  CALL(accept(listener, NULL, NULL));
  close(listener);
}

SCRIPT(accept_bad) {
  int ends[2], port;
  make_pair(SOCK_STREAM, ends);
  const int datagrams = make_udp(&port), file = open_file("");
  CALL(accept(-1, NULL, NULL));
  CALL(accept(ends[0], NULL, NULL));
  CALL(accept(datagrams, NULL, NULL));
  CALL(accept4(file, NULL, NULL, 0));
  CALL(accept4(ends[0], NULL, NULL, 12345));
  close(datagrams), close(file);
  CLOSE(ends);
}

SCRIPT(accept_not_blocking) {
  int port;
  const int listener = make_listener(&port);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  CALL(accept(listener, NULL, NULL));
  CALL(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
  CALL(fcntl(listener, F_GETFL));
  close(listener);
}

SCRIPT(accept_flags) {
  int port;
  const int listener = make_listener(&port);
  later(log, connect_to, port, 0);
  errno = 0;
  const int taken = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  tell(log, "%d, errno %d\n", taken >= 0, errno);
  tell(log, "%x %x\n", fcntl(taken, F_GETFL), fcntl(taken, F_GETFD));
  close(taken), close(listener);
}

// What programs call that were compiled for large files.

SCRIPT(sendfile_64) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]), make_small(ends[1]);
  char *bytes = pattern();
  const int file = open_file("");
  if (pwrite(file, bytes, LARGE, 0) != LARGE) abort();
  off64_t offset = 0;
  later(log, drain_to_end, ends[1], 0);
  CALL(sendfile64(ends[0], file, &offset, LARGE));
  tell(log, "offset %ld\n", (long)offset);
  free(bytes), close(ends[0]), close(file);
}

SCRIPT(pwritev2_pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  char *bytes = pattern();
  struct iovec vector[] = {{bytes, 1000}, {bytes + 1000, LARGE - 1000}};
  later(log, drain_to_end, ends[0], 0);
  CALL(pwritev2(ends[1], vector, 2, -1, 0));
  CALL(pwritev2(ends[1], vector, 2, 0, 0));
  free(bytes), close(ends[1]);
}
