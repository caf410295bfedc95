// Evergreen: tests of timers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct TimerWatcherTests {
  @Test(arguments: Backend.available)
  func neverFiresEarly(on backend: Backend) throws {
    try withLoop(backend) { loop in
      var count = 0
      for microseconds in [0, 1, 3, 50, 999, 1000, 1001, 2500, 10_000, 10_001] {
        // The cached time of the loop is old by now, which must not matter.
        let start = readClock()
        loop.timer(after: .microseconds(microseconds)).start {
          #expect(readClock() - start >= UInt64(microseconds) * 1000)
          count += 1
        }
      }
      loop.run()
      #expect(count == 10)
    }
  }

  @Test func staleLoopTimeDoesNotShortenTheWait() throws {
    try withLoop { loop in
      let busyUntil = readClock() + 20_000_000
      while readClock() < busyUntil {}
      let start = readClock()
      loop.timer(after: .milliseconds(10)).start {
        #expect(readClock() - start >= 10_000_000)
      }
      loop.run()
    }
  }

  @Test func zeroAndNegativeMeanTheNextPass() throws {
    try withLoop { loop in
      var calls = 0
      loop.timer(after: .zero).start { calls += 1 }
      loop.timer(after: .seconds(-5)).start { calls += 1 }
      loop.run(.once)
      #expect(calls == 2)
    }
  }

  @Test func hugeDelayIsForEver() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .seconds(Int64.max))
      timer.start { Issue.record("fired") }
      loop.run(.noWait)
      #expect(timer.remaining! > .seconds(1_000_000_000))
      timer.stop()
    }
  }

  @Test func manyFireInTheOrderOfTheirDeadlines() throws {
    try withLoop { loop in
      var bounds: [Range<UInt64>] = []
      var fired: [Int] = []
      for index in 0..<1000 {
        let delay = (index * 7919) % 1000 * 20_000
        let before = readClock()
        loop.timer(after: .nanoseconds(delay)).start { fired.append(index) }
        bounds.append(before + UInt64(delay)..<readClock() + UInt64(delay) + 100)
      }
      #expect(loop.activeCount == 1000)
      loop.run()
      #expect(fired.count == 1000)
      for (earlier, later) in zip(fired, fired.dropFirst()) {
        #expect(bounds[earlier].lowerBound <= bounds[later].upperBound)
      }
    }
  }

  @Test func repeatsUntilStopped() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .milliseconds(1), repeating: .milliseconds(2))
      let start = readClock()
      var calls = 0
      timer.start {
        calls += 1
        #expect(timer.isActive)
        if calls == 4 { timer.stop() }
      }
      #expect(loop.run() == false)
      #expect(calls == 4)
      #expect(readClock() - start >= 7_000_000)
    }
  }

  @Test func singleTimerIsInactiveInItsCallbackAndMayStartAgain() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .milliseconds(1))
      var calls = 0
      func fire() {
        calls += 1
        #expect(!timer.isActive)
        #expect(timer.remaining == nil)
        if calls < 3 { timer.start(fire) }
      }
      timer.start(fire)
      loop.run()
      #expect(calls == 3)
    }
  }

  @Test func againBeginsTheWaitAnew() throws {
    try withLoop { loop in
      let idleness = loop.timer(after: .seconds(1000), repeating: .milliseconds(20))
      var last = readClock()
      var ended: UInt64 = 0
      idleness.start {
        ended = readClock()
        idleness.stop()
      }
      var activity = 0
      let active = loop.timer(after: .milliseconds(5), repeating: .milliseconds(5))
      active.start {
        activity += 1
        last = readClock()
        idleness.again()
        if activity == 8 { active.stop() }
      }
      loop.run()
      #expect(ended - last >= 20_000_000)
    }
  }

  @Test func againWithoutRepetitionStops() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .milliseconds(1))
      timer.start { Issue.record("fired") }
      timer.again()
      #expect(!timer.isActive)
      #expect(loop.run() == false)
    }
  }

  @Test func againStartsAnInactiveTimerThatHasACallback() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .seconds(1000), repeating: .milliseconds(1))
      timer.again()
      #expect(!timer.isActive)
      var calls = 0
      timer.again {
        calls += 1
        timer.stop()
      }
      loop.run()
      #expect(calls == 1)
    }
  }

  @Test func repetitionMayChange() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .zero, repeating: .seconds(1000))
      var calls = 0
      timer.start {
        calls += 1
        timer.repeating = .zero
        timer.again()
      }
      loop.run()
      #expect(calls == 1)
      timer.repeating = .milliseconds(1)
      timer.after = .milliseconds(1)
      timer.start {
        calls += 1
        if calls == 3 { timer.stop() }
      }
      loop.run()
      #expect(calls == 3)
    }
  }

  @Test func remainingCountsDown() throws {
    try withLoop { loop in
      let timer = loop.timer(after: .seconds(1000))
      #expect(timer.remaining == nil)
      timer.start {}
      let first = timer.remaining!
      #expect(first <= .seconds(1000) + .microseconds(1) && first > .seconds(900))
      let until = readClock() + 1_000_000
      while readClock() < until {}
      #expect(timer.remaining! < first - .microseconds(900))
    }
  }

  @Test func whatCameTooLateIsLeftOutAndTheRhythmKept() throws {
    try withLoop { loop in
      let period: UInt64 = 50_000_000
      let timer = loop.timer(after: .zero, repeating: .nanoseconds(Int64(period)))
      var times: [UInt64] = []
      let start = readClock()
      timer.start {
        times.append(readClock())
        if times.count == 1 {
          while readClock() < start + 3 * period {}
        } else if times.count == 3 {
          timer.stop()
        }
      }
      loop.run()
      // Due at 0, 1, 2 (left out), 3 (perhaps), 4...: none of them early, none right behind another.
      #expect(times[1] >= start + 3 * period)
      for (earlier, later) in zip(times.dropFirst(), times.dropFirst(2)) {
        #expect((later - start) / period > (earlier - start) / period)
      }
    }
  }

  @Test func anyDurationWillDo() throws {
    try withLoop { loop in
      for duration in [Duration.seconds(Int64.max), .seconds(Int64.min)] {
        let timer = loop.timer(after: duration, repeating: duration)
        timer.start {}
        #expect(timer.remaining != nil)
        timer.again()
        timer.stop()
      }
    }
  }
}
