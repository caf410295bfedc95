// Evergreen: tests of task locals and of the current Task in greenlets
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(1))) struct TaskLocalTests {
  enum Locals {
    @TaskLocal static var number = 0
    @TaskLocal static var word = ""
    @TaskLocal static var object: Tracked?
    @TaskLocal static var wide: (String, [Int], Double)?
  }

  /// The task of `runGreen`, and a thread that runs no task.
  private func everywhere(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await runGreen(body)
    try await runGreen {
      try onThread { try Hub.withHub { _ in try body() } }
    }
  }

  @Test func theyAreInheritedAtSpawn() async throws {
    try await everywhere {
      let greenlet = Locals.$number.withValue(7) {
        Locals.$word.withValue("seven") { spawn { "\(Locals.number) \(Locals.word)" } }
      }
      let outside = spawn { "\(Locals.number) \(Locals.word)" }
      try #expect(greenlet.get() == "7 seven")
      try #expect(outside.get() == "0 ")
      #expect(Locals.number == 0)
    }
  }

  @Test func theInnermostBindingIsInherited() async throws {
    try await everywhere {
      let greenlet = Locals.$number.withValue(1) {
        Locals.$number.withValue(2) { Locals.$word.withValue("x") { spawn { Locals.number } } }
      }
      try #expect(greenlet.get() == 2)
    }
  }

  @Test func grandchildrenInheritThem() async throws {
    try await everywhere {
      let greenlet = Locals.$number.withValue(3) {
        spawn { try spawn { try spawn { Locals.number }.get() }.get() }
      }
      try #expect(greenlet.get() == 3)
    }
  }

  @Test func delayedGreenletsInheritWhatWasBoundAtSpawn() async throws {
    try await runGreenInVirtualTime { _ in
      let greenlet = Locals.$number.withValue(5) {
        spawn(after: .seconds(1)) { Locals.number }
      }
      try #expect(greenlet.get() == 5)
    }
  }

  @Test func rawGreenletsInheritWhatIsBoundWhereTheyBegin() async throws {
    try await everywhere {
      let child = RawGreenlet { _ in Locals.number }
      try #expect(Locals.$number.withValue(8) { try child.switch() } as? Int == 8)
      let generator = Generator<Int> { yield in while true { try yield(Locals.number) } }
      #expect(Locals.$number.withValue(9) { generator.next() } == 9)
      #expect(Locals.$number.withValue(10) { generator.next() } == 9)
    }
  }

  @Test func rebindingIsPrivate() async throws {
    try await everywhere {
      let log = Log()
      try Locals.$number.withValue(1) {
        let greenlets = (0..<5).map { index in
          spawn {
            try Greenlet.yield()
            try Locals.$number.withValue(100 + index) {
              try Greenlet.yield()
              log("\(Locals.number)")
              try Greenlet.yield()
            }
            log("\(Locals.number)")
          }
        }
        while !greenlets.allSatisfy(\.isReady) {
          #expect(Locals.number == 1)
          try Greenlet.yield()
        }
      }
      #expect(log.lines.prefix(5) == ["100", "101", "102", "103", "104"])
      #expect(log.lines.suffix(5) == ["1", "1", "1", "1", "1"])
      #expect(Locals.number == 0)
    }
  }

  @Test func bindingsInMainAreNotSeenByOthersThatRun() async throws {
    try await everywhere {
      let greenlet = spawn {
        var seen: [Int] = []
        for _ in 0..<3 {
          seen.append(Locals.number)
          try Greenlet.yield()
        }
        return seen
      }
      try Greenlet.yield()
      try Locals.$number.withValue(5) { try Greenlet.yield() }
      try Locals.$number.withValue(6) {
        try Greenlet.yield()
        #expect(Locals.number == 6)
      }
      try #expect(greenlet.get() == [0, 0, 0])
    }
  }

  /// The scopes of two greenlets end in the order in which they began, not in that of a stack.
  @Test func scopesOfDifferentGreenletsOverlap() async throws {
    try await everywhere {
      let main = RawGreenlet.current
      let children = (1...3).map { index in
        RawGreenlet { _ in
          try Locals.$number.withValue(index) {
            try main.switch(Locals.number)
            return Locals.number
          }
        }
      }
      for (index, child) in children.enumerated() {
        try #expect(child.switch() as? Int == index + 1)
        #expect(Locals.number == 0)
      }
      for (index, child) in children.enumerated() {
        try #expect(child.switch() as? Int == index + 1)
        #expect(Locals.number == 0)
      }
    }
  }

  @Test func objectsAreReleasedExactlyOnce() async throws {
    try await everywhere {
      let counter = Tracked.Counter()
      let gate = Gate()
      var greenlets: [Greenlet<Bool>] = []
      Locals.$object.withValue(Tracked(counter)) {
        for _ in 0..<20 {
          greenlets.append(
            spawn {
              try gate.wait()
              return Locals.object != nil
            })
        }
      }
      #expect(counter.live == 1)
      try Greenlet.yield()
      #expect(counter.live == 1)
      gate.open()
      for greenlet in greenlets { try #expect(greenlet.get()) }
      // The last one gives back its copy when it is through.
      try idle()
      #expect(counter.all == 1)
      #expect(counter.live == 0)
    }
  }

  @Test func objectsOfGreenletsThatNeverRunAreReleased() async throws {
    try await everywhere {
      let counter = Tracked.Counter()
      try Locals.$object.withValue(Tracked(counter)) {
        let greenlet = spawn { Issue.record("ran") }
        let late = spawn(after: .seconds(1000)) { Issue.record("ran") }
        try greenlet.kill()
        try late.kill()
      }
      try idle()
      #expect(counter.all == 1)
      #expect(counter.live == 0)
    }
  }

  @Test func objectsOfKilledAndDroppedOnesAreReleased() async throws {
    try await everywhere {
      let counter = Tracked.Counter()
      let gate = Gate()
      try Locals.$object.withValue(Tracked(counter)) {
        let greenlet = spawn { try Locals.$number.withValue(1) { try gate.wait() } }
        let main = RawGreenlet.current
        let child = RawGreenlet { _ in try Locals.$number.withValue(1) { try main.switch() } }
        try child.switch()
        try idle()
        try greenlet.kill()
      }
      try idle()
      #expect(counter.all == 1)
      #expect(counter.live == 0)
    }
  }

  @Test func valuesOfAnySizeAreCopied() async throws {
    try await everywhere {
      let counter = Tracked.Counter()
      let text = String(repeating: "long enough to be on the heap", count: 3)
      let greenlet = Locals.$wide.withValue((text, [1, 2, 3], 1.5)) {
        Locals.$object.withValue(Tracked(counter)) {
          spawn {
            try Greenlet.yield()
            return Locals.wide!.0 + "\(Locals.wide!.1)\(Locals.wide!.2)"
          }
        }
      }
      try #expect(greenlet.get() == text + "[1, 2, 3]1.5")
      try idle()
      #expect(counter.live == 0)
    }
  }

  /// The next greenlet runs on the stack of the one before.
  @Test func theyDoNotLeakToTheNextGreenletOnTheStack() async throws {
    try await everywhere {
      let bound = Locals.$number.withValue(5) { spawn { Locals.number } }
      let free = spawn { Locals.number }
      try joinAll([bound, free])
      #expect(bound.value == 5)
      #expect(free.value == 0)
    }
  }

  @Test func thousandsOfGreenletsHaveTheirOwn() async throws {
    try await everywhere {
      let gate = Gate()
      let greenlets = (0..<2000).map { index in
        Locals.$number.withValue(index) {
          spawn(stackSize: 64 * 1024) {
            try gate.wait()
            return Locals.number == index
          }
        }
      }
      try Greenlet.yield()
      gate.open()
      for greenlet in greenlets { try #expect(greenlet.get()) }
    }
  }

  // MARK: The current Task

  @Test func greenletsSeeNoTask() async throws {
    @Sendable func hasTask() -> Bool { withUnsafeCurrentTask { $0 != nil } }
    try await runGreen {
      #expect(hasTask())
      let greenlet = spawn {
        let before = hasTask()
        try Greenlet.yield()
        return before || hasTask() || Task.isCancelled
      }
      try #expect(greenlet.get() == false)
      #expect(hasTask())
      try #expect(RawGreenlet { _ in hasTask() }.switch() as? Bool == false)
      #expect(Generator<Bool> { yield in try yield(hasTask()) }.next() == false)
      #expect(hasTask())
    }
  }

  @Test func theTaskGoesOnAfterItHasRunGreenlets() async throws {
    let task = Task {
      let before = withUnsafeCurrentTask { $0?.hashValue }
      try await Locals.$number.withValue(11) {
        try await runGreen {
          #expect(Locals.number == 11)
          try #expect(spawn { Locals.number }.get() == 11)
        }
        #expect(Locals.number == 11)
        await Task.yield()
        #expect(Locals.number == 11)
      }
      return withUnsafeCurrentTask { $0?.hashValue } == before
    }
    try #expect(await task.value)
  }

  @Test func manyTasksRunHubsAtOnce() async throws {
    let sum = try await withThrowingTaskGroup(of: Int.self) { group in
      for index in 0..<12 {
        group.addTask {
          try Locals.$number.withValue(index) {
            try Hub.withHub(loop: nil) { _ in
              let greenlets = (0..<50).map { offset in
                spawn {
                  let inherited = Locals.number
                  return try Locals.$number.withValue(inherited * 100 + offset) {
                    for _ in 0..<5 { try Greenlet.yield() }
                    return Locals.number == index * 100 + offset ? 1 : 0
                  }
                }
              }
              return try greenlets.map { try $0.get() }.reduce(0, +)
            }
          }
        }
      }
      return try await group.reduce(0, +)
    }
    #expect(sum == 600)
  }
}
