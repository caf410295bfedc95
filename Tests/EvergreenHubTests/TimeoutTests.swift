// Evergreen: tests of timeouts
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Timeout", .timeLimit(.minutes(1)))
struct TimeoutTests {
  // MARK: withTimeout

  @Test func endsWhatTakesTooLong() async throws {
    try await runGreenInVirtualTime { clock in
      let error = thrown { try withTimeout(.seconds(2)) { try sleep(for: .seconds(10)) } }
      #expect((error as? Timeout)?.duration == .seconds(2))
      #expect(clock.elapsed == .seconds(2))
      try sleep(for: .seconds(100))
    }
  }

  @Test func leavesAloneWhatIsQuickEnough() async throws {
    try await runGreenInVirtualTime { clock in
      let result = try withTimeout(.seconds(2)) {
        try sleep(for: .seconds(1))
        return "in time"
      }
      #expect(result == "in time")
      try sleep(for: .seconds(100))
      #expect(clock.elapsed == .seconds(101))
    }
  }

  @Test func coversTheWholeBodyHoweverManyWaitsItMakes() async throws {
    try await runGreenInVirtualTime { clock in
      let rounds = Box(0)
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(10)) {
          while true {
            try sleep(for: .seconds(3))
            rounds.value += 1
          }
        }
      }
      #expect(rounds.value == 3)
      #expect(clock.elapsed == .seconds(10))
    }
  }

  @Test func throwsAnErrorOfOnesOwn() async throws {
    try await runGreenInVirtualTime { clock in
      #expect(throws: OneError(number: 4)) {
        try withTimeout(.seconds(1), throwing: OneError(number: 4)) { try sleep(for: .seconds(9)) }
      }
      #expect(clock.elapsed == .seconds(1))
    }
  }

  @Test func insideTheBodyItIsTheTimeoutItself() async throws {
    try await runGreenInVirtualTime { _ in
      let seen = Box<(any Error)?>(nil)
      #expect(throws: OneError.self) {
        try withTimeout(.seconds(1), throwing: OneError()) {
          do { try sleep(for: .seconds(9)) } catch {
            seen.value = error
            throw error
          }
        }
      }
      #expect(seen.value is Timeout)
    }
  }

  @Test func returnsADefault() async throws {
    try await runGreenInVirtualTime { clock in
      let late = try withTimeout(.seconds(1), default: "late") {
        try sleep(for: .seconds(9))
        return "in time"
      }
      #expect(late == "late")
      #expect(clock.elapsed == .seconds(1))
      let quick = try withTimeout(.seconds(1), default: "late") { "in time" }
      #expect(quick == "in time")
      try withTimeout(.seconds(1), default: ()) { try sleep(for: .seconds(9)) }
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func evaluatesTheDefaultOnlyWhenItIsNeeded() async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      func fallback() throws -> Int {
        log.add("evaluated")
        throw OneError()
      }
      try #expect(withTimeout(.seconds(1), default: fallback()) { 1 } == 1)
      #expect(log.entries.isEmpty)
      #expect(throws: OneError.self) {
        try withTimeout(.seconds(1), default: fallback()) {
          try sleep(for: .seconds(9))
          return 1
        }
      }
      #expect(log.entries == ["evaluated"])
    }
  }

  @Test func nilSetsNoLimit() async throws {
    try await runGreenInVirtualTime { clock in
      try withTimeout(nil) { try sleep(for: .seconds(1_000_000)) }
      try withTimeout(nil, default: ()) { try sleep(for: .seconds(1_000_000)) }
      #expect(clock.elapsed == .seconds(2_000_000))
    }
  }

  @Test(arguments: [Duration.zero, .seconds(-3)])
  func noTimeFiresAtTheFirstWaitOnly(_ duration: Duration) async throws {
    try await runGreenInVirtualTime { clock in
      try #expect(withTimeout(duration) { 5 } == 5)
      #expect(throws: Timeout.self) {
        try withTimeout(duration) { try sleep(for: .seconds(9)) }
      }
      try #expect(
        withTimeout(duration, default: 7) {
          try sleep(for: .seconds(9)); return 8
        } == 7)
      #expect(clock.elapsed == .zero)
      try sleep(for: .seconds(1))
    }
  }

  @Test func passesOnTheBodysError() async throws {
    try await runGreenInVirtualTime { clock in
      #expect(throws: OneError(number: 1)) {
        try withTimeout(.seconds(1)) { throw OneError(number: 1) }
      }
      #expect(throws: OneError(number: 2)) {
        try withTimeout(.seconds(1), throwing: OneError(number: 99)) { throw OneError(number: 2) }
      }
      #expect(throws: OneError(number: 3)) {
        try withTimeout(.seconds(1), default: ()) { throw OneError(number: 3) }
      }
      #expect(throws: OneError(number: 4)) {
        try withTimeout(.seconds(1)) {
          do { try sleep(for: .seconds(9)) } catch { throw OneError(number: 4) }
        }
      }
      try sleep(for: .seconds(10))
      #expect(clock.elapsed == .seconds(11))
    }
  }

  @Test func isNotThrownTwiceWhenTheBodySwallowsIt() async throws {
    try await runGreenInVirtualTime { clock in
      let result = try withTimeout(.seconds(1)) {
        do { try sleep(for: .seconds(9)) } catch is Timeout {}
        try sleep(for: .seconds(5))
        return "went on"
      }
      #expect(result == "went on")
      #expect(clock.elapsed == .seconds(6))
    }
  }

  @Test func doesNotInterruptACalculation() async throws {
    try await runGreenInVirtualTime { clock in
      let result = try withTimeout(.seconds(1)) {
        clock.advance(by: .seconds(5))
        return "calculated"
      }
      #expect(result == "calculated")
      try sleep(for: .seconds(1))
    }
  }

  @Test func firedButNotThrownIsTakenBackAtTheEndOfTheBlock() async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      spawn {
        try sleep(for: .seconds(5))
        event.set()
      }
      try Greenlet.yield()  // so that its timer comes first
      try #expect(withTimeout(.seconds(5)) { try event.wait() })
      #expect(clock.elapsed == .seconds(5))
      try sleep(for: .seconds(1))
      try Greenlet.yield()
      #expect(clock.elapsed == .seconds(6))
    }
  }

  @Test func firedButNotThrownIsTakenBackWhenTheBodyThrows() async throws {
    try await runGreenInVirtualTime { _ in
      let event = Event()
      spawn {
        try sleep(for: .seconds(5))
        event.set()
      }
      try Greenlet.yield()
      #expect(throws: OneError.self) {
        try withTimeout(.seconds(5)) {
          try event.wait()
          throw OneError()
        }
      }
      try sleep(for: .seconds(1))
    }
  }

  @Test func aReadyResultBeatsTheClock() async throws {
    try await runGreenInVirtualTime { clock in
      let worker = spawn {
        try sleep(for: .seconds(5))
        return "won"
      }
      try Greenlet.yield()
      try #expect(withTimeout(.seconds(5), default: "lost") { try worker.get() } == "won")
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func whatWasWonIsKeptButTheNextWaitFails() async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let event = Event()
      spawn {
        try sleep(for: .seconds(5))
        event.set()
      }
      try Greenlet.yield()
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(5)) {
          try event.wait()
          log.add("won")
          try sleep(for: .seconds(1))
          log.add("never")
        }
      }
      #expect(log.entries == ["won"])
    }
  }

  // MARK: Nested

  @Test func theInnerOneComesFirst() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      try withTimeout(.seconds(10)) {
        do {
          try withTimeout(.seconds(1)) { try sleep(for: .seconds(60)) }
        } catch let timeout as Timeout {
          #expect(timeout.duration == .seconds(1))
          log.add("inner")
        }
        try sleep(for: .seconds(1))
        log.add("outer goes on")
      }
      #expect(log.entries == ["inner", "outer goes on"])
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func theOuterOnePassesThroughTheInner() async throws {
    try await runGreenInVirtualTime { clock in
      let result = try withTimeout(.seconds(1), default: "outer") {
        let inner = try withTimeout(.seconds(10), default: "inner") {
          try sleep(for: .seconds(60))
          return "none"
        }
        return inner
      }
      #expect(result == "outer")
      #expect(clock.elapsed == .seconds(1))
      let error = thrown {
        try withTimeout(.seconds(1)) {
          try withTimeout(.seconds(10), throwing: OneError()) { try sleep(for: .seconds(60)) }
        }
      }
      #expect((error as? Timeout)?.duration == .seconds(1))
      try sleep(for: .seconds(100))
    }
  }

  @Test func equalOnesKeepTheirIdentity() async throws {
    try await runGreenInVirtualTime { clock in
      let result = try withTimeout(.seconds(5), default: "outer") {
        try withTimeout(.seconds(5), default: "inner") {
          try sleep(for: .seconds(60))
          return "none"
        }
      }
      #expect(result == "outer", "it was started first")
      #expect(clock.elapsed == .seconds(5))
      try sleep(for: .seconds(100))
    }
  }

  @Test func bothFireWhileTheBodyComputes() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(2)) {
          do {
            try withTimeout(.seconds(1)) {
              clock.advance(by: .seconds(10))
              try sleep(for: .seconds(60))
            }
          } catch let timeout as Timeout {
            log.add("\(timeout.duration!)")
          }
          try sleep(for: .seconds(60))
        }
      }
      #expect(log.entries == ["\(Duration.seconds(1))"])
      try sleep(for: .seconds(100))
    }
  }

  @Test func eachGreenletHasItsOwn() async throws {
    try await runGreenInVirtualTime { clock in
      let all = (1...10).map { seconds in
        spawn {
          try withTimeout(.seconds(seconds), default: clock.elapsed) {
            try sleep(for: .seconds(60))
            return .zero
          }
        }
      }
      try #expect(joinAll(all).map(\.value) == (1...10).map { .seconds($0) })
    }
  }

  @Test func aKillInTheBodyIsNoTimeout() async throws {
    try await runGreenInVirtualTime { clock in
      let victim = spawn {
        try withTimeout(.seconds(5), default: ()) { try sleep(for: .seconds(60)) }
      }
      try Greenlet.yield()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      try #expect(Hub.current.join())
      #expect(clock.elapsed == .zero, "its timer is gone")
    }
  }

  // MARK: start and cancel

  @Test func startedOneIsThrownAtASwitchPoint() async throws {
    try await runGreenInVirtualTime { clock in
      let timeout = Timeout.start(after: .seconds(3))
      #expect(timeout.isPending)
      #expect(timeout.duration == .seconds(3))
      let error = thrown { try sleep(for: .seconds(60)) }
      #expect(error as? Timeout === timeout)
      #expect(!timeout.isPending)
      #expect(clock.elapsed == .seconds(3))
      try sleep(for: .seconds(60))
      timeout.cancel()
    }
  }

  @Test func startedOneThrowsAnErrorOfOnesOwn() async throws {
    try await runGreenInVirtualTime { _ in
      let timeout = Timeout.start(after: .seconds(3), throwing: OneError(number: 8))
      #expect(throws: OneError(number: 8)) { try sleep(for: .seconds(60)) }
      #expect(!timeout.isPending)
    }
  }

  @Test func cancelledOneIsNotThrown() async throws {
    try await runGreenInVirtualTime { clock in
      let timeout = Timeout.start(after: .seconds(3))
      try sleep(for: .seconds(1))
      timeout.cancel()
      #expect(!timeout.isPending)
      timeout.cancel()
      try sleep(for: .seconds(60))
      #expect(clock.elapsed == .seconds(61))
    }
  }

  @Test func nilNeverFires() async throws {
    try await runGreenInVirtualTime { _ in
      let timeout = Timeout.start(after: nil)
      #expect(!timeout.isPending)
      #expect(timeout.duration == nil)
      try sleep(for: .seconds(1_000_000))
      timeout.cancel()
    }
  }

  @Test(arguments: [Duration.zero, .seconds(-1)])
  func noTimeFiresAsSoonAsTheLoopRuns(_ duration: Duration) async throws {
    try await runGreenInVirtualTime { clock in
      let timeout = Timeout.start(after: duration)
      let error = thrown { try sleep(for: .seconds(1)) }
      #expect(error as? Timeout === timeout)
      #expect(clock.elapsed == .zero)
    }
  }

  @Test(arguments: [nil, OneError()])
  func cancelTakesBackOneThatHasFiredButWasNotThrown(_ error: OneError?) async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      spawn {
        try sleep(for: .seconds(5))
        event.set()
      }
      try Greenlet.yield()
      let timeout = Timeout.start(after: .seconds(5), throwing: error)
      try event.wait()
      #expect(!timeout.isPending, "it has fired")
      timeout.cancel()
      try sleep(for: .seconds(1))
      #expect(clock.elapsed == .seconds(6))
    }
  }

  /// Waits of each kind go on when a timeout that has woken them is taken back before they run.
  @Test(arguments: [nil, Duration.seconds(10)])
  func oneThatIsTakenBackEndsNoWait(_ limit: Duration?) async throws {
    try await runGreenInVirtualTime { clock in
      let timeouts = Box<[Timeout]>([])
      let event = Event()
      let semaphore = Semaphore(value: 0)
      let log = Log()
      // Its timer is the first of those that fire at once, so it runs before whom they wake.
      spawn {
        try sleep(for: .seconds(3))
        for timeout in timeouts.value {
          #expect(!timeout.isPending)
          timeout.cancel()
        }
        try sleep(for: .seconds(2))
        event.set()
        semaphore.release()
      }
      let target = spawn { try sleep(for: .seconds(5)) }
      let waits: [(String, () throws -> Void)] = [
        ("sleep", { try sleep(for: .seconds(5)) }),
        ("event", { try #expect(event.wait(timeout: limit)) }),
        ("permit", { try #expect(semaphore.acquire(timeout: limit)) }),
        ("join", { try #expect(target.join(timeout: limit)) }),
        ("joinAll", { try #expect(joinAll([target], timeout: limit).count == 1) }),
      ]
      let waiters = waits.map { name, wait in
        spawn {
          timeouts.value.append(Timeout.start(after: .seconds(3)))
          try wait()
          #expect(clock.elapsed == .seconds(5), "\(name)")
          log.add(name)
        }
      }
      try joinAll(waiters, raisingErrors: true)
      #expect(log.entries.sorted() == waits.map(\.0).sorted())
      #expect(clock.elapsed == .seconds(5))
      #expect(!semaphore.tryAcquire())
    }
  }

  /// Before the deadline of the wait, and at it.
  @Test(arguments: [Duration.seconds(7), .seconds(3)])
  func oneThatIsTakenBackDoesNotMoveTheDeadline(_ deadline: Duration) async throws {
    try await runGreenInVirtualTime { clock in
      let timeout = Box<Timeout?>(nil)
      spawn {
        try sleep(for: .seconds(3))
        timeout.value!.cancel()
      }
      try Greenlet.yield()
      timeout.value = Timeout.start(after: .seconds(3))
      try #expect(!Event().wait(timeout: deadline))
      #expect(clock.elapsed == deadline)
    }
  }

  @Test func oneThatNeverComesIsNone() async throws {
    try await runGreenInVirtualTime { clock in
      let timeout = Timeout.start(after: .seconds(Int64.max))
      #expect(!timeout.isPending)
      try withTimeout(.seconds(Int64.max)) { try sleep(for: .seconds(1)) }
      let late = spawn(after: .seconds(Int64.max)) {}
      try #expect(Hub.current.join())
      #expect(clock.elapsed == .seconds(1))
      try late.kill()
      timeout.cancel()
      clock.advance(by: .seconds(Int64.max))
      #expect(clock.elapsed > .seconds(Int32.max))
    }
  }

  @Test func runsThoughNobodyHoldsIt() async throws {
    try await runGreenInVirtualTime { clock in
      _ = Timeout.start(after: .seconds(3))
      #expect(throws: Timeout.self) { try sleep(for: .seconds(60)) }
      #expect(clock.elapsed == .seconds(3))
    }
  }

  @Test func isFreedOnceItIsOver() async throws {
    try await runGreenInVirtualTime { _ in
      weak var cancelled: Timeout?
      weak var fired: Timeout?
      do {
        let one = Timeout.start(after: .seconds(1))
        cancelled = one
        one.cancel()
        fired = Timeout.start(after: .seconds(1))
        #expect(fired?.isPending == true)
        #expect(throws: Timeout.self) { try sleep(for: .seconds(60)) }
      }
      #expect(cancelled == nil)
      #expect(fired == nil)
    }
  }

  @Test func isFreedWithTheGreenletThatItEnded() async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { _, _ in }
      weak var timeout: Timeout?
      weak var greenlet: AnyGreenlet?
      do {
        let sleeper = spawn {
          timeout = Timeout.start(after: .seconds(1))
          try sleep(for: .seconds(60))
        }
        greenlet = sleeper
        try sleeper.join()
        #expect(sleeper.error as? Timeout === timeout)
        let keeper = spawn { Timeout.start(after: .seconds(1)) }
        try keeper.join()
      }
      try sleep(for: .seconds(10))
      #expect(timeout == nil)
      #expect(greenlet == nil)
    }
  }

  @Test func reachesOnlyTheGreenletThatStartedIt() async throws {
    try await runGreenInVirtualTime { _ in
      let starter = spawn {
        let timeout = Timeout.start(after: .seconds(1))
        defer { timeout.cancel() }
        try sleep(for: .seconds(60))
      }
      let other = spawn { try sleep(for: .seconds(60)) }
      Hub.current.onError = { _, _ in }
      try joinAll([starter, other])
      #expect(starter.error is Timeout)
      #expect(other.error == nil)
    }
  }

  @Test func ofAGreenletThatHasEndedDoesNothing() async throws {
    try await runGreenInVirtualTime { _ in
      let starter = spawn { Timeout.start(after: .seconds(1)) }
      let timeout = try starter.get()
      try sleep(for: .seconds(5))
      #expect(!timeout.isPending)
      timeout.cancel()
    }
  }

  @Test func saysHowLongItWas() async throws {
    try await runGreenInVirtualTime { _ in
      let error = thrown { try withTimeout(.milliseconds(1500)) { try sleep(for: .seconds(9)) } }
      #expect("\(error!)" == "timed out after \(Duration.milliseconds(1500))")
    }
  }

  // MARK: The real clock

  @Test func isNeverEarlyAndNotVeryLate() async throws {
    try await runGreen {
      let begin = ContinuousClock.now
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(20)) { try sleep(for: .seconds(60)) }
      }
      let passed = begin.duration(to: .now)
      #expect(passed >= .milliseconds(20))
      #expect(passed < .seconds(20))
    }
  }
}
