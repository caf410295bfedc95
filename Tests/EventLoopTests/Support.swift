// Evergreen: helpers of the event loop's tests
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A loop that does not outlive the body, and does not run for ever.
func withLoop<R>(_ backend: Backend? = nil, _ body: (Loop) throws -> R) throws -> R {
  let loop = try Loop(backend: backend)
  let limit = loop.timer(after: .seconds(60))
  limit.isReferenced = false
  limit.start {
    Issue.record("the loop ran for a minute")
    loop.stop(.all)
  }
  defer {
    limit.stop()
    loop.destroy()
  }
  return try body(loop)
}

struct OneError: Error {}

/// A pipe or socket pair that is closed at the end.
final class Pair {
  private(set) var reading: Int32 = -1
  private(set) var writing: Int32 = -1

  init() {
    var ends: [Int32] = [-1, -1]
    precondition(pipe(&ends) == 0)
    (reading, writing) = (ends[0], ends[1])
  }

  deinit {
    close(reading)
    close(writing)
  }

  func put() {
    var byte: UInt8 = 1
    precondition(write(writing, &byte, 1) == 1)
  }

  func take() {
    var byte: UInt8 = 0
    precondition(read(reading, &byte, 1) == 1)
  }

  /// The reading end under a number that no other test gets while it is free.
  func readingDuplicate(from number: Int32) -> Int32 {
    let copy = fcntl(reading, F_DUPFD, number)
    precondition(copy >= number)
    return copy
  }
}

/// CLOCK_MONOTONIC in nanoseconds.
func readClock() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
