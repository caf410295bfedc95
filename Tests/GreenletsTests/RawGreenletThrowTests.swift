// Evergreen: tests of throwing into raw greenlets
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(1))) struct RawGreenletThrowTests {
  @Test func theErrorIsThrownAtTheSwitch() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        do {
          try main.switch("ready")
        } catch let error as OneError {
          return try main.switch("caught \(error.text)")
        }
        return "not thrown"
      }
      try #expect(child.switch() as? String == "ready")
      try #expect(child.throw(OneError(text: "x")) as? String == "caught x")
      #expect(child.isActive)
      try #expect(child.switch("last") as? String == "last")
    }
  }

  @Test func anUncaughtErrorComesBackAsTheSameObject() async throws {
    final class Identity: Error {}
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in try main.switch() }
      try child.switch()
      let error = Identity()
      do {
        try child.throw(error)
        Issue.record("did not throw")
      } catch {
        #expect(error as? Identity === error as? Identity)
      }
      #expect(child.isDead)
    }
  }

  @Test func theDefaultEndsItAndIsReturned() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let log = Log()
      let child = RawGreenlet { _ in
        defer { log("deferred") }
        try main.switch("ok")
        log("went on")
        return "fail"
      }
      try #expect(child.switch() as? String == "ok")
      try #expect(child.throw() is GreenletExit)
      #expect(child.isDead)
      #expect(log.lines == ["deferred"])
      try #expect(child.throw() is GreenletExit)
      #expect(log.lines == ["deferred"])
    }
  }

  @Test func anUnstartedOneDiesWithoutRunning() async throws {
    try await runGreen {
      let log = Log()
      let child = RawGreenlet { _ in
        log("ran")
        return nil
      }
      #expect(throws: OneError("early")) { try child.throw(OneError(text: "early")) }
      #expect(child.isDead)
      let other = RawGreenlet { _ in
        log("ran")
        return nil
      }
      try #expect(other.throw() is GreenletExit)
      #expect(other.isDead)
      #expect(log.lines == [])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func aDeadOnePassesTheErrorOnButSwallowsTheExit() async throws {
    try await runGreen {
      let dead = RawGreenlet { _ in nil }
      try dead.switch()
      try #expect(dead.throw() is GreenletExit)
      #expect(throws: OneError("late")) { try dead.throw(OneError(text: "late")) }
    }
  }

  @Test func itGoesToTheOriginalParentUnstarted() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let first = RawGreenlet { _ in try main.switch("first") }
      let second = RawGreenlet(parent: first) { _ in try main.switch("second") }
      #expect(throws: OneError("x")) { try second.throw(OneError(text: "x")) }
      #expect(second.isDead && first.isDead)
    }
  }

  private func pair() -> (first: RawGreenlet, second: RawGreenlet) {
    let main = RawGreenlet.current
    let first = RawGreenlet { _ in
      do {
        try main.switch("first ready to catch")
      } catch is OneError {
        return "caught"
      }
      return "normal exit"
    }
    return (first, RawGreenlet(parent: first) { _ in try main.switch("from second") })
  }

  @Test func itGoesToTheOriginalParentThatIsReady() async throws {
    try await runGreen {
      let (first, second) = pair()
      try #expect(first.switch() as? String == "first ready to catch")
      try #expect(second.throw(OneError()) as? String == "caught")
      #expect(second.isDead && first.isDead)
    }
  }

  @Test func itGoesToTheOriginalParentWhenBothAreStarted() async throws {
    try await runGreen {
      let (first, second) = pair()
      try #expect(first.switch() as? String == "first ready to catch")
      try #expect(second.switch() as? String == "from second")
      try #expect(second.throw(OneError()) as? String == "caught")
      #expect(second.isDead && first.isDead)
    }
  }

  @Test func theExitOfAStartedOneIsAValueForItsParent() async throws {
    try await runGreen {
      let (first, second) = pair()
      try first.switch()
      try second.switch()
      try #expect(second.throw() as? String == "normal exit")
      #expect(second.isDead && first.isDead)
    }
  }

  @Test func anErrorOfAGreenletOfAHubsGreenletGoesToThatOne() async throws {
    try await runGreen {
      let log = Log()
      let made = Box<RawGreenlet?>(nil)
      let gate = Gate()
      let maker = spawn {
        let me = RawGreenlet.current
        made.value = RawGreenlet { _ in
          try me.switch()
          throw OneError(text: "for the maker")
        }
        try made.value!.switch()
        do { try made.value!.switch() } catch { log("maker caught \((error as! OneError).text)") }
        try gate.wait()
        return RawGreenlet.current === me
      }
      try idle()
      #expect(log.lines == ["maker caught for the maker"])
      gate.open()
      try #expect(maker.get())
    }
  }

  /// Its parent waits in the hub and cannot be given the value by hand.
  @Test func whoSwitchedLastStandsInForAParentThatWaitsInTheHub() async throws {
    try await runGreen {
      let made = Box<RawGreenlet?>(nil)
      let failing = Box<RawGreenlet?>(nil)
      let gate = Gate()
      let maker = spawn {
        made.value = RawGreenlet { _ in "value" }
        failing.value = RawGreenlet { _ in throw OneError(text: "error") }
        try gate.wait()
      }
      try idle()
      try #expect(made.value!.switch() as? String == "value")
      #expect(throws: OneError("error")) { try failing.value!.switch() }
      gate.open()
      try #expect(maker.join())
      #expect(maker.isSuccessful)
    }
  }
}
