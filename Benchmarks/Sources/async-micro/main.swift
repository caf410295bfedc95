// Evergreen: items through Swift's AsyncStream, the peer of `micro`.
// SPDX-License-Identifier: MIT
//
// usage: async-micro queue N, and one line of JSON, per item; status 2 for a test it does not have.

import Glibc

func nanoseconds(of clock: clockid_t) -> Double {
  var time = timespec()
  clock_gettime(clock, &time)
  return Double(time.tv_sec) * 1e9 + Double(time.tv_nsec)
}

/// One task yields, another gets. A stream has no back-pressure: the one that yields gives way after each
/// 1,024 items, so that its memory stays that of the others' queues.
func queue(_ n: Int) async -> Int {
  let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
  let producer = Task {
    for number in 0..<n {
      continuation.yield(number)
      if number % 1_024 == 1_023 { await Task.yield() }
    }
    continuation.finish()
  }
  var sum = 0
  for await number in stream { sum &+= number }
  await producer.value
  return sum
}

let arguments = CommandLine.arguments
guard arguments.count == 3, arguments[1] == "queue", let n = Int(arguments[2]), n > 0 else {
  print("usage: async-micro queue N")
  exit(2)
}
let (wall, cpu) = (nanoseconds(of: CLOCK_MONOTONIC), nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID))
guard await queue(n) == n * (n - 1) / 2 else {
  print("items were lost")
  exit(1)
}
let spent = (
  nanoseconds(of: CLOCK_MONOTONIC) - wall, nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - cpu
)
print(#"{"n":\#(n),"ns":\#(spent.0 / Double(n)),"cpu_ns":\#(spent.1 / Double(n)),"rss_bytes":0}"#)
