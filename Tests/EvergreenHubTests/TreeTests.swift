// Evergreen: tests of where greenlets are and where they come from.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@inline(never)
private func waitHere() throws {
  try sleep(for: .seconds(60))
  withExtendedLifetime(0) {}
}

@inline(never)
private func spawnHere() -> Greenlet<Void> {
  let greenlet = spawn { try waitHere() }
  withExtendedLifetime(greenlet) {}
  return greenlet
}

@Suite struct TreeTests {
  @Test func aParkedGreenletSaysWhereItIs() async throws {
    try await runGreen {
      let greenlet = spawn { try waitHere() }
      #expect(greenlet.stack.isEmpty, "it has not run yet")
      try Greenlet.yield()
      let stack = greenlet.stack
      #expect(stack.contains { $0.contains("waitHere") }, "\(stack)")
      #expect(Greenlet.current.stack.contains { !$0.contains("waitHere") })
      try greenlet.kill()
      #expect(greenlet.stack.isEmpty)
    }
  }

  @Test func spawnStacksAreNotedOnRequest() async throws {
    try await runGreen {
      let hub = Hub.current
      let before = spawnHere()
      hub.tracksSpawns = true
      let greenlet = spawnHere()
      hub.tracksSpawns = false
      let after = spawnHere()
      #expect(greenlet.spawnStack.first?.contains("spawnHere") == true, "\(greenlet.spawnStack)")
      #expect(before.spawnStack.isEmpty && after.spawnStack.isEmpty)
      try killAll([before, greenlet, after])
    }
  }

  @Test func treesShowWhoHasSpawnedWhom() async throws {
    try await runGreen {
      let parent = spawn {
        let child = spawn { try sleep(for: .seconds(60)) }
        child.name = "child"
        try child.get()
      }
      parent.name = "parent"
      try Greenlet.yield()
      try Greenlet.yield()
      let trees = Hub.current.greenletTrees
      let main = try #require(trees.first)
      #expect(trees.count == 1)
      #expect(main.greenlet === Hub.current.main)
      #expect(main.children.map(\.greenlet.name) == ["parent"])
      let child = try #require(main.children.first?.children.first)
      #expect(child.greenlet.name == "child")
      #expect(child.activity.hasPrefix("waits for sleep"))
      let lines = main.description.split(separator: "\n")
      #expect(lines.count == 3)
      #expect(lines[2].hasPrefix("    greenlet"))
      try killAll([child.greenlet, parent])
    }
  }

  @Test func whoseSpawnerHasEndedStandsBesideTheOthers() async throws {
    try await runGreen {
      var orphan: Greenlet<Void>?
      try spawn { orphan = spawn { try sleep(for: .seconds(60)) } }.join()
      let trees = Hub.current.greenletTrees
      #expect(trees.count == 2)
      #expect(trees.last?.greenlet === orphan)
      try orphan?.kill()
    }
  }

  @Test func aTreeSharesItsVariables() async throws {
    try await runGreen {
      let count = SpawnTreeLocal(default: 0)
      var seen: [Int] = []
      func tree(_ start: Int) -> Greenlet<Void> {
        spawn {
          count.value = start
          let children = (0..<2).map { _ in spawn { spawn { count.value += 1 } } }
          for child in children { try child.get().get() }
          seen.append(count.value)
        }
      }
      try joinAll([tree(10), tree(20)], raisingErrors: true)
      #expect(seen == [12, 22])
      #expect(count.value == 0, "the main greenlet is in no tree of theirs")
    }
  }

  @Test func spawnsAreAnnounced() async throws {
    try await runGreen {
      let hub = Hub.current
      var announced: [ObjectIdentifier] = []
      hub.onSpawn = { announced.append(ObjectIdentifier($0)) }
      let greenlet = spawn {}
      let delayed = spawn(after: .milliseconds(1)) {}
      let unstarted = Greenlet {}
      hub.onSpawn = nil
      unstarted.start()
      try joinAll([greenlet, delayed, unstarted])
      #expect(announced == [ObjectIdentifier(greenlet), ObjectIdentifier(delayed)])
    }
  }
}

@Suite struct SwitchTests {
  @Test func tracersAreToldOfEachSwitch() async throws {
    try await runGreen {
      try spawn {}.join()  // by way of the hub, as the first wait of all
      var events: [String] = []
      let tracer = Hub.current.traceSwitches { events.append($0.description) }
      let greenlet = spawn { try Greenlet.yield() }
      let id = { greenlet.id }
      try Greenlet.yield()
      let number = id()
      try greenlet.join()
      tracer.stop()
      try spawn {}.join()
      #expect(
        events == [
          "the main greenlet yields, greenlet \(number) runs",
          "greenlet \(number) yields, the main greenlet runs",
          "the main greenlet waits, greenlet \(number) runs",
          "greenlet \(number) ends, the main greenlet runs",
        ])
    }
  }

  @Test func aTracerThatGoesIsToldNoMore() async throws {
    try await runGreen {
      try spawn {}.join()
      var count = 0
      do {
        let tracer = Hub.current.traceSwitches { _ in count += 1 }
        try spawn {}.join()
        withExtendedLifetime(tracer) {}
      }
      let before = count
      #expect(before == 2)
      try spawn {}.join()
      #expect(count == before)
    }
  }

  @Test func aLogKeepsTheLatest() async throws {
    try await runGreen {
      try spawn {}.join()
      let log = SwitchLog(last: 4)
      for _ in 0..<10 { try spawn {}.join() }
      log.stop()
      #expect(log.count == 20)
      #expect(log.events.count == 4)
      #expect(log.events.map(\.leave) == [.waits, .ends, .waits, .ends])
      #expect(log.events.map(\.time) == log.events.map(\.time).sorted())
      try spawn {}.join()
      #expect(log.count == 20)
    }
  }

  @Test func assertsThatABlockLetsOthersRun() async throws {
    try await runGreen {
      let value = try assertSwitches {
        try Greenlet.yield()
        return 7
      }
      #expect(value == 7)
      #expect(throws: DidNotSwitch.self) { _ = try assertSwitches {} }
      _ = try assertSwitches(atLeastEvery: .seconds(60)) { try spawn {}.join() }
      #expect(throws: GreenletExit.self) { try assertSwitches { throw GreenletExit() } }
    }
    try await runGreenInVirtualTime { clock in
      let error = #expect(throws: DidNotSwitch.self) {
        try assertSwitches(atLeastEvery: .milliseconds(50)) {
          try Greenlet.yield()
          clock.advance(by: .milliseconds(80))  // works, and lets nobody run
          try sleep(for: .seconds(1))
        }
      }
      #expect(error?.blocked == .milliseconds(80))
    }
  }
}

@Suite struct MetricsTests {
  @Test func countWhatHappens() async throws {
    try await runGreen {
      let hub = Hub.current
      let before = hub.metrics
      let sleeper = spawn { try sleep(for: .seconds(60)) }
      try Greenlet.yield()
      spawn {}
      let after = hub.metrics
      #expect(after.greenlets == before.greenlets + 2)
      #expect(after.ready == 1)
      #expect(after.spawned == before.spawned + 2)
      #expect(after.switches > before.switches)
      #expect(after.lag == nil)
      try sleeper.kill()
      try sleep(for: .milliseconds(1))
      #expect(hub.metrics.polls > after.polls)
      #expect(hub.metrics.greenlets == before.greenlets)
    }
  }

  @Test func lagIsMeasuredOnRequest() async throws {
    try await runGreenInVirtualTime { clock in
      let hub = Hub.current
      hub.measureLag(every: .seconds(1))
      try sleep(for: .milliseconds(3_500))
      #expect(hub.metrics.worstLag == .zero)
      clock.advance(by: .seconds(2))  // somebody keeps the hub to himself
      try Greenlet.yield()
      try sleep(for: .milliseconds(100))
      let metrics = hub.metrics
      #expect(metrics.worstLag == .milliseconds(1_500))
      try sleep(for: .seconds(5))
      #expect(hub.metrics.worstLag == .zero, "each look begins anew")
      hub.measureLag(every: nil)
      #expect(hub.metrics.lag == nil)
    }
  }

  @Test func measuringKeepsNobodyFromEnding() async throws {
    try await runGreenInVirtualTime { _ in
      let hub = Hub.current
      hub.measureLag(every: .seconds(1))
      let watch = hub.watchMemory(above: .max) { _ in }
      try hub.join()
      #expect(throws: LoopExit.self) { try Waiter<Void>().get() }
      watch.stop()
    }
  }

  @Test func memoryAboveALimitIsToldOnce() async throws {
    try await runGreenInVirtualTime { _ in
      let hub = Hub.current
      let resident = try #require(Hub.residentMemory)
      #expect(resident > 1 << 20)
      var events: [Bool] = []
      let watch = hub.watchMemory(above: 1, every: .seconds(1)) { events.append($0.isExceeded) }
      let quiet = hub.watchMemory(above: .max, every: .seconds(1)) { _ in events.append(false) }
      try sleep(for: .seconds(10))
      #expect(events == [true])
      watch.stop()
      quiet.stop()
    }
  }
}
