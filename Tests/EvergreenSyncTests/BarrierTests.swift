// Evergreen: tests of the place where greenlets wait for each other.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct BarrierTests {
  @Test func nobodyPassesBeforeAllHaveCome() async throws {
    try await forSeeds(50) { _ in
      let barrier = Barrier(parties: 5)
      var (before, after) = (0, 0)
      let parties = (0..<5).map { _ in
        spawn {
          for round in 1...4 {
            before += 1
            try barrier.wait()
            #expect(before >= 5 * round)
            after += 1
            try barrier.wait()
            #expect(after >= 5 * round)
          }
        }
      }
      try joinAll(parties, raisingErrors: true)
      #expect(barrier.count == 0 && !barrier.isBroken)
    }
  }

  @Test func eachIsToldHowManyWereMissing() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 4)
      #expect(barrier.parties == 4)
      let comers = (0..<4).map { _ in spawn { try barrier.wait() } }
      try #expect(comers.map { try $0.get() } == [3, 2, 1, 0])
      try #expect(Barrier(parties: 1).wait() == 0)
    }
  }

  @Test func whoComesTooEarlyForTheNextRoundWaits() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 2)
      let one = spawn { try barrier.wait() }
      try waitUntilBlocked()
      #expect(barrier.count == 1)
      try #expect(barrier.wait() == 0)
      let next = spawn { try barrier.wait() }
      try waitUntilBlocked()
      #expect(one.isReady && !next.isReady && barrier.count == 1)
      try barrier.wait()
      try #expect(next.get() == 1)
    }
  }

  @Test(arguments: WaitEnd.allCases)
  func breaksWhenOneGivesUp(_ end: WaitEnd) async throws {
    try await runGreenInVirtualTime { _ in
      let barrier = Barrier(parties: 3)
      let other = spawn { try barrier.wait() }
      let quitter = spawn {
        switch end {
        case .kill: try barrier.wait()
        case .timeout: try barrier.wait(timeout: .seconds(1))
        case .enclosingTimeout: try withTimeout(.seconds(1)) { try barrier.wait() }
        }
      }
      try waitUntilBlocked()
      #expect(barrier.count == 2)
      if end == .kill { try quitter.kill() }
      try joinAll([other, quitter])
      #expect(other.error is BrokenBarrier)
      #expect(end == .kill ? quitter.error is GreenletExit : quitter.error is Timeout)
      #expect(barrier.isBroken && barrier.count == 0)
      #expect(throws: BrokenBarrier.self) { try barrier.wait() }
      barrier.reset()
      #expect(!barrier.isBroken)
      let parties = (0..<3).map { _ in spawn { try barrier.wait() } }
      try joinAll(parties, raisingErrors: true)
    }
  }

  @Test func aRoundThatHasBeenPassedCannotBreak() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 2)
      let passer = spawn {
        let missing = try barrier.wait()
        try sleep(for: .seconds(60))
        return missing
      }
      try waitUntilBlocked()
      try barrier.wait()
      try passer.kill()  // it has passed, and is killed at its next switch point
      #expect(passer.error is GreenletExit && !barrier.isBroken)
    }
  }

  @Test func abortBreaksIt() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 3)
      let waiting = (0..<2).map { _ in spawn { try barrier.wait() } }
      try waitUntilBlocked()
      barrier.abort()
      try joinAll(waiting)
      #expect(waiting.allSatisfy { $0.error is BrokenBarrier } && barrier.isBroken)
      barrier.abort()
      #expect(throws: BrokenBarrier.self) { try barrier.wait() }
    }
  }

  @Test func resetSendsThoseWhoWaitAwayAndBeginsAnew() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 3)
      let waiting = (0..<2).map { _ in spawn { try barrier.wait() } }
      try waitUntilBlocked()
      barrier.reset()
      #expect(!barrier.isBroken && barrier.count == 0)
      let next = (0..<3).map { _ in spawn { try barrier.wait() } }
      try joinAll(waiting)
      #expect(waiting.allSatisfy { $0.error is BrokenBarrier })
      try joinAll(next, raisingErrors: true)
      barrier.reset()
      #expect(!barrier.isBroken)
    }
  }

  @Test func withoutPartiesThereIsNoBarrier() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild { _ = Barrier(parties: 0) }
    }
    expectSentence("a barrier cannot have 0 parties", in: result)
  }

  @Test func anotherThreadIsRefused() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let barrier = Barrier(parties: 2)
        try ThreadPool.run { _ = try barrier.wait() }
      }
    }
    expectSentence("belongs to the hub of another thread", in: result)
  }
}
