// Evergreen: tests of waiting for many greenlets
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("joinAll", .timeLimit(.minutes(1)))
struct JoinAllTests {
  /// Greenlets that end after so many seconds each, with that as their result.
  private func sleepers(_ seconds: [Int]) -> [Greenlet<Int>] {
    seconds.map { seconds in
      spawn {
        try sleep(for: .seconds(seconds))
        return seconds
      }
    }
  }

  @Test func returnsAllInTheOrderOfTheirEnds() async throws {
    try await runGreenInVirtualTime { clock in
      let ended = try joinAll(sleepers([3, 1, 4, 2]))
      #expect(ended.map(\.value) == [1, 2, 3, 4])
      #expect(clock.elapsed == .seconds(4))
    }
  }

  @Test func returnsWhenTimeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let all = sleepers([3, 1, 40, 2])
      let ended = try joinAll(all, timeout: .seconds(10))
      #expect(ended.map(\.value) == [1, 2, 3])
      #expect(clock.elapsed == .seconds(10), "one deadline for all")
      #expect(!all[2].isReady)
      try #expect(joinAll(all, timeout: .zero).count == 3)
      #expect(clock.elapsed == .seconds(10))
    }
  }

  @Test func returnsWhenSoManyHaveEnded() async throws {
    try await runGreenInVirtualTime { clock in
      let all = sleepers([3, 1, 4, 2])
      try #expect(joinAll(all, count: 2).map(\.value) == [1, 2])
      #expect(clock.elapsed == .seconds(2))
      try #expect(joinAll(all, count: 0).count <= 2)
      #expect(clock.elapsed == .seconds(2))
      try #expect(joinAll(all, count: 100).count == 4, "more than there are")
      #expect(clock.elapsed == .seconds(4))
    }
  }

  @Test func doesNotRaiseErrorsUnlessAsked() async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { _, _ in }
      let all = [spawn { throw OneError() }, spawn {}]
      try #expect(joinAll(all).count == 2)
    }
  }

  @Test func raisesTheFirstErrorInTime() async throws {
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { _, _ in }
      let all: [AnyGreenlet] = [
        spawn {
          try sleep(for: .seconds(2))
          throw OneError(number: 2)
        },
        spawn {
          try sleep(for: .seconds(1))
          throw OneError(number: 1)
        },
        spawn { try sleep(for: .milliseconds(500)) },
      ]
      #expect(throws: OneError(number: 1)) { try joinAll(all, raisingErrors: true) }
      #expect(clock.elapsed == .seconds(1))
      #expect(!all[0].isReady, "the others go on")
      try joinAll(all)
    }
  }

  @Test func raisesTheErrorOfOneThatHasEndedAlready() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let failed = spawn { throw OneError() }
      try failed.join()
      let waiting = spawn { try sleep(for: .seconds(60)) }
      #expect(throws: OneError.self) { try joinAll([waiting, failed], raisingErrors: true) }
      try waiting.kill()
    }
  }

  @Test func doesNotRaiseAKill() async throws {
    try await runGreen {
      let all = (0..<2).map { _ in spawn { try sleep(for: .seconds(60)) } }
      try Greenlet.yield()
      for one in all { try one.kill(waiting: false) }
      try #expect(joinAll(all, raisingErrors: true).count == 2)
    }
  }

  @Test func acceptsNone() async throws {
    try await runGreen {
      try #expect(joinAll([Greenlet<Int>]()).isEmpty)
      try #expect(joinAll([Greenlet<Int>](), timeout: .seconds(60), count: 3).isEmpty)
    }
  }

  @Test func keepsNoLinksWhenItGivesUp() async throws {
    try await runGreenInVirtualTime { _ in
      weak var held: AnyGreenlet?
      let event = Event()
      do {
        let other = spawn { try event.wait() }
        let quick = spawn {}
        held = quick
        try joinAll([other, quick] as [AnyGreenlet], count: 1)
        let waiter = spawn { try joinAll([other, quick] as [AnyGreenlet]) }
        try Greenlet.yield()
        try waiter.kill()
      }
      try Greenlet.yield()
      #expect(held == nil, "nothing but the links could hold it")
      event.set()
    }
  }

  @Test func manyAtOnce() async throws {
    try await runGreen {
      let all = (0..<10_000).map { number in
        spawn {
          try Greenlet.yield()
          return number
        }
      }
      try #expect(joinAll(all).map(\.value) == (0..<10_000).map { $0 })
    }
  }
}
