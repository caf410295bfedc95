// Evergreen: tests of the flag that greenlets wait for.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct EventTests {
  @Test func isClearAtFirstUnlessToldOtherwise() async throws {
    try await runGreen {
      #expect(!Event().isSet)
      #expect(Event(isSet: true).isSet)
      try #expect(Event(isSet: true).wait(timeout: .zero))
    }
  }

  @Test func wakesAllInTheOrderInWhichTheyCame() async throws {
    try await runGreen {
      let event = Event()
      var order: [Int] = []
      let waiters = (0..<10).map { number in
        spawn {
          try event.wait()
          order.append(number)
        }
      }
      try idle()
      #expect(order.isEmpty)
      event.set()
      #expect(order.isEmpty)  // the one that sets goes on
      try joinAll(waiters)
      #expect(order == Array(0..<10))
    }
  }

  @Test func aPulseWakesAThousand() async throws {
    try await runGreen {
      let event = Event()
      var woken = 0
      let waiters = (0..<1000).map { _ in
        spawn {
          try #expect(event.wait())
          #expect(!event.isSet)
          woken += 1
        }
      }
      try idle()
      event.set()
      event.clear()
      try joinAll(waiters)
      #expect(woken == 1000)
      try #expect(!event.wait(timeout: .zero))
    }
  }

  @Test func whoComesAfterThePulseIsNotWokenByIt() async throws {
    try await runGreenInVirtualTime { _ in
      let event = Event()
      let early = spawn { try event.wait(timeout: .seconds(1)) }
      try idle()
      event.set()
      event.clear()
      let late = spawn { try event.wait(timeout: .seconds(1)) }
      try #expect(early.get())
      try #expect(!late.get())
    }
  }

  @Test func whoComesWhileTheOthersAreWokenGoesThroughAtOnce() async throws {
    try await runGreen {
      let event = Event()
      var order: [String] = []
      let first = spawn {
        try event.wait()
        order.append("first")
      }
      let second = spawn {
        try event.wait()
        order.append("second")
      }
      try idle()
      event.set()
      let late = spawn {
        try event.wait()
        order.append("late")
      }
      try joinAll([first, second, late])
      #expect(order == ["first", "second", "late"])
    }
  }

  @Test func waitAnswersFalseWhenTimeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      try #expect(!event.wait(timeout: .seconds(5)))
      #expect(clock.elapsed >= .seconds(5))
      #expect(clock.elapsed < .seconds(6))
    }
  }

  @Test func aSetAtTheMomentOfTheTimeoutIsKept() async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      let waiter = spawn { try event.wait(timeout: .seconds(1)) }
      try idle()
      clock.advance(by: .seconds(2))  // the timer is due, but has not fired
      event.set()
      event.clear()
      try #expect(waiter.get())
    }
  }

  @Test func aSetBeforeTheKillIsKeptAndTheKillComesNext() async throws {
    try await runGreen {
      let event = Event()
      var wasSet = false
      let waiter = spawn {
        wasSet = try event.wait()
        try sleep(for: .seconds(60))
      }
      try idle()
      event.set()
      try waiter.kill()
      #expect(wasSet)
      #expect(waiter.error is GreenletExit)
    }
  }

  @Test func aKilledWaiterLeavesItsPlace() async throws {
    try await runGreen {
      let event = Event()
      let victim = spawn { try event.wait() }
      let other = spawn { try event.wait() }
      try idle()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      event.set()
      try #expect(other.get())
    }
  }

  @Test func theTimeoutOfAnEnclosingBlockIsThrown() async throws {
    try await runGreenInVirtualTime { _ in
      let event = Event()
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try event.wait(timeout: .seconds(2)) }
      }
    }
  }
}
