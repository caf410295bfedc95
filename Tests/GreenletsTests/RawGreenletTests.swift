// Evergreen: tests of raw greenlets: switches, ends, parents
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(1))) struct RawGreenletTests {
  // MARK: Switching

  @Test func valuesTravelBothWays() async throws {
    try await runGreen {
      final class Pair { var first: RawGreenlet?, second: RawGreenlet? }
      let log = Log()
      let pair = Pair()
      pair.first = RawGreenlet { greeting in
        let answer = try pair.second!.switch("\(greeting as! String) world")
        log("first got \(answer as! Int)")
        return "the end"
      }
      pair.second = RawGreenlet { text in
        log("second got \(text as! String)")
        return try pair.first!.switch(42)
      }
      let result = try pair.first!.switch("hello")
      #expect(log.lines == ["second got hello world", "first got 42"])
      #expect(result as? String == "the end")
      #expect(pair.first!.isDead)
      #expect(!pair.second!.isDead)
      pair.second = nil
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func eachSwitchReturnsWhatTheNextOnePasses() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let doubler = RawGreenlet { first in
        var value = first as! Int
        while value != 0 { value = try main.switch(value * 2) as! Int }
        return "done"
      }
      for n in 1...100 { try #expect(doubler.switch(n) as? Int == n * 2) }
      try #expect(doubler.switch(0) as? String == "done")
      #expect(doubler.isDead)
    }
  }

  @Test func nothingArrivesAsNil() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let log = Log()
      let child = RawGreenlet { first in
        log("\(first == nil)")
        log("\(try main.switch() == nil)")
        return nil
      }
      try #expect(child.switch() == nil)
      try #expect(child.switch() == nil)
      #expect(log.lines == ["true", "true"])
      #expect(child.isDead)
    }
  }

  @Test func aValueIsNotDeliveredTwice() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        while true { _ = try main.switch() }
      }
      try #expect(child.switch("one") == nil)
      try #expect(child.switch("two") == nil)
      try #expect(child.switch() == nil)
    }
  }

  @Test func switchingToOneselfReturnsTheValue() async throws {
    try await runGreen {
      try #expect(RawGreenlet.current.switch(7) as? Int == 7)
      try #expect(RawGreenlet.current.switch() == nil)
      let child = RawGreenlet { _ in try RawGreenlet.current.switch("me") }
      try #expect(child.switch() as? String == "me")
    }
  }

  @Test func throwingIntoOneselfThrowsHere() async throws {
    try await runGreen {
      #expect(throws: OneError("self")) { try RawGreenlet.current.throw(OneError(text: "self")) }
      #expect(throws: GreenletExit.self) { try RawGreenlet.current.throw() }
    }
  }

  @Test func currentIsTheOneThatRuns() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      #expect(main === RawGreenlet.current)
      let seen = Box<RawGreenlet?>(nil)
      let child = RawGreenlet { _ in
        seen.value = RawGreenlet.current
        return nil
      }
      try child.switch()
      #expect(seen.value === child)
      #expect(RawGreenlet.current === main)
      #expect(main.parent == nil)
      #expect(child.parent === main)
    }
  }

  @Test func flagsFollowTheLife() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in try main.switch() }
      #expect(!child.isActive && !child.isDead)
      try child.switch()
      #expect(child.isActive && !child.isDead)
      try child.switch()
      #expect(!child.isActive && child.isDead)
      #expect(main.isActive && !main.isDead)
    }
  }

  @Test func twoChildrenAreIndependent() async throws {
    try await runGreen {
      let log = Log()
      func child(_ name: String) -> RawGreenlet {
        RawGreenlet { _ in
          log("\(name)1")
          _ = try RawGreenlet.current.parent!.switch()
          log("\(name)2")
          return nil
        }
      }
      let (a, b) = (child("a"), child("b"))
      try a.switch()
      try b.switch()
      try b.switch()
      try a.switch()
      #expect(log.lines == ["a1", "b1", "b2", "a2"])
    }
  }

  @Test func recursiveChildrenReturnInOrder() async throws {
    try await runGreen {
      let log = Log()
      let outer = RawGreenlet { _ in
        log("outer begins")
        let inner = RawGreenlet { _ in
          log("inner")
          defer { log("inner ends") }
          return try RawGreenlet.current.parent!.switch("half")
        }
        log("outer got \(try inner.switch() as! String)")
        return nil
      }
      try outer.switch()
      #expect(log.lines == ["outer begins", "inner", "outer got half", "inner ends"])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  /// Each is a child of the one before and runs while all its ancestors are suspended.
  @Test func deepNesting() async throws {
    try await runGreen {
      let depth = 1000
      func descend(_ level: Int) throws -> Int {
        if level == depth { return 0 }
        let child = RawGreenlet(stackSize: 64 * 1024) { _ in try descend(level + 1) }
        return try child.switch() as! Int + level
      }
      try #expect(descend(0) == depth * (depth - 1) / 2)
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func deeplyNestedSuspendedChildrenAreUnwound() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      func descend(_ level: Int) throws {
        defer { log("\(level)") }
        if level == 20 {
          _ = try main.switch()
          return
        }
        // Not the child of this one, or they would hold each other.
        _ = try RawGreenlet(parent: main) { _ in try descend(level + 1) }.switch()
      }
      var top: RawGreenlet? = RawGreenlet { _ in try descend(0) }
      try top!.switch()
      #expect(log.lines == [])
      top = nil
      #expect(log.lines.compactMap { Int($0) }.sorted() == Array(0...20))
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func aRingOfThousandPassesATokenAround() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let ring = Box<[RawGreenlet]>([])
      for index in 0..<1000 {
        ring.value.append(
          RawGreenlet(stackSize: 32 * 1024) { first in
            var token = first as! Int
            while true {
              let next = index + 1 < ring.value.count ? ring.value[index + 1] : main
              token = try next.switch(token + 1) as! Int
            }
          })
      }
      try #expect(ring.value[0].switch(0) as? Int == 1000)
      try #expect(ring.value[0].switch(5000) as? Int == 6000)
      #expect(InUse().stacks == 1000)
      ring.value = []
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  // MARK: The end

  @Test func returnValueGoesToTheParent() async throws {
    try await runGreen {
      let parent = RawGreenlet { _ in
        let child = RawGreenlet { first in (first as! Int) + 1 }
        return try child.switch(1) as! Int * 10
      }
      try #expect(parent.switch() as? Int == 20)
    }
  }

  @Test func theParentGetsTheValueNotTheOneThatSwitchedLast() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in "from child" }
      let other = RawGreenlet { _ in
        log("other got \(try child.switch() ?? "nothing")")
        return nil
      }
      #expect(child.parent === main)
      try #expect(other.switch() as? String == "from child")
      #expect(child.isDead && other.isActive)
      #expect(log.lines == [])
      try other.switch("more")
      #expect(log.lines == ["other got more"])
    }
  }

  @Test func anErrorIsThrownInTheParent() async throws {
    try await runGreen {
      let child = RawGreenlet { _ in throw OneError(text: "from child") }
      #expect(throws: OneError("from child")) { try child.switch() }
      #expect(child.isDead)
      let log = Log()
      let middle = RawGreenlet { _ in
        do {
          return try RawGreenlet { _ in throw OneError(text: "inner") }.switch()
        } catch {
          log("caught \(error)")
          throw OneError(text: "outer")
        }
      }
      #expect(throws: OneError("outer")) { try middle.switch() }
      #expect(log.lines.count == 1)
    }
  }

  @Test func anErrorPassesUncaughtThroughEveryParent() async throws {
    try await runGreen {
      func nest(_ level: Int) throws -> Any? {
        if level == 0 { throw OneError(text: "deep") }
        return try RawGreenlet { _ in try nest(level - 1) }.switch()
      }
      #expect(throws: OneError("deep")) { try nest(50) }
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func greenletExitIsAValue() async throws {
    try await runGreen {
      let child = RawGreenlet { _ in throw GreenletExit() }
      try #expect(child.switch() is GreenletExit)
      #expect(child.isDead)
    }
  }

  @Test func fallingOffTheEndStartsAnUnstartedParent() async throws {
    try await runGreen {
      let log = Log()
      let parent = RawGreenlet { first in
        log("parent got \(first as! String)")
        return "from parent"
      }
      let child = RawGreenlet(parent: parent) { first in
        log("child got \(first as! String)")
        return "from child"
      }
      try #expect(child.switch("start") as? String == "from parent")
      #expect(log.lines == ["child got start", "parent got from child"])
      #expect(child.isDead && parent.isDead)
    }
  }

  @Test func failingStartsAnUnstartedParentWithTheErrorWhichEndsIt() async throws {
    try await runGreen {
      let log = Log()
      let grandparent = RawGreenlet { _ in
        log("grandparent ran")
        return nil
      }
      let parent = RawGreenlet(parent: grandparent) { _ in
        log("parent ran")
        return nil
      }
      let child = RawGreenlet(parent: parent) { _ in throw OneError(text: "child") }
      #expect(throws: OneError("child")) { try child.switch() }
      #expect(log.lines == [])
      #expect(child.isDead && parent.isDead && grandparent.isDead)
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func unstartedParentOfAnotherStackSize() async throws {
    try await runGreen {
      let parent = RawGreenlet(stackSize: 1 << 20) { first in
        first as! Int + min(1, useStack(600_000))
      }
      let child = RawGreenlet(parent: parent, stackSize: 64 * 1024) { _ in 41 }
      try #expect(child.switch() as? Int == 42)
    }
  }

  @Test func aDeadParentIsSkipped() async throws {
    try await runGreen {
      let parent = RawGreenlet { _ in nil }
      let child = RawGreenlet(parent: parent) { _ in "for the grandparent" }
      try parent.switch()
      #expect(parent.isDead)
      try #expect(child.switch() as? String == "for the grandparent")
      let failing = RawGreenlet(parent: parent) { _ in throw OneError() }
      #expect(throws: OneError()) { try failing.switch() }
    }
  }

  @Test func switchingToADeadOneReachesItsNearestLivingAncestor() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let dead = RawGreenlet { _ in nil }
      try dead.switch()
      try #expect(dead.switch("back to me") as? String == "back to me")
      let log = Log()
      let ancestor = RawGreenlet { _ in
        while true { log("ancestor got \(try main.switch() ?? "nothing")") }
      }
      try ancestor.switch()
      let parent = RawGreenlet(parent: ancestor) { _ in nil }
      let child = RawGreenlet(parent: parent) { _ in nil }
      try parent.throw()
      try child.throw()
      log.lines = []
      #expect(parent.isDead && child.isDead)
      try child.switch("hello")
      #expect(log.lines == ["ancestor got hello"])
    }
  }

  @Test func switchingToADeadOneStartsItsUnstartedParent() async throws {
    try await runGreen {
      // The exit of the one that never ran is handed to the parent as a value.
      let parent = RawGreenlet { first in first is GreenletExit }
      let child = RawGreenlet(parent: parent) { _ in nil }
      try #expect(child.throw() as? Bool == true)
      #expect(child.isDead && parent.isDead)
      let second = RawGreenlet { first in "\(first as! String)!" }
      let orphan = RawGreenlet { _ in nil }
      try orphan.switch()
      try orphan.setParent(second)
      try #expect(orphan.switch("hello") as? String == "hello!")
    }
  }

  @Test func aBodyIsReleasedWhenItEnds() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let finished: RawGreenlet = {
        let tracked = Tracked(counter)
        return RawGreenlet { _ in
          #expect(tracked.counter.live == 1)
          return nil
        }
      }()
      #expect(counter.live == 1)
      try finished.switch()
      #expect(counter.live == 0)
      let unstarted: RawGreenlet = {
        let tracked = Tracked(counter)
        return RawGreenlet { _ in tracked.counter.live }
      }()
      #expect(counter.live == 1)
      try unstarted.throw()
      #expect(unstarted.isDead)
      #expect(counter.live == 0)
    }
  }

  @Test func valuesThatTravelAreReleasedOnce() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let main = RawGreenlet.current
      do {
        let child = RawGreenlet { first in
          _ = first
          let second = try main.switch(Tracked(counter))
          _ = second
          return Tracked(counter)
        }
        try #expect(child.switch(Tracked(counter)) is Tracked)
        try #expect(child.switch(Tracked(counter)) is Tracked)
        #expect(child.isDead)
      }
      #expect(counter.all == 4)
      #expect(counter.live == 0)
    }
  }

  // MARK: Parents

  @Test func theParentIsTheMakerUnlessSaid() async throws {
    try await runGreen {
      let made = Box<RawGreenlet?>(nil)
      let maker = RawGreenlet { _ in
        made.value = RawGreenlet { _ in nil }
        return nil
      }
      try maker.switch()
      #expect(made.value!.parent === maker)
      let other = RawGreenlet(parent: maker) { _ in nil }
      #expect(other.parent === maker)
    }
  }

  @Test func theParentCanBeChangedWhileItRuns() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let heir = RawGreenlet { first in
        log("heir got \(first as! Int)")
        return "from heir"
      }
      let child = RawGreenlet { _ in
        try main.switch()
        try RawGreenlet.current.setParent(heir)
        return 5
      }
      try child.switch()
      try #expect(child.switch() as? String == "from heir")
      #expect(log.lines == ["heir got 5"])
      #expect(child.parent === heir)
    }
  }

  @Test func trivialCyclesAreRefused() async throws {
    try await runGreen {
      let greenlet = RawGreenlet { _ in nil }
      #expect(throws: SwitchError.self) { try greenlet.setParent(greenlet) }
      #expect(greenlet.parent === RawGreenlet.current)
    }
  }

  @Test func deeperCyclesAreRefused() async throws {
    try await runGreen {
      let grandparent = RawGreenlet { _ in nil }
      let parent = RawGreenlet(parent: grandparent) { _ in nil }
      let child = RawGreenlet(parent: parent) { _ in nil }
      #expect(throws: SwitchError.self) { try grandparent.setParent(child) }
      #expect(throws: SwitchError.self) { try grandparent.setParent(parent) }
      #expect(throws: SwitchError.self) { try parent.setParent(child) }
      #expect(grandparent.parent === RawGreenlet.current)
      try child.setParent(grandparent)
      try parent.setParent(child)
      #expect(parent.parent === child)
    }
  }

  @Test func theThreadsOwnCodeHasNoParent() async throws {
    try await runGreen {
      let child = RawGreenlet { _ in nil }
      #expect(throws: SwitchError.self) { try RawGreenlet.current.setParent(child) }
      #expect(throws: SwitchError.self) {
        try RawGreenlet.current.setParent(RawGreenlet.current)
      }
      #expect(RawGreenlet.current.parent == nil)
    }
  }

  // MARK: Errors stay where they are

  /// Each greenlet is inside a catch of its own, of which the others' errors know nothing.
  @Test func errorsBeingHandledSurviveSwitches() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let greenlets = (0..<10).map { index in
        RawGreenlet { _ in
          for round in 0..<10 {
            do {
              defer { _ = try? main.switch("deferred \(index)") }
              throw OneError(text: "\(index).\(round)")
            } catch {
              try main.switch(error)
              #expect(error as? OneError == OneError(text: "\(index).\(round)"))
            }
          }
          return nil
        }
      }
      for round in 0..<10 {
        for (index, greenlet) in greenlets.enumerated() {
          try #expect(greenlet.switch() as? String == "deferred \(index)")
        }
        for (index, greenlet) in greenlets.enumerated() {
          try #expect(greenlet.switch() as? OneError == OneError(text: "\(index).\(round)"))
        }
      }
      for greenlet in greenlets {
        try #expect(greenlet.switch() == nil)
        #expect(greenlet.isDead)
      }
    }
  }

  @Test func anErrorThrownInsideACatchReplacesIt() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        do { throw OneError(text: "first") } catch { try main.switch() }
        return nil
      }
      try child.switch()
      #expect(throws: OneError("second")) { try child.throw(OneError(text: "second")) }
      #expect(child.isDead)
    }
  }
}

extension OneError {
  init(_ text: String) { self.text = text }
}
