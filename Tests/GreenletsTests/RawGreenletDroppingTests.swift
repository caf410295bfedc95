// Evergreen: tests of raw greenlets whose last reference goes, and of switches in odd places
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.timeLimit(.minutes(1))) struct RawGreenletDroppingTests {
  private let nothingLeft = InUse(contexts: 1, stacks: 0)  // the hub's context has not run yet

  @Test func aDroppedOneIsUnwound() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let counter = Tracked.Counter()
      var child: RawGreenlet? = RawGreenlet { _ in
        let tracked = Tracked(counter)
        defer { log("deferred with \(tracked.counter.live)") }
        do {
          try main.switch()
        } catch {
          log("caught \(error)")
          throw error
        }
        log("went on")
        return nil
      }
      try child!.switch()
      #expect(counter.live == 1)
      child = nil
      #expect(log.lines == ["caught GreenletExit", "deferred with 1"])
      #expect(counter.live == 0)
      #expect(InUse() == nothingLeft)
    }
  }

  @Test func anUnstartedOneNeverRuns() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      do {
        let tracked = Tracked(counter)
        _ = RawGreenlet { _ in
          Issue.record("ran")
          return tracked
        }
      }
      #expect(counter.live == 0)
    }
  }

  @Test func aDroppedOneThatFailsIsReportedOnly() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try RawGreenletDroppingTests.dropOneThatFails()
    }
    #expect(errorText(of: result).contains("threw while it was unwound"))
    #expect(errorText(of: result).contains("last words"))
  }

  private static func dropOneThatFails() throws {
    let main = RawGreenlet.current
    var child: RawGreenlet? = RawGreenlet { _ in
      do { try main.switch() } catch { throw OneError(text: "last words") }
      return nil
    }
    try child!.switch()
    child = nil
    require(InUse() == InUse(contexts: 0, stacks: 0), "unwound")
  }

  @Test func oneThatIsHeldByItsOwnStackStays() async throws {
    try await runGreen {
      let log = Log()
      let holder = Box<RawGreenlet?>(nil)
      weak var handle: RawGreenlet?
      do {
        let main = RawGreenlet.current
        let child = RawGreenlet { _ in
          let me = RawGreenlet.current
          defer { log("deferred") }
          try main.switch()
          return me
        }
        try child.switch()
        handle = child
      }
      #expect(handle != nil)
      #expect(log.lines == [])
      holder.value = handle
      try holder.value?.throw()
      #expect(log.lines == ["deferred"])
    }
  }

  @Test func itMaySwitchWhileItIsUnwound() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let helper = RawGreenlet { _ in
        var asker = RawGreenlet.current.parent!
        while true {
          log("helper")
          asker = try asker.switch("help") as! RawGreenlet
        }
      }
      try helper.switch()
      log.lines = []
      var child: RawGreenlet? = RawGreenlet { _ in
        defer {
          for round in 0..<3 {
            let answer = try? helper.switch(RawGreenlet.current)
            log("\(round) \(answer as? String ?? "nothing")")
          }
        }
        return try main.switch()
      }
      try child!.switch()
      child = nil
      #expect(
        log.lines == ["helper", "0 help", "helper", "1 help", "helper", "2 help"])
    }
  }

  @Test func itMayIterateAGeneratorWhileItIsUnwound() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      var child: RawGreenlet? = RawGreenlet { _ in
        defer {
          for n in Generator<Int>({ yield in for n in 1...3 { try yield(n) } }) { log("\(n)") }
          log("cleaned up")
        }
        return try main.switch()
      }
      try child!.switch()
      child = nil
      #expect(log.lines == ["1", "2", "3", "cleaned up"])
      #expect(InUse() == nothingLeft)
    }
  }

  @Test func itMayBlockWhileItIsUnwound() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let main = RawGreenlet.current
      spawn { log("another greenlet") }
      var child: RawGreenlet? = RawGreenlet { _ in
        defer {
          try? sleep(for: .seconds(3))
          log("cleaned up after \(clock.elapsed)")
        }
        return try main.switch()
      }
      try child!.switch()
      child = nil
      #expect(log.lines == ["another greenlet", "cleaned up after 3.0 seconds"])
    }
  }

  @Test func oneThatSwallowsTheExitOnceAndSwitchesAway() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      var child: RawGreenlet? = RawGreenlet { _ in
        do { try main.switch() } catch { log("swallowed") }
        defer { log("deferred") }
        return try main.switch()
      }
      let kept = Box<RawGreenlet?>(nil)
      try child!.switch()
      kept.value = child
      child = nil
      #expect(log.lines == [])
      _ = try kept.value!.throw()
      #expect(log.lines == ["swallowed"])
      #expect(kept.value!.isActive)
      kept.value = nil
      #expect(log.lines == ["swallowed", "deferred"])
      #expect(InUse() == nothingLeft)
    }
  }

  /// Nobody can end it; it must not keep the others from going on either.
  @Test func oneThatAlwaysSwallowsTheExitIsGivenUpWithAWarning() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try RawGreenletDroppingTests.dropAStubbornOne(sending: nil)
      try RawGreenletDroppingTests.dropAStubbornOne(sending: 1)
      _exit(0)  // without a look at what is left
    }
    let lines = errorText(of: result).split(separator: "\n")
    #expect(lines.count { $0.contains("raw greenlet") && $0.contains("GreenletExit") } == 2)
  }

  private static func dropAStubbornOne(sending value: Int?) throws {
    let main = RawGreenlet.current
    let count = Box(0)
    var child: RawGreenlet? = RawGreenlet { _ in
      while true {
        do {
          try main.switch(value)
        } catch {
          count.value += 1
          require(count.value < 1000, "thrown in once")
        }
      }
    }
    try child!.switch()
    child = nil
    require(try RawGreenlet { _ in "others" }.switch() as? String == "others", "others go on")
    require(count.value == 1, "thrown in \(count.value) times")
  }

  @Test func aReferenceTakenWhileItIsUnwoundKeepsIt() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let saved = Box<RawGreenlet?>(nil)
      var child: RawGreenlet? = RawGreenlet { _ in
        do {
          try main.switch()
        } catch {
          saved.value = RawGreenlet.current
          log("saved itself")
        }
        defer { log("deferred") }
        return "alive \(try main.switch("resurrected") ?? "")"
      }
      try child!.switch()
      child = nil
      #expect(log.lines == ["saved itself"])
      #expect(saved.value!.isActive)
      saved.value = nil
      #expect(log.lines == ["saved itself", "deferred"])
      #expect(InUse() == nothingLeft)
    }
  }

  @Test func oneWhoseLastReferenceGoesWhileItRuns() async throws {
    for plainly in [true, false] {
      try await runGreen {
        let log = Log()
        let main = RawGreenlet.current
        let holder = Box<RawGreenlet?>(nil)
        holder.value = RawGreenlet { _ in
          defer { log("deferred") }
          try main.switch("first")
          holder.value = nil
          if plainly { try main.switch() } else { try main.switch("second") }
          log("went on")
          return nil
        }
        try holder.value!.switch()
        let other = RawGreenlet { _ in
          // From here, so that no call of the main greenlet holds a reference.
          _ = try holder.value!.switch()
          return nil
        }
        let answer = try other.switch()
        #expect(answer as? String == (plainly ? nil : "second"))
        // What `other` still holds is its own call; it is dropped with it.
        try other.throw()
        try RawGreenlet { _ in nil }.switch()
        #expect(log.lines == ["deferred"])
        #expect(InUse() == nothingLeft)
      }
    }
  }

  @Test func aDroppedOneOfTheHubsGreenletIsUnwoundThere() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {
        let me = RawGreenlet.current
        let child = RawGreenlet { _ in
          defer { log("deferred in \(Greenlet.current.name)") }
          return try me.switch()
        }
        Greenlet.current.name = "owner"
        try child.switch()
        log("leaves")
      }
      try greenlet.get()
      #expect(log.lines == ["leaves", "deferred in owner"])
    }
  }

  @Test func aKilledGreenletUnwindsItsChildren() async throws {
    try await runGreen {
      let log = Log()
      let gate = Gate()
      let greenlet = spawn {
        let me = RawGreenlet.current
        let child = RawGreenlet { _ in
          defer { log("child") }
          return try me.switch()
        }
        defer { log("greenlet") }
        try child.switch()
        try gate.wait()
      }
      try idle()
      try greenlet.kill()
      #expect(log.lines.sorted() == ["child", "greenlet"])
    }
  }

  @Test func wrappersDoNotOutliveTheirGreenlets() async throws {
    try await runGreen {
      weak var ofGreenlet: RawGreenlet?
      let greenlet = spawn {
        let me = RawGreenlet.current
        ofGreenlet = me
        let child = RawGreenlet { _ in try me.switch() }
        try child.switch()
        try child.switch()
      }
      try greenlet.get()
      #expect(ofGreenlet == nil)
    }
  }

  @Test func theWrapperOfAThreadDoesNotOutliveIt() async throws {
    try await runGreen {
      let weakly = try onThread {
        let me = RawGreenlet.current
        try RawGreenlet { _ in nil }.switch()
        return Weak(me)
      }
      #expect(weakly.value == nil)
    }
  }

  @Test func manyDroppedAtOnce() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let main = RawGreenlet.current
      for _ in 0..<20 {
        var all: [RawGreenlet] = []
        for _ in 0..<100 {
          let child = RawGreenlet(stackSize: 64 * 1024) { _ in
            let tracked = Tracked(counter)
            defer { _ = tracked }
            return try main.switch()
          }
          try child.switch()
          all.append(child)
        }
        #expect(counter.live == 100)
        all = []
        #expect(counter.live == 0)
        #expect(InUse() == nothingLeft)
      }
      #expect(counter.all == 2000)
    }
  }

  // MARK: Re-entrancy

  @Test func switchingInDeinit() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let other = RawGreenlet { _ in
        while true {
          log("other")
          try main.switch()
        }
      }
      do {
        let object = AtDeinit {
          _ = try? other.switch()
          log("deinit ends")
        }
        _ = object
      }
      #expect(log.lines == ["other", "deinit ends"])
    }
  }

  /// The value that a greenlet is given dies there, and its deinit switches.
  @Test func switchingInTheDeinitOfAValueThatTravels() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let other = RawGreenlet { _ in
        while true { try (try main.switch("unused") as! RawGreenlet).switch("other") }
      }
      _ = other
      let helper = RawGreenlet { first in
        var asker = first as! RawGreenlet
        while true {
          log("helper")
          asker = try asker.switch("answer") as! RawGreenlet
        }
      }
      let child = RawGreenlet { first in
        let slot = Box(first)
        for _ in 0..<3 {
          slot.value = nil
          slot.value = try main.switch("child")
        }
        return nil
      }
      for _ in 0..<3 {
        let result = try child.switch(
          AtDeinit {
            let answer = try? helper.switch(RawGreenlet.current)
            log("deinit got \(answer as! String)")
          })
        #expect(result as? String == "child")
      }
      _ = try child.switch()
      #expect(child.isDead)
      #expect(
        log.lines == Array(repeating: ["helper", "deinit got answer"], count: 3).flatMap { $0 })
    }
  }

  @Test func switchingInTheDeinitOfAnErrorThatEndsAGreenlet() async throws {
    final class Failure: Error, @unchecked Sendable {
      let action: () -> Void
      init(_ action: @escaping () -> Void) { self.action = action }
      deinit { action() }
    }
    try await runGreen {
      let log = Log()
      do {
        try RawGreenlet { _ in
          throw Failure { _ = try? RawGreenlet { _ in log("in deinit") }.switch() }
        }.switch()
      } catch {
        log("caught")
      }
      #expect(log.lines == ["caught", "in deinit"])
    }
  }

  /// While one dropped greenlet is unwound, its cleanup drops the next one.
  @Test func unwindingDropsTheNextOne() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      func chain(_ length: Int) throws -> RawGreenlet {
        let next = length == 0 ? nil : try chain(length - 1)
        let greenlet = RawGreenlet { _ in
          var held = next
          defer {
            log("\(length)")
            held = nil
            _ = held
          }
          return try main.switch()
        }
        try greenlet.switch()
        return greenlet
      }
      var first: RawGreenlet? = try chain(10)
      _ = first
      first = nil
      #expect(log.lines == (0...10).reversed().map(String.init))
      #expect(InUse() == nothingLeft)
    }
  }
}
