// Evergreen: how scripts are written.
// SPDX-License-Identifier: MIT

#ifndef SCRIPTS_H
#define SCRIPTS_H

#define _GNU_SOURCE
#include "ContractScripts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void tell(contract_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tell_result(contract_log *log, const char *what, long result, int error);
void tell_bytes(contract_log *log, const void *bytes, long count);

/// Makes a call, and tells its text, its result and errno.
#define CALL(call)                                                                                 \
  ({                                                                                               \
    errno = 0;                                                                                     \
    const long result_ = (long)(call);                                                             \
    tell_result(log, #call, result_, errno);                                                       \
    result_;                                                                                       \
  })

/// The same with addresses that are none. The sanitizers look there before the kernel says EFAULT.
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CALL_BADLY(call) ((void)0)
#else
#define CALL_BADLY(call) CALL(call)
#endif

/// The same for one that fills `buffer`.
#define CALL_FILLING(buffer, call)                                                                 \
  ({                                                                                               \
    const long count_ = CALL(call);                                                                \
    tell_bytes(log, buffer, count_);                                                               \
    count_;                                                                                        \
  })

/// Of a result that depends on the kernel's buffers: only whether it is a part of `all`.
#define CALL_FOR_PART(all, call)                                                                   \
  ({                                                                                               \
    errno = 0;                                                                                     \
    const long part_ = (long)(call);                                                               \
    const int error_ = errno;                                                                      \
    tell(log, "%s: %s, errno %d\n", #call,                                                         \
         part_ == -1 ? "fails" : part_ > 0 && part_ < (long)(all) ? "a part" : "all", error_);     \
    part_;                                                                                         \
  })

// What a peer does on a thread of its own, after 30 ms: by then the script waits.

typedef void (*deed)(int fd, long argument);
void later(contract_log *log, deed deed, int fd, long argument);
/// So many times 30 ms later.
void much_later(contract_log *log, int times, deed deed, int fd, long argument);

void write_byte(int fd, long byte);         // one byte
void write_hello(int fd, long unused);      // "hello", as one
void write_pieces(int fd, long count);      // so many bytes, one by one
void write_number(int fd, long number);     // 8 bytes, as eventfd takes them
void close_it(int fd, long unused);
void reset_it(int fd, long unused);         // a TCP connection
void drain_slowly(int fd, long count);      // reads so many bytes
void drain_some(int fd, long count);        // reads so many bytes at most, in one go
void connect_to(int port, long unused);     // on 127.0.0.1, and closes
void send_to(int port, long unused);        // a datagram "hello" to 127.0.0.1
void signal_thread(int signal, long thread);
void unlock_it(int fd, long unused);

// What is tried.

void make_pair(int type, int ends[2]);      // Unix
void make_tcp_pair(int ends[2]);
int make_listener(int *port);               // TCP, 127.0.0.1
int make_udp(int *port);
int open_file(const char *content);         // nameless
pid_t start(const char *command);           // by sh
void limit_time(int fd, int option, int milliseconds);
/// Of 16 KiB in each direction, as near as the kernel comes to that.
void make_small(int fd);

#define SCRIPT(name) void script_##name(contract_log *log)

#endif
