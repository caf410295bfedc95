// Evergreen: scripts that poll, sleep, and are interrupted.
// SPDX-License-Identifier: MIT

#include "scripts.h"

#pragma clang diagnostic ignored "-Wdeprecated-declarations"  // siginterrupt is still called

#define CLOSE(ends) (close(ends[0]), close(ends[1]))

static void tell_events(contract_log *log, const struct pollfd *fds, int count) {
  for (int i = 0; i < count; i++) tell(log, "%x ", fds[i].revents);
  tell(log, "\n");
}

SCRIPT(poll_ready) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  write_hello(ends[1], 0);
  struct pollfd fds[] = {{ends[0], POLLIN | POLLOUT, 0}, {ends[1], POLLIN, 0}, {-1, POLLIN, 7}};
  CALL(poll(fds, 3, -1));
  tell_events(log, fds, 3);
  CALL(poll(fds, 3, 0));
  close(ends[1]);
  CALL(poll(fds, 1, 1000));
  tell_events(log, fds, 1);
  close(ends[0]);
}

SCRIPT(poll_late) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  struct pollfd one = {ends[0], POLLIN | POLLERR, 0};
  CALL(poll(&one, 1, -1));
  tell_events(log, &one, 1);
  CLOSE(ends);
}

SCRIPT(poll_time) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  struct pollfd one = {ends[0], POLLIN, 99};
  CALL(poll(&one, 1, 30));
  tell_events(log, &one, 1);
  CALL(poll(&one, 1, 0));
  CLOSE(ends);
}

SCRIPT(poll_bad) {
  struct pollfd fds[] = {{1 << 20, POLLIN, 0}, {-5, POLLIN, 0}};
  CALL(poll(fds, 2, -1));
  tell_events(log, fds, 2);
  CALL_BADLY(poll((void *)8, 1, -1));
  CALL_BADLY(poll(fds, (nfds_t)1 << 30, -1));
  const struct timespec wrong = {0, 2000000000}, before = {-1, 0};
  CALL(ppoll(fds, 2, &wrong, NULL));
  CALL(ppoll(fds, 2, &before, NULL));
}

SCRIPT(poll_many) {
  enum { COUNT = 60 };
  int ends[COUNT][2];
  struct pollfd fds[COUNT];
  for (int i = 0; i < COUNT; i++) {
    make_pair(SOCK_STREAM, ends[i]);
    fds[i] = (struct pollfd){ends[i][0], POLLIN, 0};
  }
  later(log, write_hello, ends[17][1], 0);
  CALL(poll(fds, COUNT, -1));
  tell_events(log, fds, COUNT);
  for (int i = 0; i < COUNT; i++) CLOSE(ends[i]);
}

/// Of some descriptors, again and again.
SCRIPT(poll_thousand) {
  enum { COUNT = 1000, PAIRS = 20 };
  int ends[PAIRS][2];
  struct pollfd *fds = calloc(COUNT, sizeof *fds);
  for (int i = 0; i < PAIRS; i++) make_pair(SOCK_STREAM, ends[i]);
  for (int i = 0; i < COUNT; i++) {
    fds[i] = (struct pollfd){i % 7 == 0 ? -1 : ends[i % PAIRS][0], POLLIN, 9};
  }
  CALL(poll(fds, COUNT, 20));
  later(log, write_hello, ends[13][1], 0);
  CALL(poll(fds, COUNT, -1));
  tell_events(log, fds, COUNT);
  for (int i = 0; i < PAIRS; i++) CLOSE(ends[i]);
  free(fds);
}

SCRIPT(poll_nothing) {
  CALL(poll(NULL, 0, 30));
  struct pollfd none = {-1, POLLIN, 1};
  CALL(poll(&none, 1, 30));
  tell_events(log, &none, 1);
}

SCRIPT(poll_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  later(log, close_it, ends[1], 0);
  struct pollfd one = {ends[0], POLLIN, 0};
  CALL(poll(&one, 1, -1));
  tell_events(log, &one, 1);
  close(ends[0]);
}

static void send_urgent(int fd, long unused) {
  (void)unused;
  send(fd, "!", 1, MSG_OOB);
}

static void stop_sending(int fd, long unused) {
  (void)unused;
  shutdown(fd, SHUT_WR);
}

SCRIPT(poll_other_events) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, send_urgent, ends[1], 0);
  struct pollfd one = {ends[0], POLLPRI, 0};
  CALL(poll(&one, 1, -1));
  tell_events(log, &one, 1);
  later(log, stop_sending, ends[1], 0);
  one.events = POLLRDHUP;
  CALL(poll(&one, 1, -1));
  tell_events(log, &one, 1);
  later(log, reset_it, ends[1], 0);
  one.events = 0;
  CALL(poll(&one, 1, -1));
  tell_events(log, &one, 1);
  close(ends[0]);
}

SCRIPT(poll_twice_the_same) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  char bytes[65536] = {0};
  while (send(ends[0], bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
  later(log, write_hello, ends[1], 0);
  struct pollfd fds[] = {{ends[0], POLLOUT, 0}, {ends[0], POLLIN, 0}, {ends[0], POLLIN, 0}};
  CALL(poll(fds, 3, -1));
  tell_events(log, fds, 3);
  CLOSE(ends);
}

SCRIPT(poll_files) {
  const int file = open_file("text"), null = open("/dev/null", O_RDWR | O_CLOEXEC);
  struct pollfd fds[] = {{file, POLLIN, 0}, {null, POLLIN | POLLOUT, 0}};
  CALL(poll(fds, 2, -1));
  tell_events(log, fds, 2);
  close(file), close(null);
}

int __poll_chk(struct pollfd *, nfds_t, int, size_t);
int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

SCRIPT(poll_checked) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  struct pollfd one = {ends[0], POLLIN, 0};
  const struct timespec time = {0, 20000000};
  CALL(__poll_chk(&one, 1, 20, sizeof one));
  CALL(__ppoll_chk(&one, 1, &time, NULL, sizeof one));
  CLOSE(ends);
}

SCRIPT(ppoll_late) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  later(log, write_hello, ends[1], 0);
  struct pollfd one = {ends[0], POLLIN, 0};
  const struct timespec time = {5, 0}, little = {0, 20000000};
  CALL(ppoll(&one, 1, &time, NULL));
  tell_events(log, &one, 1);
  one.fd = ends[1];
  CALL(ppoll(&one, 1, &little, NULL));
  CLOSE(ends);
}

// MARK: Signals

static atomic_int seen;  // by handlers
static void note(int signal) { seen += signal == SIGUSR1 ? 1 : 100; }

/// Has SIGUSR1 handled by `note`, and what was before kept in `before`.
static void handle(int flags, struct sigaction *before) {
  struct sigaction action = {.sa_handler = note, .sa_flags = flags};
  seen = 0;
  sigaction(SIGUSR1, &action, before);
}

static void stop_handling(contract_log *log, const struct sigaction *before) {
  tell(log, "%d handled\n", (int)seen);
  sigaction(SIGUSR1, before, NULL);
}

#define INTERRUPT(times) much_later(log, times, signal_thread, SIGUSR1, (long)log->self)

SCRIPT(ppoll_signal) {
  struct sigaction before;
  sigset_t blocked, old;
  handle(SA_RESTART, &before);
  sigemptyset(&blocked), sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  pthread_kill(pthread_self(), SIGUSR1);
  CALL(poll(NULL, 0, 20));
  tell(log, "%d handled\n", (int)seen);
  sigset_t none;
  sigemptyset(&none);
  const struct timespec time = {5, 0};
  CALL(ppoll(NULL, 0, &time, &none));  // was pending
  INTERRUPT(1);
  CALL(ppoll(NULL, 0, &time, &none));  // comes
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  stop_handling(log, &before);
}

SCRIPT(pselect_signal) {
  struct sigaction before;
  sigset_t blocked, old;
  handle(0, &before);
  sigemptyset(&blocked), sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  INTERRUPT(1);
  const struct timespec time = {5, 0};
  sigset_t none;
  sigemptyset(&none);
  CALL(pselect(0, NULL, NULL, NULL, &time, &none));
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  stop_handling(log, &before);
}

SCRIPT(epoll_pwait_signal) {
  struct sigaction before;
  sigset_t blocked, old;
  handle(SA_RESTART, &before);
  sigemptyset(&blocked), sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  INTERRUPT(1);
  sigset_t none;
  sigemptyset(&none);
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  CALL(epoll_pwait(set, &event, 1, 5000, &none));
  close(set);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  stop_handling(log, &before);
}

SCRIPT(signal_breaks_recv) {
  int ends[2];
  char buffer[8];
  struct sigaction before;
  make_pair(SOCK_STREAM, ends);
  handle(0, &before);
  INTERRUPT(1);
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  stop_handling(log, &before);
  CLOSE(ends);
}

SCRIPT(signal_lets_recv_go_on) {
  int ends[2];
  char buffer[8];
  struct sigaction before;
  make_pair(SOCK_STREAM, ends);
  handle(SA_RESTART, &before);
  INTERRUPT(1);
  much_later(log, 3, write_hello, ends[1], 0);
  CALL_FILLING(buffer, recv(ends[0], buffer, sizeof buffer, 0));
  stop_handling(log, &before);
  CLOSE(ends);
}

SCRIPT(signal_breaks_timed_recv) {
  int ends[2];
  char buffer[8];
  struct sigaction before;
  make_pair(SOCK_STREAM, ends);
  limit_time(ends[0], SO_RCVTIMEO, 5000);
  handle(SA_RESTART, &before);
  INTERRUPT(1);
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  stop_handling(log, &before);
  CLOSE(ends);
}

SCRIPT(signal_breaks_poll) {
  int ends[2];
  struct sigaction before;
  make_pair(SOCK_STREAM, ends);
  handle(SA_RESTART, &before);
  INTERRUPT(1);
  struct pollfd one = {ends[0], POLLIN, 9};
  CALL(poll(&one, 1, 5000));
  INTERRUPT(1);
  fd_set set;
  FD_ZERO(&set); FD_SET(ends[0], &set);
  struct timeval time = {5, 0};
  CALL(select(ends[0] + 1, &set, NULL, NULL, &time));
  tell(log, "set %d\n", FD_ISSET(ends[0], &set) != 0);
  stop_handling(log, &before);
  CLOSE(ends);
}

SCRIPT(signal_breaks_sleep) {
  struct sigaction before;
  handle(SA_RESTART, &before);
  INTERRUPT(1);
  struct timespec time = {10, 0}, rest = {0, 0};
  CALL(nanosleep(&time, &rest));
  tell(log, "rest %d\n", rest.tv_sec == 9 && rest.tv_nsec > 0);
  INTERRUPT(1);
  CALL(usleep(900000));
  INTERRUPT(1);
  CALL(sleep(10));
  INTERRUPT(1);
  CALL(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &rest));
  INTERRUPT(1);
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  CALL(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
  stop_handling(log, &before);
}

SCRIPT(signal_breaks_read) {
  int ends[2], master, slave;
  char buffer[8];
  struct sigaction before;
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) abort();
  handle(0, &before);
  INTERRUPT(1);
  CALL(read(ends[0], buffer, sizeof buffer));
  INTERRUPT(1);
  CALL(read(slave, buffer, sizeof buffer));
  stop_handling(log, &before);
  close(master), close(slave);
  CLOSE(ends);
}

SCRIPT(signal_breaks_accept) {
  int port;
  struct sigaction before;
  const int listener = make_listener(&port);
  handle(0, &before);
  INTERRUPT(1);
  CALL(accept(listener, NULL, NULL));
  stop_handling(log, &before);
  close(listener);
}

SCRIPT(signal_breaks_waitpid) {
  struct sigaction before;
  const pid_t child = start("sleep 10");
  handle(0, &before);
  INTERRUPT(1);
  const long result = waitpid(child, NULL, 0);
  tell(log, "%ld, errno %d\n", result, errno);
  stop_handling(log, &before);
  kill(child, SIGKILL);
  int status = 0;
  tell(log, "%d\n", waitpid(child, &status, 0) == child);
  tell(log, "status %x\n", status);
}

SCRIPT(signal_breaks_epoll) {
  struct sigaction before;
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  handle(SA_RESTART, &before);
  INTERRUPT(1);
  CALL(epoll_wait(set, &event, 1, 5000));
  stop_handling(log, &before);
  close(set);
}

SCRIPT(signal_after_a_part) {
  int ends[2];
  struct sigaction before;
  make_pair(SOCK_STREAM, ends);
  make_small(ends[0]);
  char *bytes = calloc(1, 300000);
  handle(0, &before);
  INTERRUPT(1);
  errno = 0;
  const ssize_t sent = send(ends[0], bytes, 300000, 0);
  tell(log, "a part: %d, errno %d\n", sent > 0 && sent < 300000, errno);
  stop_handling(log, &before);
  free(bytes);
  CLOSE(ends);
}

static void note_with_info(int signal, siginfo_t *info, void *context) {
  (void)context;
  seen += info->si_signo == signal ? 1000 : 0;
}

/// What was installed is what is told, whoever asks.
SCRIPT(signal_handlers) {
  struct sigaction before, action = {.sa_handler = note, .sa_flags = SA_RESTART}, told;
  sigaction(SIGUSR2, &action, &before);
  sigaction(SIGUSR2, NULL, &told);
  tell(log, "%d %x\n", told.sa_handler == note, told.sa_flags & ~0x04000000);
  action = (struct sigaction){.sa_sigaction = note_with_info, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR2, &action, &told);
  tell(log, "%d %x\n", told.sa_handler == note, told.sa_flags & ~0x04000000);
  seen = 0;
  raise(SIGUSR2);
  tell(log, "%d\n", (int)seen);
  tell(log, "%d\n", signal(SIGUSR2, SIG_IGN) == (void *)note_with_info);
  raise(SIGUSR2);
  tell(log, "%d\n", signal(SIGUSR2, note) == SIG_IGN);
  raise(SIGUSR2);
  tell(log, "%d\n", (int)seen);
  CALL(siginterrupt(SIGUSR2, 1));
  sigaction(SIGUSR2, NULL, &told);
  tell(log, "%d %x\n", told.sa_handler == note, told.sa_flags & ~0x04000000);
  CALL(sigaction(SIGKILL, &action, NULL));
  CALL(sigaction(99, &action, NULL));
  CALL(signal(0, note));
  action.sa_flags = SA_SIGINFO | (int)SA_RESETHAND;
  sigaction(SIGUSR2, &action, NULL);
  raise(SIGUSR2);
  tell(log, "%d\n", (int)seen);
  sigaction(SIGUSR2, &before, &told);
  tell(log, "%d\n", told.sa_handler == SIG_DFL);
}

// MARK: select

SCRIPT(select_late) {
  int ends[2];
  make_tcp_pair(ends);
  later(log, write_hello, ends[1], 0);
  fd_set reading, writing;
  FD_ZERO(&reading); FD_SET(ends[0], &reading);
  FD_ZERO(&writing);
  CALL(select(ends[0] + 1, &reading, &writing, NULL, NULL));
  tell(log, "set %d\n", FD_ISSET(ends[0], &reading) != 0);
  CLOSE(ends);
}

SCRIPT(select_time) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  fd_set reading;
  FD_ZERO(&reading); FD_SET(ends[0], &reading);
  struct timeval time = {0, 30000};
  CALL(select(ends[0] + 1, &reading, NULL, NULL, &time));
  tell(log, "set %d, left %ld.%06ld\n", FD_ISSET(ends[0], &reading) != 0, time.tv_sec,
       (long)time.tv_usec);
  time = (struct timeval){0, 20000};
  CALL(select(0, NULL, NULL, NULL, &time));
  FD_SET(ends[0], &reading); FD_SET(ends[1], &reading);
  later(log, write_hello, ends[1], 0);
  time = (struct timeval){10, 0};
  CALL(select((ends[0] > ends[1] ? ends[0] : ends[1]) + 1, &reading, NULL, NULL, &time));
  tell(log, "left %d\n", time.tv_sec == 9 && time.tv_usec > 0);
  tell(log, "set %d %d\n", FD_ISSET(ends[0], &reading) != 0, FD_ISSET(ends[1], &reading) != 0);
  CLOSE(ends);
}

SCRIPT(select_bad) {
  fd_set reading;
  FD_ZERO(&reading); FD_SET(1000, &reading);
  struct timeval time = {0, 50000}, wrong = {-1, 0};
  CALL(select(1001, &reading, NULL, NULL, &time));
  CALL(select(-1, &reading, NULL, NULL, &time));
  CALL(select(1, &reading, NULL, NULL, &wrong));
  FD_ZERO(&reading);
  CALL_BADLY(select(1, (fd_set *)8, NULL, NULL, &time));
  const struct timespec strange = {0, 2000000000};
  CALL(pselect(0, NULL, NULL, NULL, &strange, NULL));
}

SCRIPT(select_files) {
  const int file = open_file("text");
  fd_set reading, writing, special;
  FD_ZERO(&reading); FD_SET(file, &reading);
  FD_ZERO(&writing); FD_SET(file, &writing);
  FD_ZERO(&special); FD_SET(file, &special);
  CALL(select(file + 1, &reading, &writing, &special, NULL));
  tell(log, "%d %d %d\n", FD_ISSET(file, &reading) != 0, FD_ISSET(file, &writing) != 0,
       FD_ISSET(file, &special) != 0);
  close(file);
}

SCRIPT(select_sets) {
  int ends[2], other[2];
  make_tcp_pair(ends), make_tcp_pair(other);
  later(log, send_urgent, ends[1], 0);
  fd_set reading, special;
  FD_ZERO(&reading); FD_SET(other[0], &reading);
  FD_ZERO(&special); FD_SET(ends[0], &special);
  const int count = (ends[0] > other[0] ? ends[0] : other[0]) + 1;
  CALL(select(count, &reading, NULL, &special, NULL));
  tell(log, "%d %d\n", FD_ISSET(other[0], &reading) != 0, FD_ISSET(ends[0], &special) != 0);
  later(log, reset_it, other[1], 0);
  FD_SET(other[0], &reading);
  CALL(select(count, &reading, NULL, NULL, NULL));
  tell(log, "%d\n", FD_ISSET(other[0], &reading) != 0);
  close(other[0]);
  CLOSE(ends);
}

// MARK: epoll

SCRIPT(epoll_late) {
  int ends[2];
  make_tcp_pair(ends);
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 42}, found[4];
  epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event);
  later(log, write_hello, ends[1], 0);
  memset(found, 0, sizeof found);
  CALL(epoll_wait(set, found, 4, -1));
  tell(log, "%x %lu\n", found[0].events, (unsigned long)found[0].data.u64);
  CALL(epoll_wait(set, found, 4, 20));
  close(set);
  CLOSE(ends);
}

SCRIPT(epoll_time) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  CALL(epoll_wait(set, &event, 1, 30));
  CALL(epoll_wait(set, &event, 1, 0));
  close(set);
}

SCRIPT(epoll_bad) {
  struct epoll_event event;
  const int set = epoll_create1(EPOLL_CLOEXEC), file = open_file("");
  CALL(epoll_wait(-1, &event, 1, -1));
  CALL(epoll_wait(file, &event, 1, -1));
  CALL(epoll_wait(set, &event, 0, -1));
  CALL(epoll_wait(set, &event, -1, -1));
  close(set), close(file);
}

SCRIPT(epoll_2) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  const int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
  epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event);
  const struct timespec little = {0, 20000000}, wrong = {0, -1};
  CALL(epoll_pwait2(set, &event, 1, &little, NULL));
  CALL(epoll_pwait2(set, &event, 1, &wrong, NULL));
  later(log, write_hello, ends[1], 0);
  CALL(epoll_pwait2(set, &event, 1, NULL, NULL));
  char buffer[8];
  CALL(recv(ends[0], buffer, sizeof buffer, 0));
  later(log, write_hello, ends[1], 0);
  CALL(epoll_pwait(set, &event, 1, -1, NULL));
  close(set);
  CLOSE(ends);
}

// MARK: Time

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

SCRIPT(sleep_some) {
  const long begin = milliseconds();
  struct timespec time = {0, 20000000}, rest = {7, 7};
  CALL(sleep(0));
  CALL(usleep(0));
  CALL(usleep(20000));
  CALL(nanosleep(&time, &rest));
  CALL(nanosleep(&time, NULL));
  CALL(clock_nanosleep(CLOCK_REALTIME, 0, &time, NULL));
  CALL(clock_nanosleep(CLOCK_BOOTTIME, 0, &time, &rest));
  tell(log, "rest %ld, long enough %d\n", (long)rest.tv_sec, milliseconds() - begin >= 100);
}

SCRIPT(sleep_bad) {
  struct timespec wrong = {0, 1000000000}, before = {-1, 0};
  CALL(nanosleep(&wrong, NULL));
  CALL(nanosleep(&before, NULL));
  CALL_BADLY(nanosleep((void *)8, NULL));
  CALL(clock_nanosleep(CLOCK_MONOTONIC, 0, &wrong, NULL));
  CALL(clock_nanosleep(77, 0, &before, NULL));
  CALL(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &before, NULL));
}

SCRIPT(sleep_until) {
  struct timespec until;
  const long begin = milliseconds();
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 30000000;
  until.tv_sec += until.tv_nsec / 1000000000, until.tv_nsec %= 1000000000;
  CALL(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
  CALL(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 30000000;
  until.tv_sec += until.tv_nsec / 1000000000, until.tv_nsec %= 1000000000;
  CALL(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
  tell(log, "long enough %d\n", milliseconds() - begin >= 59);
}

// MARK: select, and other names

/// A page of memory behind which there is none.
static char *page_before_nothing(void) {
  char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + 4096, 4096, PROT_NONE) != 0) abort();
  return pages;
}

/// Of the sets: at the time libc looks itself.
SCRIPT(select_wild) {
  char *const page = page_before_nothing(), *const nothing = page + 4096;
  fd_set *const none = (fd_set *)nothing, *const half = (fd_set *)(nothing - 8);
  fd_set *const large = malloc(sizeof *large);
  FD_ZERO(large);
  struct timeval time = {0, 20000};
  const struct timespec precisely = {0, 20000000};
  CALL_BADLY(select(1, none, NULL, NULL, &time));
  CALL_BADLY(select(1, NULL, none, NULL, &time));
  CALL_BADLY(select(1, NULL, NULL, none, &time));
  CALL_BADLY(select(1, large, none, NULL, NULL));
  CALL_BADLY(pselect(1, none, NULL, NULL, &precisely, NULL));
  CALL_BADLY(pselect(1, NULL, NULL, NULL, &precisely, (sigset_t *)nothing));
  CALL_BADLY(select(1, (fd_set *)0x123456789000, NULL, NULL, &time));
  // So much of it is looked at as the count says.
  memset(half, 0, 8);
  CALL_BADLY(select(64, half, NULL, NULL, &time));
  CALL_BADLY(select(65, half, NULL, NULL, &time));
  CALL_BADLY(select(0, none, NULL, NULL, &time));
  mprotect(page, 4096, PROT_READ);
  time = (struct timeval){0, 20000};
  CALL_BADLY(select(64, half, NULL, NULL, &time));
  munmap(page, 8192), free(large);
  tell(log, "asked\n");
}

/// Numbers behind the end of the process's table are passed over, and the others waited for.
SCRIPT(select_beyond) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  fd_set set;
  for (int others = 0; others < 3; others++) {
    FD_ZERO(&set); FD_SET(1020, &set);
    if (others > 0) FD_SET(ends[0], &set);
    if (others > 1) FD_SET(1021, &set);
    struct timeval time = {0, 50000};
    CALL(select(FD_SETSIZE, &set, NULL, NULL, &time));
    if (others == 0) continue;
    later(log, write_hello, ends[1], 0);
    FD_ZERO(&set); FD_SET(1020, &set), FD_SET(ends[0], &set);
    CALL(select(FD_SETSIZE, &set, NULL, NULL, NULL));
    tell(log, "set %d\n", FD_ISSET(ends[0], &set) != 0);
    char buffer[8];
    CALL(recv(ends[0], buffer, sizeof buffer, 0));
  }
  CLOSE(ends);
}

/// Some call with the limit of descriptors, which may be a million, and with sets of the usual size.
SCRIPT(select_to_the_limit) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  char *const page = page_before_nothing();
  fd_set *const set = (fd_set *)(page + 4096 - sizeof(fd_set));
  FD_ZERO(set); FD_SET(ends[0], set);
  struct timeval time = {0, 30000};
  CALL(select(1 << 20, set, NULL, NULL, &time));
  FD_SET(ends[0], set);
  later(log, write_hello, ends[1], 0);
  CALL(select(1 << 20, set, NULL, NULL, NULL));
  tell(log, "set %d\n", FD_ISSET(ends[0], set) != 0);
  munmap(page, 8192);
  CLOSE(ends);
}

static void drain_and_close(int fd, long count) {
  drain_slowly(fd, count);
  close(fd);
}

SCRIPT(select_writing) {
  int ends[2];
  char bytes[4096] = {0};
  make_tcp_pair(ends);
  make_small(ends[0]), make_small(ends[1]);
  while (send(ends[0], bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
  }
  fd_set reading, writing;
  FD_ZERO(&writing); FD_SET(ends[0], &writing);
  struct timeval time = {0, 30000};
  CALL(select(ends[0] + 1, NULL, &writing, NULL, &time));
  FD_ZERO(&reading); FD_SET(ends[0], &reading);
  FD_SET(ends[0], &writing);
  later(log, drain_and_close, ends[1], 100000000);
  CALL(select(ends[0] + 1, &reading, &writing, NULL, NULL));
  tell(log, "set %d %d\n", FD_ISSET(ends[0], &reading) != 0, FD_ISSET(ends[0], &writing) != 0);
  shutdown(ends[0], SHUT_WR);
  CALL(select(ends[0] + 1, &reading, NULL, NULL, &(struct timeval){0, 1000}) >= 0);
  close(ends[0]);
}

sighandler_t bsd_signal(int, sighandler_t);

SCRIPT(signal_other_names) {
  struct sigaction before, told;
  sigaction(SIGUSR2, NULL, &before);
  bsd_signal(SIGUSR2, note);
  sigaction(SIGUSR2, NULL, &told);
  tell(log, "%d %x\n", told.sa_handler == note, told.sa_flags & ~0x04000000);
  tell(log, "%d\n", bsd_signal(SIGUSR2, SIG_IGN) == note);
  tell(log, "%d\n", sysv_signal(SIGUSR2, note) == SIG_IGN);
  sigaction(SIGUSR2, NULL, &told);
  tell(log, "%d %x\n", told.sa_handler == note, (unsigned)told.sa_flags & ~0x04000000u);
  seen = 0;
  raise(SIGUSR2);
  sigaction(SIGUSR2, &before, &told);
  tell(log, "%d %d\n", (int)seen, told.sa_handler == SIG_DFL);
}

ssize_t __read(int, void *, size_t);
ssize_t __write(int, const void *, size_t);
ssize_t __send(int, const void *, size_t, int);
int __connect(int, const struct sockaddr *, socklen_t);
int __poll(struct pollfd *, nfds_t, int);
int __select(int, fd_set *, fd_set *, fd_set *, struct timeval *);
int __nanosleep(const struct timespec *, struct timespec *);
pid_t __waitpid(pid_t, int *, int);
int __close(int);
int __dup2(int, int);
int __fcntl(int, int, ...);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);

/// libc calls them so, and some libraries do.
SCRIPT(other_names) {
  int ends[2], status = 0;
  char buffer[64];
  make_pair(SOCK_STREAM, ends);
  CALL(__write(ends[1], "one", 3));
  CALL_FILLING(buffer, __read(ends[0], buffer, sizeof buffer));
  CALL(__send(ends[1], "three", 5, 0));
  CALL_FILLING(buffer, __recvfrom_chk(ends[0], buffer, 5, sizeof buffer, 0, NULL, NULL));
  later(log, write_hello, ends[1], 0);
  CALL_FILLING(buffer, __read(ends[0], buffer, sizeof buffer));
  struct pollfd one = {ends[0], POLLIN, 0};
  CALL(__poll(&one, 1, 20));
  fd_set set;
  FD_ZERO(&set); FD_SET(ends[0], &set);
  CALL(__select(ends[0] + 1, &set, NULL, NULL, &(struct timeval){0, 20000}));
  const struct timespec little = {0, 20000000};
  CALL(__nanosleep(&little, NULL));
  const pid_t child = start("sleep .03; exit 3");
  tell(log, "%d %x\n", __waitpid(child, &status, 0) == child, status);
  int port;
  const int listener = make_listener(&port), stranger = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  getsockname(listener, (struct sockaddr *)&address, &length);
  CALL(__connect(stranger, (struct sockaddr *)&address, length));
  tell(log, "%d\n", __dup2(stranger, listener) == listener);
  CALL(fcntl64(stranger, F_SETFL, O_NONBLOCK));
  CALL(__fcntl(listener, F_GETFL) & O_NONBLOCK);
  CALL(recv(stranger, buffer, sizeof buffer, 0));
  CALL(__close(stranger));
  CALL(__close(listener));
  CALL(__close(-1));
  CLOSE(ends);
}

SCRIPT(ends_of_descriptors) {
  int ends[2];
  make_pair(SOCK_STREAM, ends);
  const int number = dup(ends[0]);
  tell(log, "%d\n", dup2(ends[1], number) == number);
  tell(log, "%d\n", dup2(number, number) == number);
  tell(log, "%d\n", dup3(ends[0], number, O_CLOEXEC) == number);
  CALL(fcntl(number, F_GETFD));
  errno = 0;
  tell(log, "%d, errno %d\n", dup3(number, number, 0), errno);
  errno = 0;
  tell(log, "%d, errno %d\n", dup2(-1, number), errno);
  errno = 0;
  tell(log, "%d, errno %d\n", dup2(number, -1), errno);
  errno = 0;
  tell(log, "%d, errno %d\n", close_range((unsigned)number, (unsigned)number, 1 << 2), errno);
  CALL(fcntl(number, F_GETFD));
  tell(log, "%d\n", close_range((unsigned)number, (unsigned)number, 0));
  CALL(close_range(7, 3, 0));
  CALL(close_range(1u << 30, ~0u, 0));
  CALL(close_range(1u << 30, ~0u, 1 << 20));
  CALL(close(-1));
  CLOSE(ends);
}
