// Evergreen: scripts that ask for names, wait for processes, and lock files.
// SPDX-License-Identifier: MIT

#include "scripts.h"

static void tell_addresses(contract_log *log, const struct addrinfo *list) {
  for (; list; list = list->ai_next) {
    tell(log, "  %d %d %d %x %s: ", list->ai_family, list->ai_socktype, list->ai_protocol,
         list->ai_flags, list->ai_canonname ? list->ai_canonname : "-");
    tell_bytes(log, list->ai_addr, list->ai_addrlen);
  }
}

#define LOOK_UP(node, service, hints)                                                              \
  do {                                                                                             \
    struct addrinfo *list_ = NULL;                                                                 \
    if (CALL(getaddrinfo(node, service, hints, &list_)) == 0) {                                    \
      tell_addresses(log, list_);                                                                  \
      freeaddrinfo(list_);                                                                         \
    }                                                                                              \
  } while (0)

SCRIPT(names_numeric) {
  const struct addrinfo stream = {.ai_socktype = SOCK_STREAM};
  const struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
  const struct addrinfo six = {.ai_family = AF_INET6, .ai_socktype = SOCK_STREAM};
  const struct addrinfo canonical = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_DGRAM};
  const struct addrinfo passive = {.ai_flags = AI_PASSIVE, .ai_family = AF_INET};
  LOOK_UP("127.0.0.1", "80", &stream);
  LOOK_UP("127.0.0.1", NULL, NULL);
  LOOK_UP("127.1", "80", &numeric);
  LOOK_UP("::1", "http", &stream);
  LOOK_UP("127.0.0.1", "80", &six);
  LOOK_UP("127.0.0.1", "no-such-service", &stream);
  LOOK_UP("localhost", "80", &numeric);
  LOOK_UP("127.0.0.1", "80", &canonical);
  LOOK_UP(NULL, "80", &passive);
  LOOK_UP(NULL, NULL, &stream);
}

SCRIPT(names_local) {
  const struct addrinfo stream = {.ai_socktype = SOCK_STREAM};
  const struct addrinfo four = {.ai_family = AF_INET, .ai_flags = AI_CANONNAME};
  const struct addrinfo wrong = {.ai_flags = 1 << 20}, odd = {.ai_family = 12345};
  LOOK_UP("localhost", "80", &stream);
  LOOK_UP("localhost", NULL, NULL);
  LOOK_UP("localhost", "http", &four);
  LOOK_UP("localhost", "no-such-service", &stream);
  LOOK_UP("localhost", "80", &wrong);
  LOOK_UP("localhost", "80", &odd);
}

SCRIPT(names_unknown) {
  const struct addrinfo stream = {.ai_socktype = SOCK_STREAM};
  // A label may not be longer than 63 characters: no server is asked.
  LOOK_UP("a2345678901234567890123456789012345678901234567890123456789012345", "80", &stream);
}

SCRIPT(names_back) {
  char host[NI_MAXHOST] = "", service[NI_MAXSERV] = "", little[4] = "";
  const struct sockaddr_in address = {
    .sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  const struct sockaddr *const where = (const struct sockaddr *)&address;
  CALL(getnameinfo(where, sizeof address, host, sizeof host, service, sizeof service, 0));
  tell(log, "%s %s\n", host, service);
  CALL(getnameinfo(where, sizeof address, host, sizeof host, service, sizeof service,
                   NI_NUMERICHOST | NI_NUMERICSERV));
  tell(log, "%s %s\n", host, service);
  CALL(getnameinfo(where, sizeof address, host, sizeof host, NULL, 0, NI_NAMEREQD));
  tell(log, "%s\n", host);
  CALL(getnameinfo(where, sizeof address, little, sizeof little, NULL, 0, 0));
  CALL(getnameinfo(where, sizeof address, NULL, 0, NULL, 0, 0));
  CALL(getnameinfo(where, 3, host, sizeof host, NULL, 0, 0));
}

static void tell_entry(contract_log *log, const struct hostent *entry) {
  if (!entry) {
    tell(log, "nobody, h_errno %d\n", h_errno);
    return;
  }
  tell(log, "%s, %d, %d:", entry->h_name, entry->h_addrtype, entry->h_length);
  for (char **one = entry->h_addr_list; *one; one++) tell_bytes(log, *one, entry->h_length);
  for (char **one = entry->h_aliases; *one; one++) tell(log, " alias %s", *one);
  tell(log, "\n");
}

#define NO_SUCH_HOST "a2345678901234567890123456789012345678901234567890123456789012345"

SCRIPT(hosts) {
  const struct in_addr local = {htonl(INADDR_LOOPBACK)};
  h_errno = 0;
  tell_entry(log, gethostbyname("localhost"));
  tell_entry(log, gethostbyname("127.0.0.1"));
  tell_entry(log, gethostbyname2("localhost", AF_INET));
  tell_entry(log, gethostbyaddr(&local, sizeof local, AF_INET));
  tell_entry(log, gethostbyname(NO_SUCH_HOST));
}

SCRIPT(hosts_reentrant) {
  struct hostent entry, *found;
  char buffer[2048], little[8];
  int problem = -7;
  const struct in_addr local = {htonl(INADDR_LOOPBACK)};
  CALL(gethostbyname_r("localhost", &entry, buffer, sizeof buffer, &found, &problem));
  tell_entry(log, found);
  tell(log, "%d\n", found && found->h_name >= buffer && found->h_name < buffer + sizeof buffer);
  CALL(gethostbyname_r("localhost", &entry, little, sizeof little, &found, &problem));
  tell(log, "%d %d\n", found == NULL, problem);
  CALL(gethostbyname2_r(
    "localhost", AF_INET, &entry, buffer + 3, sizeof buffer - 3, &found, &problem));
  tell_entry(log, found);
  CALL(gethostbyaddr_r(
    &local, sizeof local, AF_INET, &entry, buffer, sizeof buffer, &found, &problem));
  tell_entry(log, found);
  CALL(gethostbyname_r(NO_SUCH_HOST, &entry, buffer, sizeof buffer, &found, &problem));
  tell(log, "%d %d\n", found == NULL, problem);
}

// MARK: Processes

#define WAIT(call)                                                                                 \
  ({                                                                                               \
    errno = 0;                                                                                     \
    const long found_ = (call);                                                                    \
    tell(log, "%s: %s, errno %d\n", #call,                                                         \
         found_ == child ? "the child" : found_ == 0 ? "none" : "fails", errno);                   \
  })

SCRIPT(wait_late) {
  int status = 0;
  pid_t child = start("sleep .05; exit 3");
  WAIT(waitpid(child, &status, WNOHANG));
  WAIT(waitpid(child, &status, 0));
  tell(log, "status %x\n", status);
  WAIT(waitpid(child, &status, 0));
  child = start("sleep .05; kill -9 $$");
  WAIT(waitpid(child, &status, 0));
  tell(log, "status %x\n", status);
}

static void await_end(pid_t child) {
  siginfo_t info;
  waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
}

SCRIPT(wait_ready) {
  int status = 0;
  pid_t child = start("exit 4");
  const int before = errno;
  (void)before;
  await_end(child);
  WAIT(waitpid(child, &status, 0));
  tell(log, "status %x\n", status);
}

SCRIPT(wait_bad) {
  const pid_t child = -2;
  int status = 0;
  siginfo_t info;
  WAIT(waitpid(1, &status, 0));
  WAIT(waitpid(getpid(), &status, 0));
  WAIT(waitpid(-getpgrp() - 1000000, &status, 0));
  WAIT(wait4(1, &status, 1 << 20, NULL));
  CALL(waitid(P_PID, 1, &info, WEXITED));
  CALL(waitid(P_PID, 1, &info, 0));
  CALL(waitid(77, 1, &info, WEXITED));
}

/// Only its own children: by a process group of theirs, for the tests have others.
SCRIPT(wait_any) {
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  char *const arguments[] = {"sh", "-c", "sleep .05; exit 5", NULL};
  pid_t child;
  int status = 0;
  if (posix_spawn(&child, "/bin/sh", NULL, &attributes, arguments, environ) != 0) abort();
  posix_spawnattr_destroy(&attributes);
  WAIT(waitpid(-child, &status, 0));
  tell(log, "status %x\n", status);
  WAIT(waitpid(-child, &status, 0));
}

static void go_on(int process, long unused) {
  (void)unused;
  kill(process, SIGCONT);
}

SCRIPT(wait_stopped) {
  int status = 0;
  const pid_t child = start("kill -STOP $$; sleep .1; exit 6");
  WAIT(waitpid(child, &status, WUNTRACED));
  tell(log, "status %x\n", status);
  later(log, go_on, child, 0);
  WAIT(waitpid(child, &status, WCONTINUED));
  tell(log, "status %x\n", status);
  WAIT(waitpid(child, &status, 0));
  tell(log, "status %x\n", status);
}

SCRIPT(wait_id) {
  siginfo_t info = {0};
  pid_t child = start("sleep .05; exit 7");
  CALL(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  tell(log, "%d %d %d\n", info.si_pid == child, info.si_code, info.si_status);
  CALL(waitid(P_PID, child, &info, WEXITED));
  CALL(waitid(P_PID, child, &info, WEXITED));
  child = start("sleep .05");
  CALL(waitid(P_PID, child, NULL, WEXITED));
}

SCRIPT(wait_usage) {
  struct rusage usage;
  int status = 0;
  memset(&usage, 0xff, sizeof usage);
  const pid_t child = start("sleep .05");
  WAIT(wait4(child, &status, 0, &usage));
  tell(log, "%d\n", usage.ru_utime.tv_sec == 0 && usage.ru_maxrss > 0);
}

/// It has its parent's memory, greenlets and all, but may not run them. The thread sanitizer makes a
/// fork of it.
SCRIPT(run_vfork) {
#if __has_feature(thread_sanitizer)
  tell(log, "no vfork here\n");
#else
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  later(log, write_hello, ends[1], 0);
  volatile long slept = -2, count = -2, found = -2;
  const pid_t child = vfork();
  if (child == 0) {
    char buffer[8];
    struct pollfd one = {ends[0], POLLIN, 0};
    slept = usleep(1000);
    found = poll(&one, 1, 10000);
    count = read(ends[0], buffer, sizeof buffer);
    for (int i = 0; i < 100; i++) found += fcntl(ends[0], F_GETFD) + (int)write(-1, "", 1);
    close(ends[0]);
    _exit(5);
  }
  int status = 0;
  WAIT(waitpid(child, &status, 0));
  tell(log, "%ld %ld %ld, status %x\n", (long)slept, (long)found, (long)count, status);
  close(ends[0]), close(ends[1]);
#endif
}

SCRIPT(run_system) {
  CALL(system("exit 3"));
  CALL(system("sleep .05"));
  CALL(system("kill -9 $$"));
  CALL(system("no-such-command 2>/dev/null"));
  CALL(system(NULL) != 0);
}

/// Which of the signals are blocked, or ignored, as a file of the kernel's tells: a digit for SIGINT, SIGQUIT
/// and SIGCHLD each, blocked ones first.
static int signals_in(const char *path) {
  char line[256];
  int digits = 1;
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, "SigBlk", 6) != 0 && strncmp(line, "SigIgn", 6) != 0) continue;
    const unsigned long long set = strtoull(line + 7, NULL, 16);
    digits = digits * 1000 + (int)(set >> (SIGINT - 1) & 1) * 100
      + (int)(set >> (SIGQUIT - 1) & 1) * 10 + (int)(set >> (SIGCHLD - 1) & 1);
  }
  if (file) fclose(file);
  return digits;
}

static int signals_of(int thread) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/status", thread);
  return signals_in(path);
}

static atomic_int meanwhile;

static void look_at_signals(int thread, long unused) {
  (void)unused;
  meanwhile = signals_of(thread);
}

SCRIPT(run_system_signals) {
  char path[] = "/tmp/evergreen-XXXXXX", command[100];
  close(mkstemp(path));
  struct sigaction interrupt, quit, action = {.sa_handler = SIG_DFL};
  sigaction(SIGINT, &action, &interrupt), sigaction(SIGQUIT, &action, &quit);
  const int self = (int)syscall(SYS_gettid);
  for (int blocks = 0; blocks < 2; blocks++) {
    sigset_t children, before;
    sigemptyset(&children), sigaddset(&children, SIGCHLD);
    pthread_sigmask(blocks ? SIG_BLOCK : SIG_UNBLOCK, &children, &before);
    tell(log, "before %d\n", signals_of(self));
    meanwhile = 0;
    later(log, look_at_signals, self, 0);
    snprintf(command, sizeof command, "cat /proc/self/status > %s; sleep .3; exit 3", path);
    tell(log, "%x\n", system(command));
    tell(log, "during %d, after %d\n", (int)meanwhile, signals_of(self));
    tell(log, "of the command %d\n", signals_in(path));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  sigaction(SIGINT, &interrupt, NULL), sigaction(SIGQUIT, &quit, NULL);
  unlink(path);
}

SCRIPT(run_popen) {
  char line[64] = "";
  FILE *stream = popen("echo hello; sleep .05; exit 9", "r");
  tell(log, "%d %s\n", fgets(line, sizeof line, stream) != NULL, line);
  CALL(pclose(stream));
  stream = popen("cat > /dev/null; sleep .05", "w");
  fputs("hello", stream);
  CALL(pclose(stream));
}

// MARK: Locks of files

SCRIPT(lock_whole) {
  char path[] = "/tmp/evergreen-XXXXXX";
  const int one = mkstemp(path), other = open(path, O_RDWR | O_CLOEXEC);
  CALL(flock(one, LOCK_EX));
  CALL(flock(other, LOCK_EX | LOCK_NB));
  later(log, unlock_it, one, 0);
  CALL(flock(other, LOCK_SH));
  CALL(flock(one, LOCK_SH));
  unlink(path), close(one), close(other);
}

SCRIPT(lock_taken) {
  char path[] = "/tmp/evergreen-XXXXXX";
  const int one = mkstemp(path), other = open(path, O_RDWR | O_CLOEXEC);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
  CALL(fcntl(one, F_OFD_SETLK, &range));
  CALL(fcntl(other, F_OFD_SETLK, &range));
  CALL(fcntl(other, F_OFD_GETLK, &range));
  tell(log, "%d %d\n", range.l_type, (int)range.l_len);
  unlink(path), close(one), close(other);
}

static void free_range(int fd, long unused) {
  (void)unused;
  struct flock range = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = 10};
  fcntl(fd, F_OFD_SETLK, &range);
}

SCRIPT(lock_range) {
  char path[] = "/tmp/evergreen-XXXXXX";
  const int one = mkstemp(path), other = open(path, O_RDWR | O_CLOEXEC);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
  CALL(fcntl(one, F_OFD_SETLKW, &range));
  later(log, free_range, one, 0);
  CALL(fcntl(other, F_OFD_SETLKW, &range));
  CALL(lockf(one, F_TEST, 10));
  unlink(path), close(one), close(other);
}

SCRIPT(lock_bad) {
  struct flock range = {.l_type = 77, .l_whence = SEEK_SET, .l_len = 10};
  const int file = open_file("text");
  CALL(flock(-1, LOCK_EX));
  CALL(flock(file, 77));
  CALL(fcntl(file, F_SETLKW, &range));
  CALL_BADLY(fcntl(file, F_SETLKW, (void *)8));
  CALL(fcntl(-1, F_SETLKW, &range));
  CALL(lockf(file, 77, 0));
  CALL(lockf(-1, F_LOCK, 0));
  close(file);
}

SCRIPT(lock_large) {
  const int file = open_file("text");
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
  CALL(lockf64(file, F_LOCK, 10));
  CALL(lockf64(file, F_TEST, 10));
  CALL(lockf64(file, F_ULOCK, 10));
  CALL(fcntl64(file, F_SETLKW, &range));
  CALL(fcntl64(file, F_OFD_SETLK, &range));
  CALL(lockf64(-1, F_LOCK, 0));
  close(file);
}
