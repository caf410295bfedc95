// Evergreen: reading and writing, receiving and sending.
// SPDX-License-Identifier: MIT
//
// A socket is tried with MSG_DONTWAIT, others with RWF_NOWAIT; what knows neither (terminals, named
// FIFOs) is asked by `poll` first. What a regular file has not in memory, and what is written to
// one, is left to the system: it has no better answer.
//
// A blocking transfer to a stream ends when all is sent, or when something goes wrong after a part,
// which is then the answer. Datagrams are sent whole or not at all.

#ifdef __linux__

#include "green.h"

#include <alloca.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// MARK: What a descriptor was last seen to be

// Hints only, which spare a try or a question: any may be wrong, since libc closes descriptors without
// asking here, and then costs a system call, not the right answer.
enum hint {
  MAYBE_SOCKET,
  NO_SOCKET,  // and nothing more is known
  QUICK,      // no file either, and knows RWF_NOWAIT
  SLOW,       // does not know it
};
enum { HINTS = 4096 };
static _Atomic uint8_t hints[HINTS];

static enum hint hint_of(int fd) {
  return (unsigned)fd < HINTS ? atomic_load_explicit(&hints[fd], memory_order_relaxed)
                              : MAYBE_SOCKET;
}

static bool may_be_socket(int fd) { return hint_of(fd) == MAYBE_SOCKET; }

static void note(int fd, enum hint hint) {
  if ((unsigned)fd < HINTS && hint_of(fd) != hint) {
    atomic_store_explicit(&hints[fd], hint, memory_order_relaxed);
  }
}

enum kind { SOCKET, STORAGE, OTHER };

static enum kind kind_of(int fd) {
  // Not by fstat: a file whose times somebody has seen must have a finer one when it is written next,
  // and that takes longer than the write.
  struct statx status;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &status) != 0) {
    return STORAGE;  // the real call says what is wrong
  }
  const mode_t type = status.stx_mode & S_IFMT;
  if (type == S_IFSOCK) return SOCKET;
  return type == S_IFREG || type == S_IFDIR || type == S_IFBLK ? STORAGE : OTHER;
}

/// Whether it is a file that has been read or written: half the price of `kind_of`. Others cannot seek
/// or, as eventfd and its kin, stay where they are.
static bool is_midway(int fd) { return lseek(fd, 0, SEEK_CUR) > 0; }

static bool is_fifo(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

static bool is_stream(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

// MARK: Vectors

static size_t length_of(const struct iovec *vector, size_t count) {
  size_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += vector[i].iov_len;
  return sum;
}

/// Leaves out what has been done. Returns how many entries are left.
static size_t advance(struct iovec **vector, size_t count, size_t done) {
  while (count > 0 && done >= (*vector)->iov_len) {
    done -= (*vector)->iov_len;
    (*vector)++, count--;
  }
  if (count > 0) {
    (*vector)->iov_base = (char *)(*vector)->iov_base + done;
    (*vector)->iov_len -= done;
  }
  return count;
}

/// A copy on the caller's stack that may be changed.
#define COPY_OF(vector, count)                                                                     \
  memcpy(alloca((count) * sizeof(struct iovec) + 1), vector, (count) * sizeof(struct iovec))

// MARK: Receiving

/// MSG_WAITALL on a stream, of which `first` bytes have come. Ends early as the real call does: at
/// the end of the stream, and with what there is at an error.
static ssize_t receive_rest(int fd, const struct msghdr *message, int flags, ssize_t first) {
  const size_t total = length_of(message->msg_iov, message->msg_iovlen);
  if (first <= 0 || (size_t)first >= total || !is_stream(fd)) return first;
  const int errno_before = errno;
  evg_patience patience = {.fd = fd, .events = POLLIN};
  size_t done = (size_t)first;
  if (flags & MSG_PEEK) {
    // It stays there, so the descriptor is ready all the time: only a look now and then helps.
    for (uint64_t pause = 1000000; done < total; pause = pause < 32000000 ? pause * 2 : pause) {
      struct pollfd end = {.fd = fd, .events = POLLRDHUP};
      if (evg_flags(fd) & O_NONBLOCK || real(poll)(&end, 1, 0) != 0) break;
      if (evg_pause("more to peek at", evg_deadline_after(pause), true) > 0) break;
      struct msghdr again = *message;
      const ssize_t seen = real(recvmsg)(fd, &again, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);
      if (seen <= 0) break;
      done = (size_t)seen;
    }
    errno = errno_before;
    return (ssize_t)done;
  }
  struct iovec *vector = COPY_OF(message->msg_iov, message->msg_iovlen);
  size_t count = advance(&vector, message->msg_iovlen, done);
  while (done < total && evg_wait_to_repeat(&patience)) {
    struct msghdr rest = {.msg_iov = vector, .msg_iovlen = count};
    const ssize_t more = real(recvmsg)(fd, &rest, flags | MSG_DONTWAIT);
    if (more == -1 && (errno == EAGAIN || errno == EINTR)) continue;
    if (more <= 0) break;
    done += (size_t)more;
    count = advance(&vector, count, (size_t)more);
  }
  errno = errno_before;
  return (ssize_t)done;
}

/// These never wait.
static bool is_at_once(int flags) { return flags & (MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB); }

ssize_t evg_green_recv(int fd, void *buffer, size_t size, int flags) {
  if (evg_is_refused_on(fd)) return -1;
  if (is_at_once(flags)) return real(recv)(fd, buffer, size, flags);
  evg_charge(fd);
  const ssize_t result =
    EVG_PATIENTLY(fd, POLLIN, real(recv)(fd, buffer, size, flags | MSG_DONTWAIT));
  if (__builtin_expect(!(flags & MSG_WAITALL), 1)) return result;
  struct iovec all = {buffer, size};
  return receive_rest(fd, &(struct msghdr){.msg_iov = &all, .msg_iovlen = 1}, flags, result);
}

ssize_t evg_green_recvfrom(
    int fd, void *buffer, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
  if (evg_is_refused_on(fd)) return -1;
  if (is_at_once(flags)) return real(recvfrom)(fd, buffer, size, flags, from, length);
  evg_charge(fd);
  const ssize_t result = EVG_PATIENTLY(
    fd, POLLIN, real(recvfrom)(fd, buffer, size, flags | MSG_DONTWAIT, from, length));
  if (__builtin_expect(!(flags & MSG_WAITALL), 1)) return result;
  struct iovec all = {buffer, size};
  return receive_rest(fd, &(struct msghdr){.msg_iov = &all, .msg_iovlen = 1}, flags, result);
}

ssize_t evg_green_recvmsg(int fd, struct msghdr *message, int flags) {
  if (evg_is_refused_on(fd)) return -1;
  if (is_at_once(flags)) return real(recvmsg)(fd, message, flags);
  evg_charge(fd);
  const ssize_t result =
    EVG_PATIENTLY(fd, POLLIN, real(recvmsg)(fd, message, flags | MSG_DONTWAIT));
  return flags & MSG_WAITALL ? receive_rest(fd, message, flags, result) : result;
}

int evg_green_recvmmsg(
    int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
  if (evg_is_refused_on(fd)) return -1;
  if (is_at_once(flags) || count == 0) return real(recvmmsg)(fd, messages, count, flags, timeout);
  evg_charge(fd);
  // As the kernel does, the time is looked at only after a message has come.
  const uint64_t deadline =
    timeout ? evg_deadline_after(evg_nanoseconds(timeout)) : EVG_NEVER;
  unsigned done = 0;
  int more = 0;
  while (done < count) {
    more = EVG_PATIENTLY(
      fd, POLLIN,
      real(recvmmsg)(fd, messages + done, count - done, flags | MSG_DONTWAIT, NULL));
    if (more <= 0) break;
    done += (unsigned)more;
    if (flags & MSG_WAITFORONE) break;
    if (deadline != EVG_NEVER && evg_time_left(deadline) == 0) break;
  }
  if (timeout && deadline != EVG_NEVER) {
    const uint64_t left = evg_time_left(deadline);
    *timeout = (struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)};
  }
  return done > 0 ? (int)done : more;
}

// MARK: Sending

/// Sends the rest, after `first` bytes, or after EAGAIN if that is -1. On success errno is what it
/// was before the call.
static __attribute__((noinline)) ssize_t send_rest(
    int fd, const struct msghdr *message, int flags, ssize_t first, int errno_before) {
  const size_t total = length_of(message->msg_iov, message->msg_iovlen);
  if (first == -1 ? errno != EAGAIN : (size_t)first >= total || !is_stream(fd)) return first;
  size_t done = first > 0 ? (size_t)first : 0;
  struct msghdr rest = *message;
  struct iovec *vector = COPY_OF(message->msg_iov, message->msg_iovlen);
  rest.msg_iovlen = advance(&vector, message->msg_iovlen, done);
  evg_patience patience = {.fd = fd, .events = POLLOUT};
  unsigned refusals = 0;
  do {
    // A full receiver's queue on a Unix datagram socket is not seen by `poll`.
    if (++refusals > 2) {
      const uint64_t pause = UINT64_C(1000000) << (refusals < 8 ? refusals - 3 : 5);
      uint64_t until = evg_deadline_after(pause);
      if (patience.deadline < until) until = patience.deadline;
      const int end = evg_pause("room to send", until, patience.deadline == EVG_NEVER);
      if (end > 0 || until == patience.deadline) {
        errno = end > 0 ? end : EAGAIN;
        break;
      }
    }
    if (!evg_wait_to_repeat(&patience)) break;
    if (done > 0) {
      // An error that comes after a part is left for the next call to find.
      struct pollfd state = {.fd = fd, .events = POLLOUT};
      if (real(poll)(&state, 1, 0) > 0 && state.revents & (POLLERR | POLLHUP | POLLNVAL)) break;
    }
    rest.msg_iov = vector;
    const ssize_t more =
      real(sendmsg)(fd, &rest, flags | MSG_DONTWAIT | (done > 0 ? MSG_NOSIGNAL : 0));
    if (more == -1 && (errno == EAGAIN || errno == EINTR)) continue;
    if (more == -1) break;
    done += (size_t)more;
    refusals = 0;
    rest.msg_control = NULL;
    rest.msg_controllen = 0;
    rest.msg_iovlen = advance(&vector, rest.msg_iovlen, (size_t)more);
    if (done == 0) {  // an empty message
      errno = errno_before;
      return 0;
    }
  } while (done < total);
  if (done == 0) return -1;
  errno = errno_before;
  return (ssize_t)done;
}

#define SEND_REST(descriptor, address, length, flags, result)                                      \
  send_rest(                                                                                       \
    descriptor,                                                                                    \
    &(struct msghdr){                                                                              \
      .msg_name = (void *)(address), .msg_namelen = (length),                                      \
      .msg_iov = &(struct iovec){(void *)buffer, size}, .msg_iovlen = 1},                          \
    flags, result, errno_before)

ssize_t evg_green_send(int fd, const void *buffer, size_t size, int flags) {
  if (evg_is_refused_on(fd)) return -1;
  if (flags & MSG_DONTWAIT) return real(send)(fd, buffer, size, flags);
  evg_charge(fd);
  const int errno_before = errno;
  const ssize_t result = real(send)(fd, buffer, size, flags | MSG_DONTWAIT);
  if (__builtin_expect(result == (ssize_t)size, 1)) return result;
  return SEND_REST(fd, NULL, 0, flags, result);
}

ssize_t evg_green_sendto(
    int fd, const void *buffer, size_t size, int flags, const struct sockaddr *to,
    socklen_t length) {
  if (evg_is_refused_on(fd)) return -1;
  if (flags & MSG_DONTWAIT) return real(sendto)(fd, buffer, size, flags, to, length);
  evg_charge(fd);
  const int errno_before = errno;
  const ssize_t result = real(sendto)(fd, buffer, size, flags | MSG_DONTWAIT, to, length);
  if (__builtin_expect(result == (ssize_t)size, 1)) return result;
  return SEND_REST(fd, to, length, flags, result);
}

ssize_t evg_green_sendmsg(int fd, const struct msghdr *message, int flags) {
  if (evg_is_refused_on(fd)) return -1;
  if (flags & MSG_DONTWAIT) return real(sendmsg)(fd, message, flags);
  evg_charge(fd);
  const int errno_before = errno;
  const ssize_t result = real(sendmsg)(fd, message, flags | MSG_DONTWAIT);
  if (result == -1 && errno != EAGAIN) return -1;  // the message itself may be unreadable
  return send_rest(fd, message, flags, result, errno_before);
}

int evg_green_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  if (flags & MSG_DONTWAIT || count == 0) {
    return real(sendmmsg)(fd, messages, count, flags);
  }
  if (evg_is_refused_on(fd)) return -1;
  evg_charge(fd);
  if (count > 1024) count = 1024;  // as the kernel does
  const int errno_before = errno;
  int done = real(sendmmsg)(fd, messages, count, flags | MSG_DONTWAIT);
  if (done == -1 && errno != EAGAIN) return -1;
  if (done < 0) done = 0;
  if (done > 0) {
    // The last one may be a part of a stream.
    struct mmsghdr *last = &messages[done - 1];
    last->msg_len = (unsigned)send_rest(
      fd, &last->msg_hdr, flags, (ssize_t)last->msg_len, errno_before);
  }
  for (; (unsigned)done < count; done++) {
    const ssize_t sent = evg_green_sendmsg(fd, &messages[done].msg_hdr, flags);
    if (sent == -1) break;
    messages[done].msg_len = (unsigned)sent;
  }
  if (done == 0) return -1;
  errno = errno_before;
  return done;
}

// MARK: Any descriptor

/// The kernel makes no longer transfers.
static size_t most_at_once(void) { return INT_MAX & ~((size_t)getpagesize() - 1); }

/// Whether RWF_NOWAIT cannot be had: not by this kind of descriptor, or not by this kernel.
static bool lacks_nowait(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == ESPIPE;
}

/// Waits until `poll` says that it is ready, unless its owner wants no waiting.
static bool poll_first(int fd, short events, evg_patience *patience) {
  struct pollfd one = {.fd = fd, .events = events};
  while (real(poll)(&one, 1, 0) == 0) {
    if (!evg_wait_to_repeat(patience)) return errno == EAGAIN;  // the real call says the same
  }
  return true;
}

/// Whether a descriptor that was no socket when it was last seen is none of our business.
static bool is_left_alone(int fd, uint32_t families) {
  switch (kind_of(fd)) {
    case STORAGE: return true;
    case SOCKET: note(fd, MAYBE_SOCKET); return !(families & EVG_PATCH_SOCKETS);
    case OTHER: return !(families & EVG_PATCH_FILES);
  }
}

static bool is_hung_up(int fd) {
  struct stat status;
  struct pollfd one = {.fd = fd, .events = POLLIN};
  return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && real(poll)(&one, 1, 0) > 0
    && one.revents & POLLHUP;
}

static __attribute__((noinline)) ssize_t read_patiently(
    int fd, const struct iovec *vector, int count, uint32_t families) {
  if (is_left_alone(fd, families)) return real(readv)(fd, vector, count);
  const int errno_before = errno;
  ssize_t result = EVG_PATIENTLY(fd, POLLIN, real(preadv2)(fd, vector, count, -1, RWF_NOWAIT));
  if (result != -1) {
    if (!may_be_socket(fd)) note(fd, QUICK);
    return result;
  }
  if (!lacks_nowait(errno)) return -1;
  note(fd, SLOW);
  if (evg_is_alone()) return EVG_PLAINLY(real(readv)(fd, vector, count));
  evg_patience patience = {.fd = fd, .events = POLLIN};
  if (!poll_first(fd, POLLIN, &patience)) return -1;
  errno = errno_before;
  result = real(readv)(fd, vector, count);
  if (result == 0 && patience.has_asked && is_hung_up(fd)) {
    // A terminal tells this to those who wait; to those who come later, the end.
    errno = EIO;
    return -1;
  }
  return result;
}

/// The whole of a read that got less than was asked for: of a file that may be what is in memory, and
/// the rest is waited for. A file that several threads read at the same time may then give them parts
/// of what they would have had as one.
static __attribute__((noinline)) ssize_t finish_reading(
    int fd, const struct iovec *given, int entries, ssize_t first) {
  const int errno_before = errno;
  const size_t most = most_at_once();
  ssize_t more = 0;
  const off_t position = (size_t)first < most ? lseek(fd, 0, SEEK_CUR) : -1;
  if (position > 0 || (position == 0 && kind_of(fd) == STORAGE)) {
    struct iovec *vector = COPY_OF(given, (size_t)entries);
    const size_t count = advance(&vector, (size_t)entries, (size_t)first);
    size_t room = most - (size_t)first;
    for (size_t i = 0; i < count; i++) {
      if (vector[i].iov_len > room) vector[i].iov_len = room;
      room -= vector[i].iov_len;
    }
    more = real(readv)(fd, vector, (int)count);
    if (more == -1 && first == 0) return -1;
  }
  errno = errno_before;
  return more > 0 ? first + more : first;
}

/// Of what is no socket. Pipes and files in memory answer in one system call.
static ssize_t read_other(int fd, const struct iovec *vector, int count, uint32_t families) {
  if (hint_of(fd) == SLOW) return read_patiently(fd, vector, count, families);
  const int errno_before = errno;
  const ssize_t result = real(preadv2)(fd, vector, count, -1, RWF_NOWAIT);
  if (__builtin_expect(result >= 0, 1)) {
    const bool is_whole = (size_t)result == length_of(vector, (size_t)count);
    return is_whole ? result : finish_reading(fd, vector, count, result);
  }
  if (errno != EAGAIN && !lacks_nowait(errno)) return -1;
  errno = errno_before;
  return read_patiently(fd, vector, count, families);
}

ssize_t evg_green_read(int fd, void *buffer, size_t size, uint32_t families) {
  if (size == 0) return real(read)(fd, buffer, size);
  if (evg_is_refused_on(fd)) return -1;
  evg_charge(fd);
  if (families & EVG_PATCH_SOCKETS && may_be_socket(fd)) {
    const int errno_before = errno;
    const ssize_t result = EVG_PATIENTLY(fd, POLLIN, real(recv)(fd, buffer, size, MSG_DONTWAIT));
    if (result != -1 || errno != ENOTSOCK) return result;
    note(fd, NO_SOCKET);
    errno = errno_before;
  }
  return read_other(fd, &(struct iovec){buffer, size}, 1, families);
}

ssize_t evg_green_readv(
    int fd, const struct iovec *vector, int count, uint32_t families) {
  if (count <= 0 || count > IOV_MAX) {
    return real(readv)(fd, vector, count);
  }
  if (evg_is_refused_on(fd)) return -1;
  evg_charge(fd);
  if (families & EVG_PATCH_SOCKETS && may_be_socket(fd)) {
    const int errno_before = errno;
    struct msghdr message = {.msg_iov = (struct iovec *)vector, .msg_iovlen = (size_t)count};
    const ssize_t result = EVG_PATIENTLY(fd, POLLIN, real(recvmsg)(fd, &message, MSG_DONTWAIT));
    if (result != -1 || errno != ENOTSOCK) return result;
    note(fd, NO_SOCKET);
    errno = errno_before;
  }
  return read_other(fd, vector, count, families);
}

enum { SAFE_PIECE = 256 };  // what a terminal that is ready takes without waiting

/// Writes what a descriptor takes that has no calls which do not wait: after `poll`, and so little
/// that there is room for it. Up to PIPE_BUF bytes go into a pipe as one.
static ssize_t write_piece(int fd, const struct iovec *vector, size_t count, size_t left) {
  const size_t piece = is_fifo(fd) ? PIPE_BUF : SAFE_PIECE;
  if (left <= piece || evg_flags(fd) & O_NONBLOCK) return real(writev)(fd, vector, (int)count);
  const size_t size = vector->iov_len < piece ? vector->iov_len : piece;
  return real(write)(fd, vector->iov_base, size);
}

/// Of what is no socket. A pipe answers in one system call.
static __attribute__((noinline)) ssize_t write_other(
    int fd, const struct iovec *given, int entries, uint32_t families) {
  const int errno_before = errno;
  const bool is_quick = hint_of(fd) == QUICK;
  ssize_t more = -1;
  // First as it is: the vector may be unreadable. A file is not tried so: it writes the whole as one.
  if (is_quick || !is_left_alone(fd, families)) {
    more = real(pwritev2)(fd, given, entries, -1, RWF_NOWAIT);
    if (more == -1 && errno != EAGAIN && !lacks_nowait(errno)) return -1;
    if (more >= 0 && (size_t)more == length_of(given, (size_t)entries)) {
      if (!may_be_socket(fd)) note(fd, QUICK);
      return more;
    }
  } else {
    return real(writev)(fd, given, entries);
  }
  const bool asks_first = more == -1 && lacks_nowait(errno);
  if (is_quick && is_left_alone(fd, families)) {
    note(fd, NO_SOCKET);
    errno = errno_before;
    if (more <= 0) return real(writev)(fd, given, entries);
    struct iovec *rest = COPY_OF(given, (size_t)entries);
    const size_t count = advance(&rest, (size_t)entries, (size_t)more);
    const ssize_t last = real(writev)(fd, rest, (int)count);
    errno = errno_before;
    return last > 0 ? more + last : more;
  }
  if (asks_first && evg_is_alone()) return EVG_PLAINLY(real(writev)(fd, given, entries));
  const size_t total = length_of(given, (size_t)entries);
  struct iovec *vector = COPY_OF(given, (size_t)entries);
  size_t done = more > 0 ? (size_t)more : 0, count = advance(&vector, (size_t)entries, done);
  evg_patience patience = {.fd = fd, .events = POLLOUT};
  if (total == 0) more = real(writev)(fd, given, entries);
  while (done < total) {
    if (asks_first) {
      more = poll_first(fd, POLLOUT, &patience) ? write_piece(fd, vector, count, total - done) : -1;
    } else {
      if (!evg_wait_to_repeat(&patience)) {
        more = -1;
        break;
      }
      more = real(pwritev2)(fd, vector, (int)count, -1, RWF_NOWAIT);
      if (more == -1 && errno == EAGAIN) continue;
    }
    if (more <= 0) break;
    done += (size_t)more;
    count = advance(&vector, count, (size_t)more);
  }
  if (done == 0) return more;
  errno = errno_before;
  return (ssize_t)done;
}

ssize_t evg_green_write(int fd, const void *buffer, size_t size, uint32_t families) {
  if (size == 0) return real(write)(fd, buffer, size);
  if (evg_is_refused_on(fd)) return -1;
  evg_charge(fd);
  if (families & EVG_PATCH_SOCKETS && may_be_socket(fd)) {
    const int errno_before = errno;
    const ssize_t result = real(send)(fd, buffer, size, MSG_DONTWAIT);
    if (__builtin_expect(result == (ssize_t)size, 1)) return result;
    if (result != -1 || errno != ENOTSOCK) return SEND_REST(fd, NULL, 0, 0, result);
    note(fd, NO_SOCKET);
    errno = errno_before;
  }
  if (hint_of(fd) != QUICK) {
    const int errno_before = errno;
    if (is_midway(fd)) return real(write)(fd, buffer, size);
    errno = errno_before;
  }
  return write_other(fd, &(struct iovec){(void *)buffer, size}, 1, families);
}

ssize_t evg_green_writev(
    int fd, const struct iovec *vector, int count, uint32_t families) {
  if (count <= 0 || count > IOV_MAX) {
    return real(writev)(fd, vector, count);
  }
  if (evg_is_refused_on(fd)) return -1;
  evg_charge(fd);
  if (families & EVG_PATCH_SOCKETS && may_be_socket(fd)) {
    const int errno_before = errno;
    const struct msghdr message = {.msg_iov = (struct iovec *)vector, .msg_iovlen = (size_t)count};
    const ssize_t result = real(sendmsg)(fd, &message, MSG_DONTWAIT);
    if (result != -1 || errno != ENOTSOCK) {
      if (result == -1 && errno != EAGAIN) return -1;
      return send_rest(fd, &message, 0, result, errno_before);
    }
    note(fd, NO_SOCKET);
    errno = errno_before;
  }
  if (hint_of(fd) != QUICK) {
    const int errno_before = errno;
    if (is_midway(fd)) return real(writev)(fd, vector, count);
    errno = errno_before;
  }
  return write_other(fd, vector, count, families);
}

// MARK: From descriptor to descriptor

ssize_t evg_green_sendfile(int out, int in, off_t *offset, size_t count) {
  if (evg_is_refused_on(out)) return -1;
  if (evg_is_alone()) return EVG_PLAINLY(real(sendfile)(out, in, offset, count));
  evg_charge(out);
  const int errno_before = errno;
  evg_patience patience = {.fd = out, .events = POLLOUT};
  size_t done = 0;
  while (done < count) {
    const ssize_t more =
      EVG_WITHOUT_BLOCKING(out, real(sendfile)(out, in, offset, count - done));
    if (more > 0) {
      done += (size_t)more;
      evg_charge(out);
    }
    if (more == 0) break;
    if (more == -1 && (errno != EAGAIN || !evg_wait_to_repeat(&patience))) {
      if (done == 0) return -1;
      break;
    }
  }
  errno = errno_before;
  return (ssize_t)done;
}

ssize_t evg_green_splice(
    int in, off64_t *in_offset, int out, off64_t *out_offset, size_t count, unsigned flags) {
  if (count == 0) {
    return real(splice)(in, in_offset, out, out_offset, count, flags);
  }
  if (evg_is_refused_on(in)) return -1;
  if (evg_is_alone()) {
    return EVG_PLAINLY(real(splice)(in, in_offset, out, out_offset, count, flags));
  }
  evg_charge(in);
  const int errno_before = errno;
  evg_patience reading = {.fd = in, .events = POLLIN}, writing = {.fd = out, .events = POLLOUT};
  // At least one of them is a pipe, which alone the flag is for.
  const bool takes_from_pipe = is_fifo(in), gives_to_pipe = is_fifo(out);
  const int other = takes_from_pipe ? out : in;
  while (true) {
    const ssize_t result = EVG_WITHOUT_BLOCKING(
      other,
      real(splice)(in, in_offset, out, out_offset, count, flags | SPLICE_F_NONBLOCK));
    if (result != -1) errno = errno_before;
    if (result != -1 || errno != EAGAIN) return result;
    // It does not say which of them is not ready.
    struct pollfd one = {.fd = in, .events = POLLIN};
    const bool lacks_input = real(poll)(&one, 1, 0) == 0;
    if (flags & SPLICE_F_NONBLOCK && (lacks_input ? takes_from_pipe : gives_to_pipe)) {
      errno = EAGAIN;
      return -1;
    }
    if (!evg_wait_to_repeat(lacks_input ? &reading : &writing)) return -1;
  }
}

#endif
