// Evergreen: tests of the answer that is delivered to one greenlet.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct WaiterTests {
  @Test func theValueMayComeFirst() async throws {
    try await runGreen {
      let waiter = Waiter<Int>()
      #expect(!waiter.isReady)
      waiter.resume(returning: 5)
      #expect(waiter.isReady)
      for _ in 0..<3 { try #expect(waiter.get(timeout: .zero) == 5) }
    }
  }

  @Test func theWaitMayComeFirst() async throws {
    try await runGreen {
      let waiter = Waiter<Int>()
      var order: [String] = []
      let getter = spawn {
        let value = try waiter.get()
        order.append("got")
        return value
      }
      try idle()
      #expect(!getter.isReady)
      waiter.resume(returning: 5)
      order.append("resumed")  // who delivers goes on
      try #expect(getter.get() == 5)
      #expect(order == ["resumed", "got"])
      try #expect(waiter.get() == 5)
    }
  }

  @Test func anErrorIsThrownWhetherItComesFirstOrLast() async throws {
    try await runGreen {
      let waiter = Waiter<Int>()
      Hub.current.onError = { _, _ in }
      let getter = spawn { try waiter.get() }
      try idle()
      waiter.resume(throwing: OneError(number: 1))
      #expect(throws: OneError(number: 1)) { try getter.get() }
      #expect(waiter.isReady)
      #expect(throws: OneError(number: 1)) { try waiter.get() }
    }
  }

  @Test func nothingIsAValueToo() async throws {
    try await runGreen {
      let waiter = Waiter<Void>()
      spawn { waiter.resume() }
      try waiter.get()
      let perhaps = Waiter<Int?>()
      perhaps.resume(with: .success(nil))
      try #expect(perhaps.get() == nil)
    }
  }

  @Test func aCallbackOfTheLoopDelivers() async throws {
    try await runGreen {
      let waiter = Waiter<Int>()
      let timer = Hub.current.eventLoop.timer(after: .milliseconds(1))
      var errorInCallback: (any Error)?
      timer.start {
        errorInCallback = thrown { _ = try waiter.get() }
        waiter.resume(returning: 7)
        try #expect(waiter.get() == 7)  // need not wait
      }
      try #expect(waiter.get(timeout: .seconds(30)) == 7)
      #expect(errorInCallback is BlockingInHub)
    }
  }

  @Test func aSecondGetterIsRefusedAndTheFirstIsNotDisturbed() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let waiter = Waiter<Int>()
      let first = spawn { try waiter.get() }
      first.name = "first"
      try idle()
      for timeout in [nil, Duration.zero, .seconds(60)] {
        let second = spawn { try waiter.get(timeout: timeout) }
        second.name = "second"
        let error = #expect(throws: ConcurrentUse.self) { try second.get(timeout: .seconds(30)) }
        let text = error?.description ?? ""
        #expect(text.contains("\"first\"") && text.contains("\"second\""))
        #expect(text.contains("a Waiter") && text.contains("WaiterTests.swift"))
      }
      #expect(!first.isReady)
      waiter.resume(returning: 3)
      // It has not run yet, but there is no wait any more.
      try #expect(waiter.get() == 3)
      try #expect(first.get() == 3)
    }
  }

  @Test func whatComesAfterAKillIsKeptForTheNext() async throws {
    try await runGreen {
      let waiter = Waiter<Int>()
      let victim = spawn { try waiter.get() }
      try idle()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      #expect(!waiter.isReady)
      let next = spawn { try waiter.get() }
      try idle()
      waiter.resume(returning: 4)
      try #expect(next.get() == 4)
    }
  }

  @Test func whatComesAfterATimeoutIsKeptForTheNext() async throws {
    try await runGreenInVirtualTime { clock in
      let waiter = Waiter<Int>()
      #expect(throws: Timeout.self) { try waiter.get(timeout: .zero) }
      let error = #expect(throws: Timeout.self) { try waiter.get(timeout: .seconds(5)) }
      #expect(error?.duration == .seconds(5))
      #expect(clock.elapsed >= .seconds(5) && clock.elapsed < .seconds(6))
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try waiter.get(timeout: .seconds(3)) }
      }
      waiter.resume(returning: 4)
      try #expect(waiter.get(timeout: .zero) == 4)
    }
  }

  @Test func whatComesWithTheTimeoutOrBeforeTheKillIsWon() async throws {
    try await runGreenInVirtualTime { clock in
      let waiter = Waiter<Int>()
      let getter = spawn { try waiter.get(timeout: .seconds(1)) }
      try idle()
      clock.advance(by: .seconds(2))  // the timer is due, but has not fired
      waiter.resume(returning: 1)
      try #expect(getter.get() == 1)

      let other = Waiter<Int>()
      var won: Int?
      let victim = spawn {
        won = try other.get()
        try sleep(for: .seconds(60))
      }
      try idle()
      other.resume(returning: 2)
      try victim.kill()
      #expect(won == 2)
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func aStandstillNamesIt() async throws {
    try await runGreen {
      let error = #expect(throws: LoopExit.self) { try Waiter<Int>().get() }
      #expect(error?.report.contains("a Waiter") == true)
    }
  }

  @Test func isLetGoWithItsValue() async throws {
    try await runGreen {
      weak var gone: Log?
      do {
        let waiter = Waiter<Log>()
        let log = Log()
        gone = log
        waiter.resume(returning: log)
        try #expect(waiter.get() === log)
      }
      #expect(gone == nil)
    }
  }

  @Test(arguments: [false, true]) func resumingTwiceEndsTheProgram(isFirstTaken: Bool) async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      [isFirstTaken] in
      try await runGreenInChild {
        let waiter = Waiter<Int>()
        waiter.resume(returning: 1)
        if isFirstTaken { _ = try waiter.get() }
        waiter.resume(throwing: OneError())
      }
    }
    #expect(text(of: result).contains("a Waiter was resumed twice"))
  }

  @Test func resumingElsewhereEndsTheProgram() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let smuggled = Smuggled(value: Waiter<Int>())
        OwnThread { smuggled.value.resume(returning: 1) }.join()
      }
    }
    #expect(text(of: result).contains(MisuseTests.foreign))
  }

  @Test func aGetterThatStayedInTheParentLeavesThePlaceFree() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let waiter = Waiter<Int>()
        let getter = spawn { try waiter.get() }
        try idle()
        try inForkedChild {
          let mine = spawn { try waiter.get() }
          try idle()
          waiter.resume(returning: 1)
          try check(mine.get() == 1)
        }
        waiter.resume(returning: 2)
        try check(getter.get() == 2)
      }
    }
  }
}
