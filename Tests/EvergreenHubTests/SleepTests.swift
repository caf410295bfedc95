// Evergreen: tests of letting time pass
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("sleep, yield and idle", .timeLimit(.minutes(1)))
struct SleepTests {
  // MARK: The real clock

  @Test(arguments: [
    Duration.nanoseconds(1), .microseconds(1), .microseconds(999), .milliseconds(1),
    .microseconds(1001), .milliseconds(7), .milliseconds(20),
    Duration(
      secondsComponent: 0, attosecondsComponent: 1),
  ])
  func neverEndsEarly(_ duration: Duration) async throws {
    try await runGreen {
      for _ in 0..<5 {
        let begin = ContinuousClock.now
        try sleep(for: duration)
        #expect(begin.duration(to: .now) >= duration)
      }
    }
  }

  @Test func neverEndsEarlyAfterACalculation() async throws {
    // The loop's own idea of the time is old then.
    try await runGreen {
      for _ in 0..<5 {
        try sleep(for: .milliseconds(1))
        compute(for: .milliseconds(5))
        let begin = ContinuousClock.now
        try sleep(for: .milliseconds(3))
        #expect(begin.duration(to: .now) >= .milliseconds(3))
      }
    }
  }

  @Test func manySleepersAtOnceNeverEndEarly() async throws {
    try await runGreen {
      let all = (1...200).map { number in
        spawn {
          let duration = Duration.microseconds(number * 97)
          let begin = ContinuousClock.now
          try sleep(for: duration)
          return begin.duration(to: .now) >= duration
        }
      }
      try #expect(!joinAll(all).contains { $0.value != true })
    }
  }

  @Test func untilAnInstantNeverEndsEarly() async throws {
    try await runGreen {
      let instant = ContinuousClock.now.advanced(by: .milliseconds(5))
      try sleep(until: instant)
      #expect(ContinuousClock.now >= instant)
      try sleep(until: instant)  // has passed
      try sleep(until: .now)
    }
  }

  @Test func joinNeverTimesOutEarly() async throws {
    try await runGreen {
      let worker = spawn { try sleep(for: .seconds(60)) }
      for milliseconds in [1, 3, 8] {
        let begin = ContinuousClock.now
        try #expect(!worker.join(timeout: .milliseconds(milliseconds)))
        #expect(begin.duration(to: .now) >= .milliseconds(milliseconds))
      }
      try worker.kill()
    }
  }

  // MARK: No time at all

  @Test(arguments: [Duration.zero, .nanoseconds(-1), .seconds(-1000)])
  func noTimeOnlyLetsTheOthersRun(_ duration: Duration) async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let other = spawn {
        log.add("1")
        try sleep(for: duration)
        log.add("2")
      }
      log.add("main 1")
      try sleep(for: duration)
      log.add("main 2")
      try other.join()
      #expect(log.entries == ["main 1", "1", "main 2", "2"])
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func yieldAloneReturns() async throws {
    try await runGreen {
      for _ in 0..<10_000 { try Greenlet.yield() }
    }
  }

  // MARK: Long times

  @Test func longTimersFireInTheirOrder() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let days = [30, 1, 365, 7, 10_000]
      let all = days.map { days in
        spawn {
          try sleep(for: .seconds(86_400 * days))
          log.add("\(days)")
          #expect(clock.elapsed == .seconds(86_400 * days))
        }
      }
      try joinAll(all)
      #expect(log.entries == ["1", "7", "30", "365", "10000"])
    }
  }

  @Test func equalTimersFireInTheOrderOfTheirStart() async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let all = (0..<100).map { number in
        spawn {
          try sleep(for: .seconds(10))
          log.add("\(number)")
        }
      }
      try joinAll(all)
      #expect(log.entries == (0..<100).map(String.init))
    }
  }

  @Test func verylongSleepsCanBeKilled() async throws {
    try await runGreen {
      let all = [Duration.seconds(Int64.max), .seconds(3_000_000_000), .nanoseconds(Int64.max)]
        .map { duration in spawn { try sleep(for: duration) } }
      try Greenlet.yield()
      try sleep(for: .milliseconds(1))
      #expect(!all.contains { $0.isReady })
      try killAll(all)
    }
  }

  // MARK: Many timers

  @Test(arguments: [false, true])
  func manyTimersKeepTheirOrder(_ lateForAll: Bool) async throws {
    try await runGreen {
      var margin = Duration.milliseconds(20)
      while true {
        let log = Log()
        let start = ContinuousClock.now.advanced(by: margin)
        let delays = (0..<20).map { $0 * 7 % 20 }
        let all = delays.map { delay in
          spawn {
            try sleep(until: start.advanced(by: .milliseconds(3 * delay)))
            log.add("\(delay)")
          }
        }
        try Greenlet.yield()
        let wereInTime = ContinuousClock.now < start
        if lateForAll { compute(for: margin + .milliseconds(70)) }
        try joinAll(all)
        guard wereInTime else {  // a busy machine: some did not even begin before their time
          margin *= 2
          continue
        }
        #expect(log.entries == (0..<20).map(String.init))
        return
      }
    }
  }

  @Test func cancelledTimersDoNotPileUp() async throws {
    try await runGreen {
      let loop = Hub.current.eventLoop
      let before = loop.activeCount
      let event = Event()
      let setter = spawn {
        for _ in 0..<10_000 {
          event.set()
          try Greenlet.yield()
        }
      }
      for _ in 0..<10_000 {
        event.clear()
        try withTimeout(.seconds(3600)) { _ = try event.wait(timeout: .seconds(7200)) }
        Timeout.start(after: .seconds(3600)).cancel()
      }
      try setter.join()
      for _ in 0..<1000 { try spawn(after: .seconds(3600)) {}.kill() }
      #expect(loop.activeCount == before)
    }
  }

  // MARK: idle

  @Test func idleReturnsWhenNobodyIsReady() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let busy = spawn {
        for _ in 0..<10 { try Greenlet.yield() }
        log.add("busy")
      }
      let sleeper = spawn { try sleep(for: .seconds(10)) }
      try idle()
      log.add("idle")
      #expect(log.entries == ["busy", "idle"])
      #expect(busy.isReady)
      #expect(!sleeper.isReady, "it does not wait for time to pass")
      #expect(clock.elapsed == .zero)
      try sleeper.join()
    }
  }

  @Test func idleWithNothingToDoReturns() async throws {
    try await runGreen {
      try idle()
      try idle()
    }
  }

  @Test func idleLetsTimersFireThatAreDue() async throws {
    try await runGreen {
      let sleeper = spawn { try sleep(for: .milliseconds(1)) }
      try Greenlet.yield()
      compute(for: .milliseconds(5))
      try idle()
      #expect(sleeper.isReady)
    }
  }

  @Test func severalIdleOnesTakeTurns() async throws {
    try await runGreen {
      let log = Log()
      let all = (0..<3).map { number in
        spawn {
          try idle()
          log.add("\(number)")
          try Greenlet.yield()
          log.add("\(number)'")
        }
      }
      try joinAll(all)
      #expect(log.entries == ["0", "0'", "1", "1'", "2", "2'"])
    }
  }
}
