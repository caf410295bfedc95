// Evergreen: tests that nobody is starved
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite("Fairness", .timeLimit(.minutes(1)))
struct FairnessTests {
  @Test func anEndlessYieldLoopLetsATimeoutFire() async throws {
    try await runGreen {
      let begin = ContinuousClock.now
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { while true { try Greenlet.yield() } }
      }
      #expect(begin.duration(to: .now) >= .milliseconds(10))
    }
  }

  @Test func anEndlessLoopOfSleepingForNoTimeLetsATimeoutFire() async throws {
    try await runGreen {
      let begin = ContinuousClock.now
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { while true { try sleep(for: .zero) } }
      }
      #expect(begin.duration(to: .now) >= .milliseconds(10))
    }
  }

  @Test(arguments: [1, 2, 100])
  func yieldingGreenletsLetOthersTimersFire(_ count: Int) async throws {
    try await runGreen {
      let isOver = Box(false)
      for _ in 0..<count { spawn { while !isOver.value { try Greenlet.yield() } } }
      for _ in 0..<3 { try sleep(for: .milliseconds(2)) }
      isOver.value = true
    }
  }

  @Test func greenletsThatComputeBetweenYieldsLetTimersFire() async throws {
    try await runGreen {
      let turns = Box(0)
      let isOver = Box(false)
      for _ in 0..<10 {
        spawn {
          while !isOver.value {
            compute(for: .milliseconds(1))
            turns.value += 1
            try Greenlet.yield()
          }
        }
      }
      try Greenlet.yield()
      for _ in 0..<20 { try sleep(for: .milliseconds(1)) }  // the budget learns
      let before = turns.value
      try sleep(for: .milliseconds(1))
      #expect(turns.value - before < 200, "a full budget of runs would be 256")
      isOver.value = true
    }
  }

  @Test func greenletsThatWakeEachOtherLetTimersFire() async throws {
    try await runGreen {
      let events = [Event(), Event()]
      let players = (0..<2).map { number in
        spawn {
          while true {
            try events[number].wait()
            events[number].clear()
            events[1 - number].set()
          }
        }
      }
      events[0].set()
      try sleep(for: .milliseconds(5))
      try killAll(players)
    }
  }

  @Test func greenletsThatSpawnGreenletsLetTimersFire() async throws {
    try await runGreen {
      let isOver = Box(false)
      func breed() { if !isOver.value { _ = spawn { breed() } } }
      breed()
      try sleep(for: .milliseconds(5))
      isOver.value = true
    }
  }

  @Test func anAlwaysReadySocketPairDoesNotStarveTimers() async throws {
    try await runGreen {
      var ends: [Int32] = [-1, -1]
      #expect(socketpair(AF_UNIX, streamType, 0, &ends) == 0)
      defer { for end in ends { close(end) } }
      var byte: UInt8 = 1
      #expect(write(ends[0], &byte, 1) == 1)  // and nobody reads it
      let event = Event()
      let watcher = try Hub.current.eventLoop.io(ends[1], .read)
      try watcher.start { event.set() }
      let reads = Box(0)
      let reader = spawn {
        while true {
          try event.wait()
          event.clear()
          reads.value += 1
        }
      }
      for _ in 0..<3 { try sleep(for: .milliseconds(2)) }
      #expect(reads.value > 3)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(5)) { while true { try Greenlet.yield() } }
      }
      watcher.stop()
      try reader.kill()
    }
  }

  @Test func systemCallsThatNeverWaitAreCharged() async throws {
    try await runGreen {
      let hub = Hub.current
      let other = spawn { try sleep(for: .milliseconds(2)) }
      while !other.isReady { try hub.admitIO() }
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(2)) { while true { try hub.admitIO() } }
      }
    }
  }
}

#if canImport(Glibc)
private let streamType = Int32(SOCK_STREAM.rawValue)
#else
private let streamType = SOCK_STREAM
#endif
