// Evergreen: calls that find something, timed in turn with libc's own.
// SPDX-License-Identifier: MIT

import Glibc

/// Nanoseconds a call, the least of the rounds: others on the machine only make it slower.
func cost(_ calls: [(String, () -> Void)]) -> [(String, Double)] {
  let count = 200_000
  var least = calls.map { ($0.0, Double.infinity) }
  for _ in 0..<15 {
    for (index, call) in calls.enumerated() {
      var before = timespec()
      var after = timespec()
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before)
      for _ in 0..<count { call.1() }
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after)
      let spent =
        Double(after.tv_sec - before.tv_sec) * 1e9 + Double(after.tv_nsec - before.tv_nsec)
      least[index].1 = min(least[index].1, spent / Double(count))
    }
  }
  return least
}

typealias Transfer = @convention(c) (Int32, UnsafeMutableRawPointer, Int, Int32) -> Int
typealias Reading = @convention(c) (Int32, UnsafeMutableRawPointer, Int) -> Int
typealias Polling = @convention(c) (UnsafeMutablePointer<pollfd>, nfds_t, Int32) -> Int32

/// The function that `name` means in this program, and libc's own.
func pair<T>(_ name: String, _ type: T.Type) -> (patched: T, real: T) {
  let libc = dlopen("libc.so.6", RTLD_LAZY)
  let program = dlopen(nil, RTLD_LAZY)
  return (
    unsafeBitCast(dlsym(program, name), to: type), unsafeBitCast(dlsym(libc, name), to: type)
  )
}

/// Calls that find something, as they are in this program and in libc.
struct Comparison {
  let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 16)
  let recvs = pair("recv", Transfer.self)
  let sends = pair("send", Transfer.self)
  let reads = pair("read", Reading.self)
  let writes = pair("write", Reading.self)
  let polls = pair("poll", Polling.self)
  let zero = open("/dev/zero", O_RDONLY)
  /// All in memory, and longer than what is read.
  let file = open("/tmp", O_RDWR | 0o20000000 | O_DIRECTORY, 0o600)
  let written = open("/tmp", O_RDWR | 0o20000000 | O_DIRECTORY, 0o600)
  let one, other, source, sink: Int32

  init() {
    var ends: [Int32] = [0, 0]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
    (one, other) = (ends[0], ends[1])
    pipe(&ends)
    (source, sink) = (ends[0], ends[1])
    ftruncate(file, 1 << 30)
  }

  func measure(_ title: String) {
    let tests: [(String, () -> Void, () -> Void)] = [
      (
        "send + recv, 1 byte, socket",
        { _ = (sends.patched(one, buffer, 1, 0), recvs.patched(other, buffer, 1, 0)) },
        { _ = (sends.real(one, buffer, 1, 0), recvs.real(other, buffer, 1, 0)) }
      ),
      (
        "write + read, 1 byte, socket",
        { _ = (writes.patched(one, buffer, 1), reads.patched(other, buffer, 1)) },
        { _ = (writes.real(one, buffer, 1), reads.real(other, buffer, 1)) }
      ),
      (
        "write + read, 1 byte, pipe",
        { _ = (writes.patched(sink, buffer, 1), reads.patched(source, buffer, 1)) },
        { _ = (writes.real(sink, buffer, 1), reads.real(source, buffer, 1)) }
      ),
      (
        "write + read, 1 byte of 64, pipe",
        { _ = (writes.patched(sink, buffer, 1), reads.patched(source, buffer, 64)) },
        { _ = (writes.real(sink, buffer, 1), reads.real(source, buffer, 64)) }
      ),
      (
        "write, 1 byte, file",
        { _ = (writes.patched(written, buffer, 1)) }, { _ = (writes.real(written, buffer, 1)) }
      ),
      (
        "read, 1 byte, file",
        { _ = (reads.patched(file, buffer, 1)) }, { _ = (reads.real(file, buffer, 1)) }
      ),
      (
        "poll, ready",
        {
          var ready = pollfd(fd: zero, events: Int16(POLLIN), revents: 0)
          _ = polls.patched(&ready, 1, 1000)
        },
        {
          var ready = pollfd(fd: zero, events: Int16(POLLIN), revents: 0)
          _ = polls.real(&ready, 1, 1000)
        }
      ),
    ]
    for (name, patched, real) in tests {
      let least = cost([("real", real), ("patched", patched)])
      print(
        "\(title): \(name): libc \(Int(least[0].1.rounded())) ns, here \(Int(least[1].1.rounded())) ns,"
          + " more by \(((least[1].1 - least[0].1) * 10).rounded() / 10) ns")
    }
  }
}
