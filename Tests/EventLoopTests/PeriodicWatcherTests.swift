// Evergreen: tests of times of day
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

private func wallClock() -> Duration {
  var time = timespec()
  clock_gettime(CLOCK_REALTIME, &time)
  return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
}

@Suite struct PeriodicWatcherTests {
  @Test func comesAtATimeOnce() throws {
    try withLoop { loop in
      let time = wallClock() + .milliseconds(10)
      let watcher = loop.periodic(at: time)
      #expect(watcher.nextTime == nil)
      var calls = 0
      watcher.start {
        calls += 1
        #expect(!watcher.isActive)
        // Interpolated from the monotonic clock, so not exact.
        #expect(wallClock() > time - .milliseconds(5))
      }
      loop.run()
      #expect(calls == 1)
    }
  }

  @Test func comesAtMultiples() throws {
    try withLoop { loop in
      let watcher = loop.periodic(every: .milliseconds(5))
      var calls = 0
      watcher.start {
        calls += 1
        if calls == 3 { watcher.stop() }
      }
      let next = try #require(watcher.nextTime)
      let phase = next.components.attoseconds % 5_000_000_000_000_000
      #expect(min(phase, 5_000_000_000_000_000 - phase) < 2_000_000_000_000)
      loop.run()
      #expect(calls == 3)
    }
  }

  @Test func comesWhenTheClosureSays() throws {
    try withLoop { loop in
      var asked = 0
      let watcher = loop.periodic { now in
        asked += 1
        // The second time in the past, which counts as the present.
        return asked == 2 ? now - .seconds(100) : now + .milliseconds(2)
      }
      var calls = 0
      watcher.start {
        calls += 1
        if calls == 3 { watcher.stop() }
      }
      loop.run()
      #expect(calls == 3)
      #expect(asked >= 3)
    }
  }

  @Test func againReckonsAnew() throws {
    try withLoop { loop in
      let watcher = loop.periodic(at: wallClock() + .seconds(10_000))
      var calls = 0
      watcher.start { calls += 1 }
      watcher.offset = wallClock() + .milliseconds(2)
      watcher.again()
      loop.run()
      #expect(calls == 1)
      watcher.again()
      #expect(!watcher.isActive)
    }
  }

  @Test func anyTimeWillDo() throws {
    try withLoop { loop in
      let never = loop.periodic(at: .seconds(Int64.max))
      never.start {}
      #expect(never.nextTime! > .seconds(1 << 40))
      never.stop()
      let asked = loop.periodic { _ in .seconds(Int64.max) }
      asked.start {}
      #expect(asked.nextTime! > .seconds(1 << 40))
      asked.stop()
    }
  }

  @Test func aTinyIntervalLeavesTimeForOthers() throws {
    try withLoop { loop in
      let watcher = loop.periodic(every: .nanoseconds(1))
      var calls = 0
      watcher.start { calls += 1 }
      let start = wallClock()
      while wallClock() < start + .milliseconds(20) { loop.run(.noWait) }
      watcher.stop()
      // One in 1/8192 of a second at most, by the wall clock, which somebody may set.
      #expect(Double(calls) <= (wallClock() - start) / .seconds(1) * 8192 + 2)
    }
  }
}
