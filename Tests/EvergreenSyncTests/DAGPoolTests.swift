// Evergreen: tests of greenlets that need the results of others.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct DAGPoolTests {
  struct Failure: Error {}

  @Test func valuesFlowWhateverTheOrderOfSpawning() async throws {
    try await runGreenInVirtualTime { clock in
      let dag = DAGPool<String, Int>(["base": 1])
      func work(_ inputs: [String: Int]) throws -> Int {
        try sleep(for: .seconds(1))
        return inputs.values.reduce(1, +)
      }
      try dag.spawn("top", after: ["left", "right"], work)
      try dag.spawn("left", after: ["base"], work)
      try dag.spawn("right", after: ["base", "left"], work)
      #expect(Set(dag.runningKeys) == ["top", "left", "right"] && dag.missingKeys.isEmpty)
      try #expect(dag.value(of: "top") == 7)
      #expect(clock.elapsed == .seconds(3))
      try #expect(dag.values() == ["base": 1, "left": 2, "right": 4, "top": 7])
      #expect(dag.settledKeys == ["base", "left", "right", "top"] && dag.runningKeys.isEmpty)
      #expect(dag["left"] == 2 && dag["none"] == nil)
    }
  }

  @Test func aPostedValueIsWaitedFor() async throws {
    try await runGreenInVirtualTime { clock in
      let dag = DAGPool<String, Int>()
      try dag.spawn("sum", after: ["one", "two"]) { $0["one"]! + $0["two"]! }
      #expect(Set(dag.missingKeys) == ["one", "two"])
      spawn(after: .seconds(1)) { try dag.post(1, for: "one") }
      spawn(after: .seconds(2)) { try dag.post(2, for: "two") }
      var seen: [String] = []
      try dag.forEach(of: ["sum", "two", "one"]) { key, value in seen.append("\(key)=\(value)") }
      #expect(seen == ["one=1", "two=2", "sum=3"])
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func aFailureTakesDownWhatNeedsIt() async throws {
    try await runGreenInVirtualTime { _ in
      var reports: [any Error] = []
      Hub.current.onError = { reports.append($1) }
      let dag = DAGPool<String, Int>()
      try dag.spawn("a") { _ in throw Failure() }
      try dag.spawn("b", after: ["a"]) { _ in 1 }
      try dag.spawn("c", after: ["b"]) { _ in 1 }
      try dag.spawn("d") { _ in 4 }
      do {
        _ = try dag.value(of: "c")
        Issue.record("must throw")
      } catch let error as PropagateError {
        #expect(error.key == "c" && error.root is Failure)
        #expect("\(error)".hasPrefix("c failed: b failed: a failed: "))
      }
      try #expect(dag.value(of: "d") == 4)
      #expect(throws: PropagateError.self) { try dag.values() }
      #expect(reports.count == 1 && reports.first is Failure)
    }
  }

  @Test func aKilledKeyFailsForThoseWhoWait() async throws {
    try await runGreen {
      let dag = DAGPool<Int, Int>()
      try dag.spawn(1) { _ in
        try sleep(for: .seconds(60)); return 1
      }
      let waiter = spawn { try dag.value(of: 1) }
      try Greenlet.yield()
      dag.kill(1)
      dag.kill(2)
      try waiter.join()
      #expect((waiter.error as? PropagateError)?.error is GreenletExit)
      try dag.post(5, for: 1, replacing: true)
      try #expect(dag.value(of: 1) == 5)
    }
  }

  @Test func aKeyHasOneValue() async throws {
    try await runGreen {
      let dag = DAGPool<Int, Int>([1: 1])
      try dag.spawn(2) { _ in 2 }
      for key in 1...2 {
        #expect(throws: Collision(key: "\(key)")) { try dag.post(5, for: key) }
        #expect(throws: Collision.self) { try dag.spawn(key) { _ in 5 } }
      }
      try dag.post(20, for: 2, replacing: true)
      try Greenlet.yield()
      #expect(dag[1] == 1 && dag[2] == 20)
    }
  }

  @Test func keysThatNeedEachOtherAreRefused() async throws {
    try await runGreen {
      let dag = DAGPool<String, Int>()
      try dag.spawn("a", after: ["b"]) { _ in 1 }
      try dag.spawn("b", after: ["x", "c"]) { _ in 1 }
      #expect(throws: DAGCycle(keys: ["c", "a", "b", "c"])) {
        try dag.spawn("c", after: ["a"]) { _ in 1 }
      }
      #expect(throws: DAGCycle.self) { try dag.spawn("d", after: ["d"]) { _ in 1 } }
      try dag.post(1, for: "c")
      try dag.post(1, for: "x")
      try #expect(dag.value(of: "a") == 1)
    }
  }

  @Test func aStandstillNamesTheKeys() async throws {
    try await runGreen {
      let dag = DAGPool<String, Int>()
      try dag.spawn("app", after: ["core", "icons"]) { _ in 1 }
      try dag.post(1, for: "core")
      for wait in [
        { _ = try dag.value(of: "app") }, { try dag.forEach(of: ["app"]) { _, _ in } },
      ] as [() throws -> Void] {
        do {
          try wait()
          Issue.record("must throw")
        } catch let exit as LoopExit {
          #expect("\(exit)".contains("the DAGPool waits for icons, which nobody has posted"))
          #expect("\(exit)".contains("\"DAG app after core, icons\""))
        }
      }
      dag.kill("app")
      try Greenlet.yield()
    }
  }
}
