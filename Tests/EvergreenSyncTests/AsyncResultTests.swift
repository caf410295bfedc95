// Evergreen: tests of results that come later.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

private struct Refused: Error {}

@Suite(.timeLimit(.minutes(5))) struct AsyncResultTests {
  @Test func knowsWhatHasBeenSet() async throws {
    try await runGreen {
      let result = AsyncResult<Int>()
      #expect(!result.isReady && !result.isSuccessful && result.value == nil && result.error == nil)
      result.set(3)
      #expect(result.isReady && result.isSuccessful && result.value == 3 && result.error == nil)
      try #expect(result.get() == 3)
      try #expect(result.wait(timeout: .zero))
      let failed = AsyncResult<Int>()
      failed.set(throwing: Refused())
      #expect(failed.isReady && !failed.isSuccessful && failed.value == nil)
      #expect(failed.error is Refused)
      #expect(throws: Refused.self) { try failed.get() }
      try #expect(failed.wait())  // which does not throw it
      let empty = AsyncResult<Int?>()
      empty.set(nil)
      #expect(empty.isSuccessful)
      let done = AsyncResult<Void>()
      done.set()
      try done.get()
    }
  }

  @Test func wakesAllInTheOrderInWhichTheyCame() async throws {
    try await runGreen {
      let result = AsyncResult<String>()
      var order: [Int] = []
      let waiters = (0..<10).map { number in
        spawn {
          try #expect(result.get() == "x")
          order.append(number)
        }
      }
      try waitUntilBlocked()
      result.set("x")
      #expect(order.isEmpty)  // the one that sets goes on
      try joinAll(waiters, raisingErrors: true)
      #expect(order == Array(0..<10))
    }
  }

  @Test func anErrorIsThrownToEach() async throws {
    try await runGreen {
      let result = AsyncResult<Int>()
      let getters = (0..<3).map { _ in spawn { try result.get() } }
      let waiter = spawn { try result.wait() }
      try waitUntilBlocked()
      result.set(throwing: Refused())
      try joinAll(getters)
      #expect(getters.allSatisfy { $0.error is Refused })
      try #expect(waiter.get())
    }
  }

  @Test func isSetOnce() async throws {
    try await runGreen {
      let result = AsyncResult<Int>()
      #expect(result.trySet(.success(1)))
      #expect(!result.trySet(.success(2)) && !result.trySet(.failure(Refused())))
      #expect(result.value == 1)
    }
    let exit = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let result = AsyncResult<Int>()
        result.set(1)
        result.set(throwing: Refused())
      }
    }
    expectSentence("an AsyncResult was set twice", in: exit)
  }

  @Test func timeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let result = AsyncResult<Int>()
      #expect(throws: Timeout.self) { try result.get(timeout: .seconds(3)) }
      try #expect(!result.wait(timeout: .seconds(4)))
      #expect(clock.elapsed == .seconds(7))
      #expect(throws: Timeout.self) { try result.get(timeout: .zero) }
      result.set(5)
      try #expect(result.get(timeout: .zero) == 5)
    }
  }

  @Test func aResultAtTheMomentOfTheTimeoutOrTheKillIsKept() async throws {
    try await runGreenInVirtualTime { clock in
      let result = AsyncResult<Int>()
      let late = spawn { try result.get(timeout: .seconds(1)) }
      let victim = spawn { try result.get() }
      try waitUntilBlocked()
      clock.advance(by: .seconds(2))  // the timer is due, but has not fired
      result.set(8)
      try victim.kill(waiting: false)
      try #expect(late.get() == 8)
      try #expect(victim.get() == 8)
    }
  }

  @Test(arguments: [WaitEnd.kill, .enclosingTimeout])
  func whoLeavesEarlyLeavesNothingBehind(_ end: WaitEnd) async throws {
    try await runGreenInVirtualTime { _ in
      let result = AsyncResult<Int>()
      let victim = spawn {
        try withTimeout(end == .kill ? nil : .seconds(1)) { try result.get() }
      }
      let other = spawn { try result.get() }
      try waitUntilBlocked()
      #expect(result.waiters.count == 2)
      if end == .kill { try victim.kill() } else { try victim.join() }
      #expect(end == .kill ? victim.error is GreenletExit : victim.error is Timeout)
      #expect(result.waiters.count == 1)
      result.set(1)
      try #expect(other.get() == 1)
    }
  }

  @Test func anotherThreadIsRefused() async {
    let exit = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let result = AsyncResult<Int>()
        try ThreadPool.run { result.set(1) }
      }
    }
    expectSentence("belongs to the hub of another thread", in: exit)
  }
}
