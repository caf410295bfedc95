// Evergreen: what one test of `micro` costs, per operation.
// SPDX-License-Identifier: MIT

import Glibc

/// Wall time, CPU time of the process (all its threads) and growth of its resident memory since
/// the measurement was begun.
struct Measurement {
  let memory = residentBytes()
  let cpu = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID)
  let wall = nanoseconds(of: CLOCK_MONOTONIC)

  /// Ends it.
  ///
  /// - Parameters:
  ///   - operations: How many the whole is divided by.
  ///   - wall: Nanoseconds of wall time, where not all since the beginning counts.
  ///   - memory: Bytes, where the growth is to be read before the end.
  /// - Returns: The cost of one operation.
  func report(per operations: Int, wall: Int64? = nil, memory: Int64? = nil) -> Report {
    let wall = wall ?? nanoseconds(of: CLOCK_MONOTONIC) - self.wall
    let cpu = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - self.cpu
    let memory = memory ?? residentBytes() - self.memory
    return Report(operations: operations, wall: wall, cpu: cpu, memory: memory)
  }
}

/// One line of JSON.
struct Report: CustomStringConvertible {
  let operations: Int
  let wall, cpu, memory: Int64

  var description: String {
    #"{"n":\#(operations),"ns":\#(each(wall)),"cpu_ns":\#(each(cpu)),"rss_bytes":\#(each(memory))}"#
  }

  /// To a hundredth.
  private func each(_ total: Int64) -> Double {
    (Double(total) / Double(operations) * 100).rounded() / 100
  }
}

func nanoseconds(of clock: clockid_t) -> Int64 {
  var time = timespec()
  clock_gettime(clock, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// From the second number of /proc/self/statm, which counts pages.
func residentBytes() -> Int64 {
  let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { fail("cannot read /proc/self/statm") }
  defer { close(file) }
  let text = String(unsafeUninitializedCapacity: 256) { max(read(file, $0.baseAddress, 256), 0) }
  let numbers = text.split(separator: " ")
  guard numbers.count > 1, let pages = Int64(numbers[1]) else {
    fail("odd /proc/self/statm: \(text)")
  }
  return pages * Int64(sysconf(Int32(_SC_PAGESIZE)))
}

func fail(_ text: String, status: Int32 = 1) -> Never {
  let line = "micro: \(text)\n"
  _ = line.withCString { write(2, $0, strlen($0)) }
  exit(status)
}
