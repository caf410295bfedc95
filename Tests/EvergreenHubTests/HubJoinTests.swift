// Evergreen: tests of waiting for the end of all work
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Hub.join", .timeLimit(.minutes(1)))
struct HubJoinTests {
  @Test func returnsAtOnceWhenThereIsNothing() async throws {
    try await runGreen {
      let hub = Hub.current
      for _ in 0..<1000 { try #expect(hub.join()) }
      for _ in 0..<100 { try #expect(hub.join(timeout: .seconds(60))) }
    }
  }

  @Test func waitsForGreenletsManyTimes() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      for round in 1...10 {
        spawn {
          try sleep(for: .seconds(1))
          log.add("\(round)")
          spawn { log.add("child of \(round)") }
        }
        try #expect(Hub.current.join())
        #expect(clock.elapsed == .seconds(round))
      }
      #expect(log.entries.count == 20)
    }
  }

  @Test func timesOutWithAPendingTimer() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { try sleep(for: .seconds(10)) }
      try #expect(!Hub.current.join(timeout: .seconds(3)))
      #expect(clock.elapsed == .seconds(3))
      #expect(!sleeper.isReady)
      try #expect(Hub.current.join(timeout: .seconds(30)))
      #expect(clock.elapsed == .seconds(10), "its own timeout does not count as work")
      #expect(sleeper.isReady)
    }
  }

  @Test func timesOutWithAnActiveWatcher() async throws {
    try await runGreen {
      let timer = Hub.current.eventLoop.timer(after: .seconds(3600))
      timer.start {}
      try #expect(!Hub.current.join(timeout: .milliseconds(5)))
      timer.isReferenced = false
      try #expect(Hub.current.join(timeout: .seconds(60)))
      timer.stop()
    }
  }

  @Test func doesNotWaitForWhatCanNeverHappen() async throws {
    try await runGreen {
      let event = Event()
      let parked = spawn { try event.wait() }
      try #expect(Hub.current.join())
      try #expect(Hub.current.join(timeout: .seconds(60)))
      #expect(!parked.isReady)
      event.set()
      try #expect(Hub.current.join())
      #expect(parked.isReady)
    }
  }

  @Test func onlyLooksWhenThereIsNoTime() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { try sleep(for: .seconds(10)) }
      try #expect(!Hub.current.join(timeout: .zero))
      try #expect(!Hub.current.join(timeout: .seconds(-1)))
      #expect(clock.elapsed == .zero)
      try sleeper.join()
    }
  }

  @Test func aTimeoutThatNeverComesIsNone() async throws {
    try await runGreenInVirtualTime { clock in
      spawn { try sleep(for: .seconds(5)) }
      try Greenlet.yield()
      try #expect(Hub.current.join(timeout: .seconds(Int64.max)))
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func oneThatWaitsForAnIdleLoopIsWork() async throws {
    try await runGreen {
      let idler = spawn { try idle() }
      try Greenlet.yield()
      try #expect(!Hub.current.join(timeout: .zero))
      try idler.join()
      try #expect(Hub.current.join(timeout: .zero))
    }
  }

  @Test func severalMayWait() async throws {
    try await runGreenInVirtualTime { clock in
      spawn { try sleep(for: .seconds(10)) }
      let waiters = (0..<3).map { number in
        spawn { try Hub.current.join(timeout: number == 0 ? .seconds(100) : nil) }
      }
      try #expect(Hub.current.join())
      try #expect(joinAll(waiters).map(\.value) == [true, true, true])
      #expect(clock.elapsed == .seconds(10))
    }
  }

  @Test func canBeKilledAndTimedOut() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { try sleep(for: .seconds(100)) }
      for timeout in [nil, Duration.seconds(50)] {
        let waiter = spawn { try Hub.current.join(timeout: timeout) }
        try Greenlet.yield()
        try waiter.kill()
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try Hub.current.join(timeout: .seconds(50)) }
      }
      #expect(clock.elapsed == .seconds(1))
      try sleeper.kill()
      // Nothing is left of those waits that would be taken for work, or hide work.
      spawn { try sleep(for: .seconds(1)) }
      try #expect(Hub.current.join())
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func aLookSaysWhetherAnythingIsLeft() async throws {
    try await runGreen {
      let hub = Hub.current
      try #expect(hub.join(timeout: .zero))
      let event = Box(false)
      let sleeper = spawn { try sleep(for: .seconds(1000)) }
      let waiter = spawn { while !event.value { try Greenlet.yield() } }
      try #expect(!hub.join(timeout: .zero))
      event.value = true
      try waiter.join()
      try #expect(!hub.join(timeout: .zero))  // the sleeper's timer
      try sleeper.kill()
      try #expect(hub.join(timeout: .zero))
    }
  }
}
