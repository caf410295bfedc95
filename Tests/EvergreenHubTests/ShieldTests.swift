// Evergreen: tests of blocks that are not interrupted.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct ShieldTests {
  struct Failure: Error {}

  @Test func aKillWaitsForTheEndOfTheBlock() async throws {
    try await runGreenInVirtualTime { clock in
      var steps: [String] = []
      let greenlet = spawn {
        try shielded {
          try sleep(for: .seconds(10))
          steps.append("cleaned")
        }
        steps.append("no switch point yet")
        try sleep(for: .seconds(10))
        steps.append("must not run")
      }
      try idle()
      try greenlet.kill()
      #expect(steps == ["cleaned", "no switch point yet"])
      #expect(clock.elapsed == .seconds(10))
      #expect(greenlet.error is GreenletExit)
    }
  }

  @Test func withoutTheBlockTheKillComesAtOnce() async throws {
    try await runGreenInVirtualTime { clock in
      let greenlet = spawn {
        try shielded { try sleep(for: .seconds(1)) }
        try sleep(for: .seconds(10))
      }
      try sleep(for: .seconds(2))
      try greenlet.kill()
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func whatWasDueBeforeIsHeldBackToo() async throws {
    try await runGreenInVirtualTime { clock in
      var isCleaned = false
      let greenlet = spawn {
        try Greenlet.current.kill(Failure(), waiting: false)
        try shielded { try sleep(for: .seconds(1)) }
        isCleaned = true
        do { try Greenlet.yield() } catch is Failure { return "killed" }
        return "not killed"
      }
      try #expect(greenlet.get() == "killed")
      #expect(isCleaned && clock.elapsed == .seconds(1))
    }
  }

  @Test func anOuterTimeoutWaitsAndAnInnerOneWorks() async throws {
    try await runGreenInVirtualTime { clock in
      var isInnerThrown = false
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) {
          try shielded {
            do {
              try withTimeout(.seconds(5)) { try sleep(for: .seconds(60)) }
            } catch let timeout as Timeout {
              isInnerThrown = timeout.duration == .seconds(5)
            }
            try sleep(for: .seconds(5))
          }
          #expect(clock.elapsed == .seconds(10))
          try sleep(for: .seconds(60))
        }
      }
      #expect(isInnerThrown && clock.elapsed == .seconds(10))
    }
  }

  @Test func aTimeoutWhoseBlockEndsUnderNoSwitchPointIsTakenBack() async throws {
    try await runGreenInVirtualTime { _ in
      let answer = try withTimeout(.seconds(1)) {
        try shielded { try sleep(for: .seconds(5)) }
        return 7
      }
      #expect(answer == 7)
      try Greenlet.yield()
      try sleep(for: .seconds(5))
    }
  }

  @Test func aTimeoutByHandKeepsItsSide() async throws {
    try await runGreenInVirtualTime { clock in
      let outer = Timeout.start(after: .seconds(1), throwing: Failure())
      defer { outer.cancel() }
      try shielded {
        let inner = Timeout.start(after: .seconds(2))
        defer { inner.cancel() }
        do {
          try sleep(for: .seconds(60))
          Issue.record("the inner timeout must end this")
        } catch let timeout as Timeout {
          #expect(timeout === inner)
        }
      }
      #expect(clock.elapsed == .seconds(2))
      #expect(throws: Failure.self) { try Greenlet.yield() }
    }
  }

  @Test func blocksAreNested() async throws {
    try await runGreenInVirtualTime { clock in
      var steps: [String] = []
      let greenlet = spawn {
        defer { steps.append("end") }
        try withTimeout(.seconds(100)) {
          try shielded {
            try withTimeout(.seconds(2)) {
              try shielded { try sleep(for: .seconds(4)) }
              steps.append("inner block")
              do { try Greenlet.yield() } catch let timeout as Timeout {
                #expect(timeout.duration == .seconds(2))
                steps.append("its timeout")
              }
            }
            try sleep(for: .seconds(4))
            steps.append("outer block")
          }
          try Greenlet.yield()
          steps.append("must not run")
        }
      }
      try sleep(for: .seconds(1))
      try greenlet.kill()
      #expect(steps == ["inner block", "its timeout", "outer block", "end"])
      #expect(clock.elapsed == .seconds(8))
    }
  }

  @Test func theErrorOfTheBlockIsItsOwn() async throws {
    try await runGreen {
      #expect(throws: Failure.self) { try shielded { throw Failure() } }
      #expect(shielded { 5 } == 5)
      try Greenlet.yield()
    }
  }

  @Test func oneKillIsThrownOnce() async throws {
    try await runGreen {
      var kills = 0
      let greenlet = spawn {
        shielded {
          for _ in 0..<3 { do { try Greenlet.yield() } catch { kills += 100 } }
        }
        for _ in 0..<3 { do { try Greenlet.yield() } catch { kills += 1 } }
      }
      try Greenlet.yield()
      try greenlet.kill(waiting: false)
      try greenlet.kill(waiting: false)
      try greenlet.join()
      #expect(kills == 1)
    }
  }

  @Test func aStandstillIsThrownThroughIt() async throws {
    try await runGreen { () throws -> Void in
      #expect(throws: LoopExit.self) { try shielded { try Event().wait() } }
    }
  }

  @Test func theHubsEndLetsItFinish() async throws {
    final class Steps: @unchecked Sendable { var all: [String] = [] }
    let steps = Steps()
    try await runGreenInVirtualTime { _ in
      spawn {
        defer { steps.all.append("end") }
        try shielded {
          try sleep(for: .milliseconds(500))
          steps.all.append("cleaned")
        }
        try sleep(for: .seconds(60))
        steps.all.append("must not run")
      }
      try Greenlet.yield()
    }
    #expect(steps.all == ["cleaned", "end"])
  }

  @Test func theHubsEndDoesNotWaitForEver() async throws {
    final class Steps: @unchecked Sendable { var all: [String] = [] }
    let steps = Steps()
    try await runGreenInVirtualTime { _ in
      spawn {
        try shielded {
          do { try sleep(for: .seconds(60)) } catch {
            steps.all.append("thrown through")
            throw error
          }
        }
      }
      spawn {
        try shielded {
          defer { steps.all.append("no event") }; try Event().wait()
        }
      }
      try Greenlet.yield()
    }
    #expect(steps.all.sorted() == ["no event", "thrown through"])
  }

  @Test func aGeneratorIsShieldedWithItsGreenlet() async throws {
    try await runGreenInVirtualTime { clock in
      let greenlet = spawn {
        let numbers = Generator<Int> { yield in
          try withTimeout(.seconds(60)) { try sleep(for: .seconds(2)) }
          try yield(1)
        }
        let all = shielded { Array(numbers) }
        #expect(all == [1])
        try Greenlet.yield()
      }
      try sleep(for: .seconds(1))
      try greenlet.kill()
      #expect(clock.elapsed == .seconds(2))
      #expect(greenlet.error is GreenletExit)
    }
  }
}
