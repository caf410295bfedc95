// Evergreen: the load generator of the benchmarks, one thread over epoll.
// SPDX-License-Identifier: MIT
//
// It speaks to any echo server and prints one line of JSON. It also reads the *server's* CPU clock (`--pid`) at the
// two ends of its own window, so that operations and CPU time belong to exactly the same moments; connecting, the
// first echo of each connection and the warm-up are outside of it.
//
// A connection is a stream: the byte at position p is a function of p and of the connection's number, all that comes
// back is compared, and a message is done when its last byte is back. Ping-pong, bulk and pipelining differ only in
// the size of a message and in how many are under way at once.
//
// Whatever goes wrong (a wrong byte, a connection closed by the server, a time limit) ends the run with a sentence
// on stderr and status 1. No figure is printed then.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  CHUNK = 256 * 1024,   // the most that one send or receive moves
  PERIOD = 251,         // of the bytes' pattern; prime, so that no power of two hides a shift
  IN_FLIGHT = 64,       // connections being set up at once: less than any server's backlog
  BATCH = 256,          // events taken from the kernel at once
};

// MARK: Options

static const char *mode;
static int port;
static int connections = 1;
static uint64_t size = 64;
static double seconds = 2, warmup = 0.3, limit = 120;
static uint64_t count;  // 0: by time
static pid_t pid;       // 0: no CPU clock
static int cold = 10, depth = 1;
static double interval_ms = 5;
static bool lockstep;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "load %s: ", mode ? mode : "");
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  exit(1);
}

// MARK: Clocks

static uint64_t read_clock(clockid_t clock) {
  struct timespec time;
  if (clock_gettime(clock, &time) != 0) fail("cannot read a clock: %s", strerror(errno));
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}
static uint64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

/// The CPU time of the server, all its threads, in ns. The kernel keeps it exact for a process that runs right now,
/// which /proc/PID/schedstat does not.
static uint64_t server_cpu(void) {
  clockid_t clock;
  if (pid == 0) return 0;
  int error = clock_getcpuclockid(pid, &clock);
  if (error) fail("the server (process %d) has no CPU clock: %s", pid, strerror(error));
  return read_clock(clock);
}

/// How long the server's threads were ready to run but had to wait for their core, in ns: what others that ran there
/// took away. 0 where the kernel does not tell.
static uint64_t server_wait(void) {
  char path[64], line[128];
  unsigned long long ran, waited;
  uint64_t sum = 0;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *threads = pid ? opendir(path) : NULL;
  if (!threads) return 0;
  for (struct dirent *thread; (thread = readdir(threads));) {
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", pid, thread->d_name);
    FILE *file = thread->d_name[0] == '.' ? NULL : fopen(path, "r");
    if (!file) continue;
    if (fgets(line, sizeof line, file) && sscanf(line, "%llu %llu", &ran, &waited) == 2) sum += waited;
    fclose(file);
  }
  closedir(threads);
  return sum;
}

static uint64_t started;
static void check_limit(uint64_t time) {
  if (time - started > (uint64_t)(limit * 1e9)) fail("not done after %.0f s", limit);
}

// MARK: Latencies: 256 steps per power of two, that is 0.4 %

typedef struct histogram {
  uint64_t total;
  uint32_t buckets[64 - 7][256];
} histogram;

static void record(histogram *h, uint64_t ns) {
  int shift = 0;
  if (ns >= 256) shift = 64 - __builtin_clzll(ns) - 8;
  h->buckets[shift][ns >> shift]++;
  h->total++;
}
static uint64_t percentile(const histogram *h, double fraction) {
  uint64_t wanted = (uint64_t)((double)h->total * fraction), seen = 0;
  for (int shift = 0; shift < 64 - 7; shift++)
    for (int step = 0; step < 256; step++)
      if ((seen += h->buckets[shift][step]) > wanted)
        return ((uint64_t)step << shift) + ((1ull << shift) >> 1);
  return 0;
}

// MARK: The window

static histogram latencies, cold_latencies, *each_cold;
static bool running;  // the set-up is over
static bool measuring;
static uint64_t operations;
static uint64_t window_opens, window_closes;
static uint64_t wall_start, cpu_start, load_cpu_start, wall_end, cpu_end, load_cpu_end;
static uint64_t wait_start, wait_end;

static void start_running(void) {
  running = true;
  window_opens = now() + (uint64_t)(warmup * 1e9);
}
/// Opens and closes the window; true once it is closed.
static bool window_is_over(uint64_t time) {
  check_limit(time);
  if (!measuring) {
    if (time < window_opens) return false;
    measuring = true;
    wait_start = server_wait();
    cpu_start = server_cpu();
    load_cpu_start = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    wall_start = now();
    window_closes = wall_start + (uint64_t)(seconds * 1e9);
    return false;
  }
  if (count ? operations < count : time < window_closes) return false;
  wall_end = now();
  load_cpu_end = read_clock(CLOCK_PROCESS_CPUTIME_ID);
  cpu_end = server_cpu();
  wait_end = server_wait();
  return true;
}

static void report(void) {
  if (operations == 0) fail("no operation was completed within the window");
  printf("{\"mode\":\"%s\",\"connections\":%d,\"size\":%llu,\"ops\":%llu,\"wall_ns\":%llu", mode, connections,
         (unsigned long long)size, (unsigned long long)operations, (unsigned long long)(wall_end - wall_start));
  if (pid)
    printf(",\"cpu_ns\":%llu,\"wait_ns\":%llu", (unsigned long long)(cpu_end - cpu_start),
           (unsigned long long)(wait_end - wait_start));
  printf(",\"load_cpu_ns\":%llu,\"p50_ns\":%llu,\"p99_ns\":%llu",
         (unsigned long long)(load_cpu_end - load_cpu_start), (unsigned long long)percentile(&latencies, .5),
         (unsigned long long)percentile(&latencies, .99));
  if (each_cold) {
    uint64_t worst = 0;
    for (int i = 0; i < cold; i++) {
      if (each_cold[i].total == 0) fail("cold connection %d had no answer within the window", i);
      uint64_t its = percentile(&each_cold[i], .99);
      if (its > worst) worst = its;
    }
    printf(",\"cold_ops\":%llu,\"cold_p50_ns\":%llu,\"cold_p99_ns\":%llu,\"coldest_p99_ns\":%llu",
           (unsigned long long)cold_latencies.total, (unsigned long long)percentile(&cold_latencies, .5),
           (unsigned long long)percentile(&cold_latencies, .99), (unsigned long long)worst);
  }
  printf("}\n");
  fflush(stdout);
}

// MARK: Sockets

static char pattern[PERIOD + CHUNK], buffer[CHUNK];

static int open_socket(int source) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
  if (fd < 0) fail("cannot make a socket: %s", strerror(errno));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (source) {
    // Connections come from 64 local addresses in turn, so that those in TIME_WAIT do not exhaust the ports.
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(source % 64));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) fail("cannot bind: %s", strerror(errno));
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
    fail("cannot connect to 127.0.0.1:%d: %s", port, strerror(errno));
  return fd;
}

static void watch(int epoll, int operation, int fd, uint32_t events, void *what) {
  struct epoll_event event = {.events = events, .data.ptr = what};
  if (epoll_ctl(epoll, operation, fd, &event) != 0) fail("epoll_ctl: %s", strerror(errno));
}

// MARK: Streams

typedef struct stream {
  int fd, epoll, number;
  bool is_cold, waits_to_write;
  uint64_t sent, received;  // positions
  uint64_t allowed;         // how far to send
  uint64_t due;             // of a cold one: when to send next
  uint64_t *stamps;         // when each message under way began, a ring
  uint32_t stamp_mask;
} stream;

static stream *streams;
static int established;
static int answered;  // in lockstep: in this step

static void send_allowed(stream *s, uint64_t time) {
  while (s->sent < s->allowed) {
    uint64_t length = s->allowed - s->sent;
    if (length > CHUNK) length = CHUNK;
    ssize_t n = send(s->fd, pattern + (s->sent + (uint64_t)s->number) % PERIOD, length, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN) fail("connection %d of %d: send: %s", s->number, connections, strerror(errno));
      if (!s->waits_to_write) watch(s->epoll, EPOLL_CTL_MOD, s->fd, EPOLLIN | EPOLLOUT, s);
      s->waits_to_write = true;
      return;
    }
    for (uint64_t message = (s->sent + size - 1) / size; message * size < s->sent + (uint64_t)n; message++)
      s->stamps[message & s->stamp_mask] = time;
    s->sent += (uint64_t)n;
  }
  if (s->waits_to_write) watch(s->epoll, EPOLL_CTL_MOD, s->fd, EPOLLIN, s);
  s->waits_to_write = false;
}

static void receive_some(stream *s) {
  ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n < 0) fail("connection %d of %d: receive: %s", s->number, connections, strerror(errno));
  if (n == 0) fail("the server closed connection %d of %d", s->number, connections);
  if (s->received + (uint64_t)n > s->sent) fail("connection %d: more came back than was sent", s->number);
  if (memcmp(buffer, pattern + (s->received + (uint64_t)s->number) % PERIOD, (size_t)n) != 0)
    fail("connection %d: what came back is not what was sent, near byte %llu", s->number,
         (unsigned long long)s->received);
  uint64_t time = now(), message = s->received / size;
  s->received += (uint64_t)n;
  for (; message < s->received / size; message++) {
    if (!running) {
      established++;
      continue;
    }
    if (measuring) {
      uint64_t latency = time - s->stamps[message & s->stamp_mask];
      if (s->is_cold) {
        record(&cold_latencies, latency);
        record(&each_cold[s->number - connections], latency);
      } else {
        record(&latencies, latency);
        operations++;
      }
    }
    if (lockstep) answered++;
    else if (!s->is_cold) s->allowed += size;
  }
  send_allowed(s, time);
}

static void handle(const struct epoll_event *event) {
  stream *s = event->data.ptr;
  if (event->events & EPOLLOUT) send_allowed(s, now());
  if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive_some(s);
}

/// Connects all streams, and has one echo on each: the server has accepted them all when this returns.
static void establish(int total, int epoll, int cold_epoll) {
  struct epoll_event events[BATCH];
  uint32_t ring = 1;
  while (ring < (uint32_t)depth || (cold_epoll >= 0 && ring < 1024)) ring *= 2;
  streams = calloc((size_t)total, sizeof *streams);
  uint64_t *stamps = calloc((size_t)total * ring, sizeof *stamps);
  if (!streams || !stamps) fail("no memory for %d connections", total);
  for (int opened = 0; established < total;) {
    for (; opened < total && opened < established + IN_FLIGHT; opened++) {
      stream *s = &streams[opened];
      *s = (stream){.fd = open_socket(0), .number = opened, .is_cold = opened >= connections};
      s->epoll = s->is_cold ? cold_epoll : epoll;
      s->stamps = stamps + (size_t)opened * ring;
      s->stamp_mask = ring - 1;
      s->allowed = size;
      s->waits_to_write = true;
      watch(s->epoll, EPOLL_CTL_ADD, s->fd, EPOLLIN | EPOLLOUT, s);
    }
    int both[2] = {epoll, cold_epoll};
    for (int k = 0; k < 2 && both[k] >= 0; k++) {
      int n = epoll_wait(both[k], events, BATCH, cold_epoll >= 0 ? 0 : 100);
      for (int i = 0; i < n; i++) handle(&events[i]);
    }
    uint64_t time = now();
    if (time - started > 30000000000u) fail("only %d of %d connections were served within 30 s", established, total);
  }
}

/// Ends all connections by a reset: nothing stays in TIME_WAIT to disturb the next run.
static void reset_all(int total) {
  struct linger none = {.l_onoff = 1};
  for (int i = 0; i < total; i++) {
    setsockopt(streams[i].fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(streams[i].fd);
  }
}

// MARK: Modes

/// Echo and bulk: all connections busy, `depth` messages under way on each.
///
/// In lockstep nobody sends again before all have been answered. A server that is slowed down by strace meets then
/// what it meets at full speed: a second receive right after an echo finds nothing. Without it the next message
/// would be there by then, and a server that tries too early would look better than it is.
static void run_streams(void) {
  struct epoll_event events[BATCH];
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  establish(connections, epoll, -1);
  start_running();
  for (int i = 0; i < connections; i++) {
    streams[i].allowed += size * (uint64_t)depth;
    send_allowed(&streams[i], now());
  }
  while (!window_is_over(now())) {
    int n = epoll_wait(epoll, events, BATCH, 100);
    for (int i = 0; i < n; i++) {
      handle(&events[i]);
      if (count && operations >= count) break;
    }
    if (answered == connections * depth) {
      answered = 0;
      for (int i = 0; i < connections; i++) {
        streams[i].allowed += size * (uint64_t)depth;
        send_allowed(&streams[i], now());
      }
    }
  }
  report();
  reset_all(connections);
}

/// `connections` hot ones with `depth` messages always under way, and `cold` ones that send 1 message every
/// `interval_ms`, whether or not the last was answered. The cold ones are looked at after every event of a hot one,
/// so that their latency is the server's rather than this program's.
static void run_fairness(void) {
  struct epoll_event events[BATCH], cold_events[16];
  int epoll = epoll_create1(EPOLL_CLOEXEC), cold_epoll = epoll_create1(EPOLL_CLOEXEC), total = connections + cold;
  each_cold = calloc((size_t)cold, sizeof *each_cold);
  if (!each_cold) fail("no memory");
  establish(total, epoll, cold_epoll);
  start_running();
  uint64_t interval = (uint64_t)(interval_ms * 1e6), time = now();
  for (int i = 0; i < connections; i++) {
    streams[i].allowed += size * (uint64_t)depth;
    send_allowed(&streams[i], time);
  }
  for (int i = 0; i < cold; i++) streams[connections + i].due = time + interval * (uint64_t)i / (uint64_t)cold;
  while (!window_is_over(now())) {
    int n = epoll_wait(epoll, events, BATCH, 1), done = 0;
    do {
      if (done < n) handle(&events[done]);
      int answers = epoll_wait(cold_epoll, cold_events, 16, 0);
      for (int i = 0; i < answers; i++) handle(&cold_events[i]);
      time = now();
      for (int i = connections; i < total; i++) {
        stream *s = &streams[i];
        if (time < s->due) continue;
        s->due += interval;
        s->allowed += size;
        if (s->allowed - s->received > 1024 * size)
          fail("cold connection %d had no answer for 1,023 messages", i - connections);
        send_allowed(s, time);
      }
    } while (++done < n);
  }
  report();
  reset_all(total);
}

static void run_idle(void) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  establish(connections, epoll, -1);
  printf("{\"mode\":\"idle\",\"connections\":%d}\n", connections);
  fflush(stdout);
  char line[16];
  while (read(0, line, sizeof line) < 0 && errno == EINTR) {}
  reset_all(connections);
}

// MARK: Churn

typedef struct visit {
  int fd;
  bool is_sent;
  uint64_t received, began;
} visit;

static int visits;

static void begin_visit(visit *v, int epoll) {
  *v = (visit){.began = now()};
  v->fd = open_socket(++visits);
  // On loopback the connection is there by now, as a rule; where it is not, epoll says when.
  v->is_sent = send(v->fd, pattern, size, MSG_NOSIGNAL) == (ssize_t)size;
  watch(epoll, EPOLL_CTL_ADD, v->fd, v->is_sent ? EPOLLIN : EPOLLIN | EPOLLOUT, v);
}

static void continue_visit(visit *v, int epoll, uint32_t events) {
  if (!v->is_sent && events & EPOLLOUT) {
    if (send(v->fd, pattern, size, MSG_NOSIGNAL) != (ssize_t)size) fail("send: %s", strerror(errno));
    v->is_sent = true;
    watch(epoll, EPOLL_CTL_MOD, v->fd, EPOLLIN, v);
  }
  if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
  ssize_t n = recv(v->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n < 0) fail("receive: %s", strerror(errno));
  if (n > 0) {
    if (v->received + (uint64_t)n > size || memcmp(buffer, pattern + v->received, (size_t)n) != 0)
      fail("what came back is not what was sent");
    v->received += (uint64_t)n;
    if (v->received == size) shutdown(v->fd, SHUT_WR);
    return;
  }
  if (v->received < size) fail("the server closed a connection before its echo");
  close(v->fd);
  if (measuring) {
    record(&latencies, now() - v->began);
    operations++;
  }
  begin_visit(v, epoll);
}

/// `connections` visitors at a time: connect, one echo, say that was all, wait for the server's close.
static void run_churn(void) {
  struct epoll_event events[BATCH];
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  visit *all = calloc((size_t)connections, sizeof *all);
  if (!all) fail("no memory");
  start_running();
  for (int i = 0; i < connections; i++) begin_visit(&all[i], epoll);
  while (!window_is_over(now())) {
    int n = epoll_wait(epoll, events, BATCH, 100);
    for (int i = 0; i < n; i++) continue_visit(events[i].data.ptr, epoll, events[i].events);
  }
  report();
}

// MARK: Main

static const char usage[] =
    "usage: load echo|bulk|churn|fairness|idle --port PORT [options]\n"
    "  --connections N   connections kept busy (fairness: the hot ones; churn: visitors at a time); 1\n"
    "  --size BYTES      of a message; 64, in bulk and fairness 65536\n"
    "  --depth N         messages under way on each connection; 1, in fairness 4\n"
    "  --seconds S       length of the window; 2\n"
    "  --warmup S        before the window; 0.3\n"
    "  --count N         close the window after N operations instead, and do not warm up\n"
    "  --lockstep        nobody sends again before all have been answered (echo, bulk)\n"
    "  --pid PID         the server, whose CPU time is read at both ends of the window\n"
    "  --cold N          cold connections (fairness); 10\n"
    "  --interval MS     between two messages of a cold connection; 5\n"
    "  --limit S         give up after so long; 120\n"
    "idle: opens the connections, prints a line, and keeps them until a line (or the end) comes on stdin.\n";

static double number(const char *option, const char *text, double least, double most) {
  char *end;
  double value = strtod(text, &end);
  if (*text == 0 || *end != 0 || !(value >= least && value <= most)) {
    fprintf(stderr, "load: --%s %s: wanted a number from %g to %g\n", option, text, least, most);
    exit(2);
  }
  return value;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"port", 1, 0, 'p'},   {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'}, {"depth", 1, 0, 'd'},
      {"seconds", 1, 0, 't'}, {"warmup", 1, 0, 'w'},     {"count", 1, 0, 'n'}, {"pid", 1, 0, 'P'},
      {"cold", 1, 0, 'k'},   {"interval", 1, 0, 'i'},    {"limit", 1, 0, 'l'}, {"lockstep", 0, 0, 'L'},
      {"help", 0, 0, 'h'},   {0}};
  bool size_given = false, depth_given = false;
  int option, index = 0;
  while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
    if (option == 'h') return fputs(usage, stdout), 0;
    if (option == '?') return fputs(usage, stderr), 2;
    const char *name = options[index].name;
    switch (option) {
    case 'p': port = (int)number(name, optarg, 1, 65535); break;
    case 'c': connections = (int)number(name, optarg, 1, 1e6); break;
    case 's': size = (uint64_t)number(name, optarg, 1, 1 << 30), size_given = true; break;
    case 'd': depth = (int)number(name, optarg, 1, 1 << 20), depth_given = true; break;
    case 't': seconds = number(name, optarg, .001, 1e5); break;
    case 'w': warmup = number(name, optarg, 0, 1e5); break;
    case 'n': count = (uint64_t)number(name, optarg, 1, 1e15), warmup = 0; break;
    case 'P': pid = (pid_t)number(name, optarg, 1, 1 << 30); break;
    case 'k': cold = (int)number(name, optarg, 1, 10000); break;
    case 'i': interval_ms = number(name, optarg, .01, 1e5); break;
    case 'L': lockstep = true; break;
    case 'l': limit = number(name, optarg, .1, 1e5); break;
    }
  }
  if (optind != argc - 1 || port == 0) return fputs(usage, stderr), 2;
  mode = argv[optind];
  bool is_bulk = !strcmp(mode, "bulk"), is_fairness = !strcmp(mode, "fairness");
  if (!size_given && (is_bulk || is_fairness)) size = 65536;
  if (!depth_given && is_fairness) depth = 4;
  if (lockstep && strcmp(mode, "echo") && !is_bulk) fail("--lockstep is for echo and bulk");

  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if ((rlim_t)(connections + cold + 16) > files.rlim_cur)
    fail("%d connections need more than the %llu descriptors that are allowed", connections,
         (unsigned long long)files.rlim_cur);

  for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = (char)(i % PERIOD);
  started = now();
  if (!strcmp(mode, "echo") || is_bulk) run_streams();
  else if (is_fairness) run_fairness();
  else if (!strcmp(mode, "churn")) run_churn();
  else if (!strcmp(mode, "idle")) run_idle();
  else return fputs(usage, stderr), 2;
  return 0;
}
