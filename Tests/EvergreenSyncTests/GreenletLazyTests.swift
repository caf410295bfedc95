// Evergreen: tests of values that are made when first needed.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

private struct Refused: Error {}

@Suite(.timeLimit(.minutes(5))) struct GreenletLazyTests {
  @Test func isMadeOnceWhileTheOthersWait() async throws {
    try await forSeeds(30) { _ in
      var made = 0
      let lazy = GreenletLazy<Int> {
        made += 1
        try sleep(for: .seconds(2))
        return 7
      }
      #expect(lazy.value == nil)
      let askers = (0..<5).map { _ in spawn { try lazy.get() } }
      for asker in askers { try #expect(asker.get() == 7) }
      try #expect(lazy.get() == 7 && lazy.value == 7 && made == 1)
    }
  }

  @Test func isNotMadeUnlessItIsNeeded() async throws {
    try await runGreen {
      let lazy = GreenletLazy<Int> {
        Issue.record("made")
        return 1
      }
      try Greenlet.yield()
      #expect(lazy.value == nil)
    }
  }

  @Test func whoFailsIsToldAndTheNextOneTriesAgain() async throws {
    try await runGreen {
      var attempts = 0
      let lazy = GreenletLazy<Int> {
        attempts += 1
        try Greenlet.yield()
        if attempts < 3 { throw Refused() }
        return attempts
      }
      let askers = (0..<5).map { _ in spawn { try lazy.get() } }
      try joinAll(askers)
      #expect(askers.filter { $0.error is Refused }.count == 2)
      #expect(askers.compactMap(\.value) == [3, 3, 3])
    }
  }

  @Test func whoIsKilledWhileMakingItLeavesItToTheNext() async throws {
    try await runGreenInVirtualTime { _ in
      var attempts = 0
      let lazy = GreenletLazy<Int> {
        attempts += 1
        try sleep(for: .seconds(60))
        return attempts
      }
      let victim = spawn { try lazy.get() }
      let next = spawn { try lazy.get() }
      try waitUntilBlocked()
      try victim.kill()
      try #expect(next.get() == 2)
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try GreenletLazy { try sleep(for: .seconds(60)) }.get() }
      }
    }
  }

  @Test func whatItWasMadeFromIsLetGo() async throws {
    try await runGreen {
      final class Source {}
      weak var source: Source?
      let lazy: GreenletLazy<Int>
      do {
        let strong = Source()
        source = strong
        lazy = GreenletLazy { withExtendedLifetime(strong) { 5 } }
      }
      #expect(source != nil)
      try #expect(lazy.get() == 5)
      #expect(source == nil)
    }
  }

  @Test func aValueThatNeedsItselfIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        final class Holder { var lazy: GreenletLazy<Int>? }
        let holder = Holder()
        holder.lazy = GreenletLazy { try holder.lazy!.get() }
        _ = try holder.lazy!.get()
      }
    }
    expectSentence("asks for it itself", in: result)
  }
}

@Suite(.timeLimit(.minutes(5))) struct OnceTests {
  @Test func runsOnceWhileTheOthersWait() async throws {
    try await runGreen {
      var runs = 0
      let once = Once {
        try Greenlet.yield()
        runs += 1
      }
      #expect(!once.hasRun)
      let askers = (0..<5).map { _ in
        spawn {
          try once.run()
          #expect(runs == 1 && once.hasRun)
        }
      }
      try joinAll(askers, raisingErrors: true)
      try once.run()
      #expect(runs == 1)
    }
  }

  @Test func runsAgainIfItHasFailed() async throws {
    try await runGreen {
      var runs = 0
      let once = Once {
        runs += 1
        if runs == 1 { throw Refused() }
      }
      #expect(throws: Refused.self) { try once.run() }
      #expect(!once.hasRun)
      try once.run()
      #expect(once.hasRun && runs == 2)
    }
  }
}
