// Evergreen: how scripts are written, and run.
// SPDX-License-Identifier: MIT

#include "scripts.h"

void tell(contract_log *log, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const size_t room = STORY_SIZE - log->length;
  const int length = vsnprintf(log->story + log->length, room, format, arguments);
  va_end(arguments);
  if (length > 0) log->length += (size_t)length < room ? (size_t)length : room - 1;
}

void tell_result(contract_log *log, const char *what, long result, int error) {
  tell(log, "%s = %ld, errno %d\n", what, result, error);
}

void tell_bytes(contract_log *log, const void *bytes, long count) {
  if (count <= 0) return;
  if (count > 64) {
    uint32_t sum = 2166136261u;
    for (long i = 0; i < count; i++) sum = (sum ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    tell(log, "  %ld bytes, sum %08x\n", count, sum);
    return;
  }
  tell(log, "  ");
  for (long i = 0; i < count; i++) tell(log, "%02x", ((const uint8_t *)bytes)[i]);
  tell(log, "\n");
}

// MARK: Peers

typedef struct peer {
  deed deed;
  int fd, times;
  long argument;
} peer;

static void *run_peer(void *argument) {
  peer peer = *(struct peer *)argument;
  free(argument);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  usleep((useconds_t)peer.times * 30000);
  peer.deed(peer.fd, peer.argument);
  return NULL;
}

void much_later(contract_log *log, int times, deed deed, int fd, long argument) {
  peer *peer = malloc(sizeof *peer);
  *peer = (struct peer){deed, fd, times, argument};
  pthread_create(&log->peers[log->peer_count++], NULL, run_peer, peer);
}

void later(contract_log *log, deed deed, int fd, long argument) {
  much_later(log, 1, deed, fd, argument);
}

void write_byte(int fd, long byte) {
  const char one = (char)byte;
  if (write(fd, &one, 1) != 1) abort();
}

void write_hello(int fd, long unused) {
  (void)unused;
  if (write(fd, "hello", 5) != 5) abort();
}

void write_pieces(int fd, long count) {
  for (long i = 0; i < count; i++) {
    write_byte(fd, 'a' + i % 26);
    usleep(3000);
  }
}

void write_number(int fd, long number) {
  const uint64_t eight = (uint64_t)number;
  if (write(fd, &eight, sizeof eight) != sizeof eight) abort();
}

void close_it(int fd, long unused) {
  (void)unused;
  close(fd);
}

void reset_it(int fd, long unused) {
  (void)unused;
  const struct linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

void drain_slowly(int fd, long count) {
  char buffer[4096];
  while (count > 0) {
    const ssize_t some = read(fd, buffer, sizeof buffer);
    if (some <= 0) return;
    count -= some;
    usleep(100);
  }
}

void drain_some(int fd, long count) {
  char *buffer = malloc((size_t)count);
  if (read(fd, buffer, (size_t)count) <= 0) abort();
  free(buffer);
}

static struct sockaddr_in loopback(int port) {
  return (struct sockaddr_in){
    .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
    .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

void connect_to(int port, long unused) {
  (void)unused;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in address = loopback(port);
  if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) abort();
  write_hello(fd, 0);
  close(fd);
}

void send_to(int port, long unused) {
  (void)unused;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in address = loopback(port);
  sendto(fd, "hello", 5, 0, (const struct sockaddr *)&address, sizeof address);
  close(fd);
}

void signal_thread(int signal, long thread) { pthread_kill((pthread_t)thread, signal); }

void unlock_it(int fd, long unused) {
  (void)unused;
  flock(fd, LOCK_UN);
}

// MARK: What is tried

void make_pair(int type, int ends[2]) {
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) abort();
}

int make_listener(int *port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 8) != 0) abort();
  getsockname(fd, (struct sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  return fd;
}

void make_tcp_pair(int ends[2]) {
  int port;
  const int listener = make_listener(&port);
  ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in address = loopback(port);
  if (connect(ends[1], (const struct sockaddr *)&address, sizeof address) != 0) abort();
  ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (ends[0] == -1) abort();
  close(listener);
}

int make_udp(int *port) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (bind(fd, (struct sockaddr *)&address, length) != 0) abort();
  getsockname(fd, (struct sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  return fd;
}

int open_file(const char *content) {
  const int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd == -1 || pwrite(fd, content, strlen(content), 0) != (ssize_t)strlen(content)) abort();
  return fd;
}

pid_t start(const char *command) {
  char *const arguments[] = {"sh", "-c", (char *)command, NULL};
  pid_t process;
  if (posix_spawn(&process, "/bin/sh", NULL, NULL, arguments, environ) != 0) abort();
  return process;
}

void limit_time(int fd, int option, int milliseconds) {
  const struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
  if (setsockopt(fd, SOL_SOCKET, option, &time, sizeof time) != 0) abort();
}

void make_small(int fd) {
  const int size = 8 * 1024;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

// MARK: All of them

#define SCRIPTS(S, W, L)                                                                           \
  S(recv_ready) W(recv_late) W(recv_end) W(recv_reset) W(recv_pieces) W(recv_all)                  \
  W(recv_all_until_end) W(recv_all_time_limit) W(recv_peek) W(recv_peek_all) W(recv_time_limit)    \
  S(recv_not_blocking) S(recv_bad) S(recv_flags) W(recv_datagram) W(recvfrom_datagram)             \
  S(recv_datagram_cut) W(recv_empty_datagram) W(recv_packet) W(recvmsg_late) W(recvmsg_rights)     \
  W(recvmmsg_some) W(recvmmsg_for_one) W(recvmmsg_time) W(recv_shutdown)                           \
  S(read_ready) W(read_pipe) W(read_pipe_end) W(read_named_fifo) W(read_terminal) W(read_eventfd)  \
  W(read_signalfd)                                                                                 \
  W(read_timerfd) W(read_inotify) S(read_file) S(read_devices) S(read_bad) S(read_not_blocking)    \
  S(read_file_in_pieces) S(read_short) S(read_at_64) S(numbers_of_others) W(number_of_a_pipe)      \
  W(read_socket) W(readv_socket) W(readv_pipe) S(read_at) W(read_checked) S(read_nothing)          \
  S(send_small) W(send_large) W(send_large_tcp) W(send_until_reset) S(send_to_nobody)              \
  W(send_time_limit) S(send_not_blocking) S(send_bad) W(sendmsg_large) S(sendmsg_rights)           \
  S(sendmmsg_some) W(sendmmsg_large) W(send_full_datagrams) S(sendto_datagram)                     \
  S(write_small) W(write_pipe_large) W(write_pipe_atomic) S(write_pipe_to_nobody)                  \
  W(write_eventfd_full) W(write_terminal) W(write_named_fifo) W(writev_pipe) W(writev_socket)      \
  S(write_file) S(write_bad) S(write_not_blocking) W(sendfile_large) W(sendfile_64)                \
  W(splice_late) W(pwritev2_pipe)                                                                  \
  S(connect_ready) S(connect_refused) S(connect_bad) S(connect_not_blocking) W(connect_time_limit) \
  W(connect_full_queue) W(accept_late) S(accept_ready) W(accept_time_limit) S(accept_bad)          \
  S(accept_not_blocking) W(accept_flags)                                                           \
  S(poll_ready) W(poll_late) W(poll_time) S(poll_bad) W(poll_many) W(poll_nothing) W(poll_end)     \
  W(poll_other_events) W(poll_twice_the_same) S(poll_files) W(poll_checked) W(ppoll_late)          \
  W(poll_thousand) W(ppoll_signal) W(select_late) W(select_time) S(select_bad) S(select_files)     \
  W(select_sets) S(select_wild) W(select_beyond) W(select_to_the_limit) W(select_writing)          \
  W(pselect_signal) W(epoll_late) W(epoll_time) S(epoll_bad) W(epoll_pwait_signal) W(epoll_2)      \
  W(sleep_some) S(sleep_bad) W(sleep_until)                                                        \
  W(signal_breaks_recv) W(signal_lets_recv_go_on) W(signal_breaks_timed_recv) W(signal_breaks_poll)\
  W(signal_breaks_sleep) W(signal_breaks_read) W(signal_breaks_accept) W(signal_breaks_waitpid)    \
  W(signal_breaks_epoll) W(signal_after_a_part) S(signal_handlers)                                 \
  S(signal_other_names) W(other_names) S(ends_of_descriptors)                                      \
  S(names_numeric) W(names_local) W(names_unknown) W(names_back) W(hosts) W(hosts_reentrant)       \
  W(wait_late) S(wait_ready) S(wait_bad) W(wait_any) W(wait_stopped) W(wait_id) W(wait_usage)      \
  S(run_vfork) W(run_system) W(run_system_signals) W(run_popen)                                    \
  W(lock_whole) S(lock_taken) W(lock_range) S(lock_bad) S(lock_large)                              \
  L(mutex_free) L(mutex_late) L(mutex_kinds) L(mutex_time_limit) L(mutex_robust) L(mutex_bad)      \
  L(shared_lock_late) L(shared_lock_time_limit) L(condition_late) L(condition_time_limit)          \
  L(condition_both_ways) L(condition_bad) L(semaphore_late) L(semaphore_time_limit)                \
  L(semaphore_signal) L(join_late) L(join_bad) L(once_late) L(spin_late) L(locks_in_c)

#define DECLARE(name) SCRIPT(name);
SCRIPTS(DECLARE, DECLARE, DECLARE)

#define AT_ONCE(name) {#name, script_##name, false, false},
#define WAITING(name) {#name, script_##name, true, false},
#define LOCKING(name) {#name, script_##name, true, true},
static const contract_script all[] = {SCRIPTS(AT_ONCE, WAITING, LOCKING)};
const contract_script *const contract_scripts = all;
const int contract_script_count = sizeof all / sizeof all[0];

const char *contract_run(const contract_script *script, contract_log *log) {
  memset(log, 0, sizeof *log);
  log->self = pthread_self();
  // Threads of a pool let no signals in.
  sigset_t some, before;
  sigemptyset(&some), sigaddset(&some, SIGUSR1), sigaddset(&some, SIGUSR2);
  pthread_sigmask(SIG_UNBLOCK, &some, &before);
  script->run(log);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  for (int i = 0; i < log->peer_count; i++) pthread_join(log->peers[i], NULL);
  return log->story;
}
