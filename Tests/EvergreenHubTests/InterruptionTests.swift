// Evergreen: tests that a kill or a timeout in a blocking call leaves nothing behind
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

/// Each blocking call of the hub, interrupted at each stage.
@Suite("Interrupted calls", .timeLimit(.minutes(1)))
struct InterruptionTests {
  enum Call: CaseIterable {
    case sleep, yield, idle, join, joinWithTimeout, get, getWithTimeout, joinAll, kill, hubJoin
    case hubJoinWithTimeout, event, eventWithTimeout

    /// Whether an ``World/event`` brings it to a good end.
    var canBeWon: Bool { ![.sleep, .yield, .idle, .hubJoin, .hubJoinWithTimeout].contains(self) }

    /// Whether it waits until something happens.
    var waits: Bool { self != .yield && self != .idle }
  }

  /// What the calls wait for.
  final class World {
    let hub = Hub.current
    let log = Log()
    let event = Event()
    let target: Greenlet<Int>
    private let sleeper: Greenlet<Void>
    private let references: Int

    init() throws {
      target = Greenlet { [event] in
        while !event.isSet { do { try event.wait() } catch is GreenletExit {} }
        return 5
      }
      sleeper = Greenlet { try EvergreenHub.sleep(for: .seconds(86_400)) }
      target.start()
      sleeper.start()
      try Greenlet.yield()
      references = hub.loop.referenceCount
    }

    func make(_ call: Call) throws {
      log.add("before")
      switch call {
      case .sleep: try EvergreenHub.sleep(for: .seconds(3600))
      case .yield: try Greenlet.yield()
      case .idle: try EvergreenHub.idle()
      case .join: try target.join()
      case .joinWithTimeout: try target.join(timeout: .seconds(3600))
      case .get: _ = try target.get()
      case .getWithTimeout: _ = try target.get(timeout: .seconds(3600))
      case .joinAll: try EvergreenHub.joinAll([target, target], timeout: .seconds(3600))
      case .kill: try target.kill(timeout: .seconds(3600))
      case .hubJoin: try hub.join()
      case .hubJoinWithTimeout: try hub.join(timeout: .seconds(3600))
      case .event: try event.wait()
      case .eventWithTimeout: try event.wait(timeout: .seconds(3600))
      }
      log.add("after")
      try Greenlet.yield()
      log.add("and on")
    }

    /// That nothing of the call is left, and that what it waited for still works.
    func check() throws {
      #expect(hub.loop.referenceCount == references)
      try Greenlet.yield()
      #expect(!target.isReady)
      let another = spawn { try self.target.get(timeout: .seconds(60)) }
      try Greenlet.yield()
      event.set()
      try #expect(another.get() == 5)
      try EvergreenHub.idle()
      try sleeper.kill()
      try #expect(hub.join())
      #expect(hub.loop.referenceCount == references - 1)
    }
  }

  @Test(arguments: Call.allCases)
  func killedBeforeItWaits(_ call: Call) async throws {
    try await runGreen {
      let world = try World()
      let victim = spawn {
        try Greenlet.current.kill(waiting: false)
        try world.make(call)
      }
      try victim.join()
      #expect(world.log.entries == ["before"])
      #expect(victim.error is GreenletExit)
      try world.check()
    }
  }

  @Test(arguments: Call.allCases)
  func killedWhileItWaits(_ call: Call) async throws {
    try await runGreen {
      let world = try World()
      for _ in 0..<3 {
        let victim = spawn { try world.make(call) }
        try Greenlet.yield()
        #expect(!victim.isReady)
        try victim.kill(waiting: false)
        try victim.join()
        #expect(victim.error is GreenletExit)
      }
      #expect(world.log.entries == ["before", "before", "before"])
      try world.check()
    }
  }

  @Test(arguments: Call.allCases.filter(\.canBeWon))
  func killedWhenItHasWonAlready(_ call: Call) async throws {
    try await runGreen {
      let hub = Hub.current
      let before = hub.loop.referenceCount
      let world = try World()
      let victim = spawn { try world.make(call) }
      try Greenlet.yield()
      world.event.set()
      if ![.event, .eventWithTimeout].contains(call) { try Greenlet.yield() }
      #expect(world.log.entries == ["before"])
      try victim.kill()
      #expect(world.log.entries == ["before", "after"], "what it has won it keeps")
      #expect(victim.error is GreenletExit)
      #expect(hub.loop.referenceCount == before + 1)
    }
  }

  @Test(arguments: Call.allCases.filter(\.canBeWon))
  func wonWhenItIsKilledAlready(_ call: Call) async throws {
    try await runGreen {
      let world = try World()
      let victim = spawn { try world.make(call) }
      try Greenlet.yield()
      try victim.kill(waiting: false)
      world.event.set()
      try victim.join()
      #expect(victim.error is GreenletExit)
      // The one that waits to kill has made the other end soon.
      let kept = [.event, .eventWithTimeout, .kill].contains(call)
      #expect(world.log.entries == (kept ? ["before", "after"] : ["before"]))
    }
  }

  @Test(arguments: Call.allCases.filter(\.waits))
  func timedOutWhileItWaits(_ call: Call) async throws {
    try await runGreenInVirtualTime { clock in
      let world = try World()
      for round in 1...3 {
        let error = thrown { try withTimeout(.seconds(10)) { try world.make(call) } }
        #expect((error as? Timeout)?.duration == .seconds(10))
        #expect(clock.elapsed == .seconds(10 * round))
      }
      #expect(world.log.entries == ["before", "before", "before"])
      try world.check()
    }
  }

  @Test(arguments: Call.allCases.filter { $0 != .yield })
  func timedOutBeforeItWaits(_ call: Call) async throws {
    try await runGreenInVirtualTime { clock in
      let world = try World()
      let error = thrown {
        try withTimeout(.seconds(10)) {
          clock.advance(by: .seconds(15))
          try world.make(call)
        }
      }
      #expect((error as? Timeout)?.duration == .seconds(10))
      #expect(clock.elapsed == .seconds(15))
      #expect(world.log.entries == ["before"])
      try world.check()
    }
  }

  @Test(arguments: Call.allCases.filter(\.waits))
  func timedOutOnTheRealClock(_ call: Call) async throws {
    try await runGreen {
      let world = try World()
      for _ in 0..<3 {
        let begin = ContinuousClock.now
        #expect(throws: Timeout.self) {
          try withTimeout(.milliseconds(3)) { try world.make(call) }
        }
        #expect(begin.duration(to: .now) >= .milliseconds(3))
      }
      try world.check()
    }
  }

  @Test(arguments: Call.allCases.filter(\.canBeWon))
  func timedOutWhenItHasWonAlready(_ call: Call) async throws {
    try await runGreenInVirtualTime { clock in
      let world = try World()
      spawn {
        try EvergreenHub.sleep(for: .seconds(10))
        world.event.set()
      }
      try Greenlet.yield()  // so that its timer comes first
      let caller = spawn {
        try withTimeout(.seconds(10), default: "timed out") {
          world.log.add("begin")
          try world.make(call)
          return "through"
        }
      }
      let result = try caller.get()
      #expect(clock.elapsed == .seconds(10))
      // An event is set in time. The greenlet that waits for it ends a turn too late.
      let inTime = [.event, .eventWithTimeout].contains(call)
      #expect(result == "timed out", "the yield behind it is a switch point")
      #expect(world.log.entries == ["begin", "before"] + (inTime ? ["after"] : []))
      try Hub.current.join(timeout: .zero)
    }
  }

  @Test(arguments: Call.allCases)
  func theHubEndsWhileItWaits(_ call: Call) async throws {
    let log = SharedLog()
    try await runGreen {
      let world = try World()
      spawn {
        defer { log.add("cleanup") }
        try world.make(call)
      }
      try Greenlet.yield()
      world.event.set()
    }
    #expect(log.entries == ["cleanup"])
  }
}
