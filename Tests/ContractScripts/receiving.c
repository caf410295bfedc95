// Evergreen: scripts that receive and read.
// SPDX-License-Identifier: MIT

#include "scripts.h"

#define CLOSE(ends) (close(ends[0]), close(ends[1]))

SCRIPT(recv_ready) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  write_hello(ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(ends[0], buffer, 2, 0));
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(recv_late) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(recv_end) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, close_it, ends[1], 0);
  char buffer[64];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  close(ends[0]);
}

SCRIPT(recv_reset) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, reset_it, ends[1], 0);
  char buffer[64];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  close(ends[0]);
}

SCRIPT(recv_pieces) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  later(log, write_pieces, ends[1], 4);
  char byte;
  for (int i = 0; i < 4; i++) CALL_FILLING(&byte, recv(ends[0], &byte, 1, 0));
  CLOSE(ends);
}

SCRIPT(recv_all) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_pieces, ends[1], 10);
  char buffer[10];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  CLOSE(ends);
}

static void write_and_close(int fd, long count) {
  write_pieces(fd, count);
  close(fd);
}

SCRIPT(recv_all_until_end) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_and_close, ends[1], 4);
  char buffer[10];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  CALL(recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  close(ends[0]);
}

SCRIPT(recv_all_time_limit) {
  int ends[2];
  make_tcp_pair(ends);
  limit_time(ends[0], SO_RCVTIMEO, 200);
  later(log, write_pieces, ends[1], 4);
  char buffer[10];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  CLOSE(ends);
}

SCRIPT(recv_peek) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_PEEK));
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(recv_peek_all) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_pieces, ends[1], 10);
  char buffer[10];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_PEEK | MSG_WAITALL));
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(recv_time_limit) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  limit_time(ends[0], SO_RCVTIMEO, 50);
  char buffer[64];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
}

SCRIPT(recv_not_blocking) {
  int ends[2], on = 1;
  char buffer[64];
  make_pair(SOCK_STREAM | SOCK_NONBLOCK, ends);
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  CLOSE(ends);
  make_pair(SOCK_STREAM, ends);
  CALL(recv(ends[0], buffer, sizeof buffer, MSG_DONTWAIT));
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(recvfrom(ends[0], buffer, sizeof buffer, 0, NULL, NULL));
  CALL(fcntl(ends[0], F_GETFL));
  CLOSE(ends);
  make_pair(SOCK_STREAM, ends);
  ioctl(ends[0], FIONBIO, &on);
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
}

SCRIPT(recv_bad) {
  int ends[2], port;
  char buffer[64];
  CALL(recv(-1, buffer, sizeof buffer, 0));
  CALL(recv(1 << 20, buffer, sizeof buffer, 0));
  const int file = open_file("text"), unconnected = socket(AF_INET, SOCK_STREAM, 0);
  CALL(recv(file, buffer, sizeof buffer, 0));
  CALL(recvfrom(file, buffer, sizeof buffer, 0, NULL, NULL));
  CALL(recv(unconnected, buffer, sizeof buffer, 0));
  CALL(read(unconnected, buffer, sizeof buffer));
  const int listener = make_listener(&port);
  CALL(recv(listener, buffer, sizeof buffer, 0));
  CALL(read(listener, buffer, sizeof buffer));
  close(file), close(unconnected), close(listener);
  make_pair(SOCK_STREAM, ends);
  write_hello(ends[1], 0);
  CALL_BADLY(recv(ends[0], (void *)8, sizeof buffer, 0));
  CALL_BADLY(recvmsg(ends[0], (void *)8, 0));
  CALL_BADLY(recvmmsg(ends[0], (void *)8, 1, 0, NULL));
  CALL(recv(ends[0], buffer, 0, 0));
  CLOSE(ends);
}

SCRIPT(recv_flags) {
  int ends[2];
  char buffer[64];
  make_tcp_pair(ends);
  CALL(recv(ends[0], buffer, sizeof buffer, MSG_OOB));
  CALL(recv(ends[0], buffer, sizeof buffer, MSG_ERRQUEUE));
  CALL(send(ends[1], "ab!", 3, MSG_OOB));
  struct pollfd urgent = {.fd = ends[0], .events = POLLPRI};
  CALL(poll(&urgent, 1, 5000));
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_OOB));
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(recv_datagram) {
  int port;
  const int fd = make_udp(&port);
  later(log, send_to, port, 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(fd, buffer, sizeof buffer, 0));
  later(log, send_to, port, 0);
  CALL_FILLING(buffer, read(fd, buffer, 2));
  CALL(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
  close(fd);
}

SCRIPT(recvfrom_datagram) {
  int port;
  const int fd = make_udp(&port);
  later(log, send_to, port, 0);
  char buffer[64];
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  CALL_FILLING(
    buffer, recvfrom(fd, buffer, sizeof buffer, MSG_WAITALL, (struct sockaddr *)&from, &length));
  tell(log, "length %u, family %d, %08x\n", length, from.sin_family, from.sin_addr.s_addr);
  close(fd);
}

SCRIPT(recv_datagram_cut) {
  int port;
  const int fd = make_udp(&port);
  send_to(port, 0), send_to(port, 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(fd, buffer, 2, 0));
  CALL(recv(fd, buffer, 2, MSG_TRUNC));
  close(fd);
}

static void send_empty(int fd, long unused) {
  (void)unused;
  send(fd, "", 0, 0);
}

SCRIPT(recv_empty_datagram) {
  int ends[2];
  make_pair(SOCK_DGRAM, ends);
  later(log, send_empty, ends[1], 0);
  char buffer[64];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CALL(recv(ends[0], buffer, 0, MSG_DONTWAIT));
  CLOSE(ends);
}

SCRIPT(recv_packet) {
  int ends[2];
  make_pair(SOCK_SEQPACKET, ends);
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, MSG_WAITALL));
  later(log, close_it, ends[1], 0);
  CALL(read(ends[0], buffer, sizeof buffer));
  close(ends[0]);
}

SCRIPT(recvmsg_late) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_pieces, ends[1], 7);
  char one[3], two[4];
  struct iovec vector[] = {{one, 3}, {two, 4}};
  struct msghdr message = {.msg_iov = vector, .msg_iovlen = 2};
  CALL(recvmsg(ends[0], &message, MSG_WAITALL));
  tell_bytes(log, one, 3);
  tell_bytes(log, two, 4);
  tell(log, "flags %x\n", message.msg_flags);
  CLOSE(ends);
}

static void send_descriptor(int fd, long which) {
  char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
  struct iovec vector = {&byte, 1};
  struct msghdr message = {
    .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
  struct cmsghdr *head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  *(int *)(void *)CMSG_DATA(head) = (int)which;
  if (sendmsg(fd, &message, 0) != 1) abort();
}

SCRIPT(recvmsg_rights) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  const int file = open_file("passed on");
  later(log, send_descriptor, ends[1], file);
  char room[CMSG_SPACE(sizeof(int))], byte, buffer[64];
  struct iovec vector = {&byte, 1};
  struct msghdr message = {
    .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
  CALL_FILLING(&byte, recvmsg(ends[0], &message, MSG_CMSG_CLOEXEC));
  tell(log, "control %zu\n", message.msg_controllen);
  const int passed = *(int *)(void *)CMSG_DATA(CMSG_FIRSTHDR(&message));
  tell_bytes(log, buffer, pread(passed, buffer, sizeof buffer, 0));
  close(passed), close(file);
  CLOSE(ends);
}

static void fill(struct mmsghdr *messages, struct iovec *vectors, char (*buffers)[8], int count) {
  for (int i = 0; i < count; i++) {
    vectors[i] = (struct iovec){buffers[i], 8};
    messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &vectors[i], .msg_iovlen = 1}};
  }
}

SCRIPT(recvmmsg_some) {
  int ends[2];
  make_pair(SOCK_DGRAM, ends);
  later(log, write_pieces, ends[1], 3);
  struct mmsghdr messages[3];
  struct iovec vectors[3];
  char buffers[3][8] = {0};
  fill(messages, vectors, buffers, 3);
  CALL(recvmmsg(ends[0], messages, 3, 0, NULL));
  for (int i = 0; i < 3; i++) tell_bytes(log, buffers[i], messages[i].msg_len);
  CALL(recvmmsg(ends[0], messages, 3, MSG_DONTWAIT, NULL));
  CALL(recvmmsg(ends[0], messages, 0, 0, NULL));
  CLOSE(ends);
}

SCRIPT(recvmmsg_for_one) {
  int ends[2];
  make_pair(SOCK_DGRAM, ends);
  later(log, write_hello, ends[1], 0);
  struct mmsghdr messages[3];
  struct iovec vectors[3];
  char buffers[3][8] = {0};
  fill(messages, vectors, buffers, 3);
  CALL(recvmmsg(ends[0], messages, 3, MSG_WAITFORONE, NULL));
  tell_bytes(log, buffers[0], messages[0].msg_len);
  CLOSE(ends);
}

SCRIPT(recvmmsg_time) {
  int ends[2];
  make_pair(SOCK_DGRAM, ends);
  later(log, write_hello, ends[1], 0);
  struct mmsghdr messages[2];
  struct iovec vectors[2];
  char buffers[2][8] = {0};
  fill(messages, vectors, buffers, 2);
  struct timespec time = {0, 1000000};  // looked at when the first has come
  CALL(recvmmsg(ends[0], messages, 2, 0, &time));
  tell(log, "left %ld.%09ld\n", (long)time.tv_sec, time.tv_nsec);
  CLOSE(ends);
}

static void shut_down(int fd, long how) { shutdown(fd, (int)how); }

SCRIPT(recv_shutdown) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, shut_down, ends[0], SHUT_RD);
  char buffer[64];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  CLOSE(ends);
}

// MARK: read

SCRIPT(read_ready) {
  int ends[2];
  char buffer[64];
  make_pair(SOCK_STREAM, ends);
  write_hello(ends[1], 0);
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  write_hello(ends[1], 0);
  CALL_FILLING(buffer, read(ends[0], buffer, 2));
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
}

SCRIPT(read_pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CALL(fcntl(ends[0], F_GETFL));
  CLOSE(ends);
}

SCRIPT(read_pipe_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  later(log, close_it, ends[1], 0);
  char buffer[64];
  CALL(read(ends[0], buffer, sizeof buffer));
  CALL(read(ends[0], buffer, sizeof buffer));
  close(ends[0]);
}

SCRIPT(read_named_fifo) {
  char path[] = "/tmp/evergreen-XXXXXX/fifo";
  path[21] = 0;
  if (!mkdtemp(path)) abort();
  path[21] = '/';
  if (mkfifo(path, 0600) != 0) abort();
  const int fd = open(path, O_RDWR | O_CLOEXEC), writer = open(path, O_WRONLY | O_CLOEXEC);
  later(log, write_hello, writer, 0);
  char buffer[64];
  CALL_FILLING(buffer, read(fd, buffer, sizeof buffer));
  close(fd), close(writer), unlink(path);
  path[21] = 0, rmdir(path);
}

SCRIPT(read_terminal) {
  int master, slave;
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) abort();
  later(log, write_hello, master, 0);
  much_later(log, 2, write_byte, master, '\n');
  char buffer[64];
  CALL_FILLING(buffer, read(slave, buffer, sizeof buffer));  // a whole line
  later(log, close_it, master, 0);
  CALL(read(slave, buffer, sizeof buffer));
  close(slave);
}

SCRIPT(read_eventfd) {
  const int fd = eventfd(0, EFD_CLOEXEC), each = eventfd(2, EFD_CLOEXEC | EFD_SEMAPHORE);
  later(log, write_number, fd, 5);
  uint64_t number = 0;
  CALL_FILLING(&number, read(fd, &number, sizeof number));
  CALL(read(fd, &number, 4));
  CALL_FILLING(&number, read(each, &number, sizeof number));
  CALL_FILLING(&number, read(each, &number, sizeof number));
  later(log, write_number, each, 1);
  CALL_FILLING(&number, read(each, &number, sizeof number));
  close(fd), close(each);
}

SCRIPT(read_signalfd) {
  sigset_t some, old;
  sigemptyset(&some), sigaddset(&some, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &some, &old);
  const int fd = signalfd(-1, &some, SFD_CLOEXEC);
  later(log, signal_thread, SIGUSR2, (long)log->self);
  struct signalfd_siginfo info = {0};
  CALL(read(fd, &info, sizeof info));
  tell(log, "%u\n", info.ssi_signo);
  CALL(read(fd, &info, 4));
  close(fd);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

SCRIPT(read_timerfd) {
  const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  const struct itimerspec time = {.it_value = {0, 30000000}};
  timerfd_settime(fd, 0, &time, NULL);
  uint64_t number = 0;
  CALL_FILLING(&number, read(fd, &number, sizeof number));
  close(fd);
}

static void touch(int directory, long unused) {
  (void)unused;
  close(openat(directory, "new", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

SCRIPT(read_inotify) {
  char path[] = "/tmp/evergreen-XXXXXX";
  if (!mkdtemp(path)) abort();
  const int fd = inotify_init1(IN_CLOEXEC), directory = open(path, O_DIRECTORY | O_CLOEXEC);
  if (inotify_add_watch(fd, path, IN_CREATE) < 0) abort();
  later(log, touch, directory, 0);
  char buffer[512] __attribute__((aligned(8))) = {0};
  CALL(read(fd, buffer, sizeof buffer));
  tell(log, "%s\n", ((struct inotify_event *)(void *)buffer)->name);
  unlinkat(directory, "new", 0), rmdir(path);
  close(fd), close(directory);
}

SCRIPT(read_file) {
  const int fd = open_file("content of a file"), directory = open("/", O_DIRECTORY | O_CLOEXEC);
  char buffer[64];
  CALL_FILLING(buffer, read(fd, buffer, 7));
  CALL_FILLING(buffer, read(fd, buffer, sizeof buffer));
  CALL(read(fd, buffer, sizeof buffer));
  CALL(read(directory, buffer, sizeof buffer));
  close(fd), close(directory);
}

SCRIPT(read_devices) {
  char buffer[16];
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = open("/dev/zero", O_RDWR);
  CALL(read(null, buffer, sizeof buffer));
  CALL_FILLING(buffer, read(zero, buffer, sizeof buffer));
  CALL(write(null, buffer, sizeof buffer));
  close(null), close(zero);
}

SCRIPT(read_bad) {
  int ends[2];
  char buffer[64];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  write_hello(ends[1], 0);
  CALL(read(-1, buffer, sizeof buffer));
  CALL(read(1 << 20, buffer, sizeof buffer));
  CALL(read(ends[1], buffer, sizeof buffer));
  CALL_BADLY(read(ends[0], (void *)8, 4));
  struct iovec vector[] = {{buffer, 4}, {buffer, 4}};
  CALL(readv(ends[0], vector, -1));
  CALL(readv(ends[0], vector, 2000));
  CALL_BADLY(readv(ends[0], (void *)8, 2));
  CLOSE(ends);
}

SCRIPT(read_not_blocking) {
  int ends[2], master, slave;
  char buffer[64];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) abort();
  CALL(read(ends[0], buffer, sizeof buffer));
  CLOSE(ends);
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) abort();
  fcntl(slave, F_SETFL, O_NONBLOCK);
  CALL(read(slave, buffer, sizeof buffer));
  close(master), close(slave);
  const int event = eventfd(0, EFD_NONBLOCK);
  CALL(read(event, buffer, 8));
  close(event);
}

SCRIPT(read_socket) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  later(log, reset_it, ends[1], 0);
  CALL(read(ends[0], buffer, sizeof buffer));
  close(ends[0]);
}

SCRIPT(readv_socket) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  char one[2], two[8];
  struct iovec vector[] = {{one, 2}, {two, 8}};
  CALL(readv(ends[0], vector, 2));
  tell_bytes(log, one, 2);
  tell_bytes(log, two, 3);
  CALL(readv(ends[0], vector, 0));
  CLOSE(ends);
}

SCRIPT(readv_pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  later(log, write_hello, ends[1], 0);
  char one[2], two[8];
  struct iovec vector[] = {{one, 2}, {two, 8}};
  CALL(readv(ends[0], vector, 2));
  tell_bytes(log, one, 2);
  tell_bytes(log, two, 3);
  CLOSE(ends);
}

SCRIPT(read_at) {
  int ends[2];
  char buffer[64];
  const int fd = open_file("content of a file");
  struct iovec vector = {buffer, 4};
  CALL_FILLING(buffer, pread(fd, buffer, 4, 3));
  CALL_FILLING(buffer, preadv(fd, &vector, 1, 5));
  CALL_FILLING(buffer, preadv2(fd, &vector, 1, 6, 0));
  CALL_FILLING(buffer, preadv2(fd, &vector, 1, -1, 0));
  CALL_FILLING(buffer, preadv2(fd, &vector, 1, -1, 0));
  close(fd);
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  CALL(pread(ends[0], buffer, 4, 0));
  CALL(pwrite(ends[1], buffer, 4, 0));
  CLOSE(ends);
}

ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);

SCRIPT(read_checked) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  later(log, write_hello, ends[1], 0);
  char buffer[64];
  CALL_FILLING(buffer, __read_chk(ends[0], buffer, 5, sizeof buffer));
  later(log, write_hello, ends[1], 0);
  CALL_FILLING(buffer, __recv_chk(ends[0], buffer, 5, sizeof buffer, 0));
  CLOSE(ends);
}

SCRIPT(read_nothing) {
  int ends[2];
  char buffer[1];
  make_pair(SOCK_STREAM, ends);
  CALL(read(ends[0], buffer, 0));
  CLOSE(ends);
  make_pair(SOCK_DGRAM, ends);
  CALL(read(ends[0], buffer, 0));
  CALL(write(ends[0], buffer, 0));
  CALL(recv(ends[1], buffer, 1, MSG_DONTWAIT));
  CLOSE(ends);
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  CALL(read(ends[0], buffer, 0));
  CALL(write(ends[1], buffer, 0));
  CLOSE(ends);
}

/// Of a file there is no part but at its end, whatever of it is in memory.
SCRIPT(read_file_in_pieces) {
  enum { PAGES = 64, PAGE = 4096, SIZE = PAGES * PAGE };
  char *bytes = malloc(SIZE), *read_bytes = malloc(2 * SIZE);
  for (int i = 0; i < SIZE; i++) bytes[i] = (char)(i * 31 + i / PAGE);
  const int fd = open_file("");
  if (pwrite(fd, bytes, SIZE, 0) != SIZE || fsync(fd) != 0) abort();
  struct iovec vector[] = {{read_bytes, 100}, {NULL, 0}, {read_bytes + 100, 2 * SIZE - 100}};
  for (int kept = 0; kept < PAGES; kept += 21) {
    posix_fadvise(fd, kept * PAGE, 0, POSIX_FADV_DONTNEED);
    lseek(fd, 10, SEEK_SET);
    CALL_FILLING(read_bytes, read(fd, read_bytes, SIZE / 2));
    CALL(lseek(fd, 0, SEEK_CUR));
    posix_fadvise(fd, kept * PAGE, 0, POSIX_FADV_DONTNEED);
    lseek(fd, 20, SEEK_SET);
    CALL_FILLING(read_bytes, readv(fd, vector, 3));
    CALL(readv(fd, vector, 3));
    CALL(read(fd, read_bytes, SIZE));
  }
  free(bytes), free(read_bytes), close(fd);
}

/// There is less than was asked for.
SCRIPT(read_short) {
  int ends[2];
  char buffer[64];
  struct iovec vector[] = {{buffer, 2}, {buffer + 2, 40}};
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  for (int i = 0; i < 3; i++) {
    write_hello(ends[1], 0);
    CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
    write_hello(ends[1], 0);
    CALL_FILLING(buffer, readv(ends[0], vector, 2));
  }
  CLOSE(ends);
  if (pipe2(ends, O_CLOEXEC | O_DIRECT) != 0) abort();  // of packets
  for (int i = 0; i < 3; i++) write_hello(ends[1], 0);
  CALL_FILLING(buffer, read(ends[0], buffer, 3));
  CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
  CALL_FILLING(buffer, readv(ends[0], vector, 2));
  CLOSE(ends);
  const int event = eventfd(7, EFD_CLOEXEC);
  CALL_FILLING(buffer, read(event, buffer, sizeof buffer));
  close(event);
  const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  CALL_FILLING(buffer, read(zeros, buffer, sizeof buffer));
  close(zeros);
  const int facts = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
  CALL(read(facts, buffer, 3));
  CALL(read(facts, buffer, sizeof buffer) >= 0);
  close(facts);
}

// What programs call that were compiled for large files.
ssize_t preadv64v2(int, const struct iovec *, int, off_t, int);
ssize_t pwritev64v2(int, const struct iovec *, int, off_t, int);

SCRIPT(read_at_64) {
  char buffer[64];
  const int fd = open_file("content of a file");
  struct iovec vector = {buffer, 4};
  CALL_FILLING(buffer, preadv64v2(fd, &vector, 1, 6, 0));
  CALL_FILLING(buffer, preadv64v2(fd, &vector, 1, -1, 0));
  CALL(pwritev64v2(fd, &vector, 1, 2, 0));
  CALL(pwritev64v2(fd, &vector, 1, -1, 0));
  CALL_FILLING(buffer, pread(fd, buffer, sizeof buffer, 0));
  close(fd);
}

/// Makes `number` mean what `fd` does, and closes that, in a way that nobody sees.
static void take_over(int fd, int number) {
  if (syscall(SYS_dup3, fd, number, O_CLOEXEC) != number) abort();
  syscall(SYS_close, fd);
}

/// What is known of a number tells nothing of the next file that has it.
SCRIPT(numbers_of_others) {
  char buffer[64];
  int ends[2], number = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int round = 0; round < 12; round++) {
    switch (round * 5 % 6) {
      case 0: take_over(open_file("a file"), number); break;
      case 1:
        if (pipe2(ends, O_CLOEXEC) != 0) abort();
        take_over(ends[0], number), write_hello(ends[1], 0), close(ends[1]);
        break;
      case 2: make_pair(SOCK_STREAM, ends), take_over(ends[0], number), write_hello(ends[1], 0);
        shutdown(ends[1], SHUT_WR), close(ends[1]);
        break;
      case 3: take_over(open("/proc/self/status", O_RDONLY | O_CLOEXEC), number); break;
      case 4: take_over(eventfd(9, EFD_CLOEXEC), number); break;
      case 5:
        if (pipe2(ends, O_CLOEXEC) != 0) abort();
        take_over(ends[1], number);
        CALL(write(number, "hello", 5));
        CALL_FILLING(buffer, read(ends[0], buffer, sizeof buffer));
        close(ends[0]);
        break;
    }
    CALL_FILLING(buffer, read(number, buffer, 8));
    CALL(write(number, "12345678", 8));
    CALL(write(number, "1", 1));
  }
  close(number);
}

SCRIPT(number_of_a_pipe) {
  char buffer[64];
  int ends[2];
  const int number = open_file("content");
  for (int i = 0; i < 3; i++) CALL_FILLING(buffer, read(number, buffer, 3));
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  take_over(ends[0], number);
  later(log, write_hello, ends[1], 0);
  CALL_FILLING(buffer, read(number, buffer, sizeof buffer));
  close(ends[1]), close(number);
}
