// Evergreen: tests of generators
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(1))) struct GeneratorTests {
  private func count(to limit: Int, log: Log? = nil) -> Generator<Int> {
    Generator { yield in
      defer { log?("ended") }
      for n in 0..<limit { try yield(n) }
    }
  }

  // MARK: Elements

  @Test func itsElementsComeInOrder() async throws {
    try await runGreen {
      var seen: [Int] = []
      for n in count(to: 10) { seen.append(n) }
      #expect(seen == Array(0..<10))
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func anEmptyOneEndsAtOnce() async throws {
    try await runGreen {
      #expect(Array(count(to: 0)).isEmpty)
      let generator = Generator<Int> { _ in }
      #expect(generator.next() == nil)
      #expect(generator.next() == nil)
      #expect(generator.error == nil)
    }
  }

  @Test func theBodyRunsOnlyWhenAskedFor() async throws {
    try await runGreen {
      let log = Log()
      let generator = Generator<Int> { yield in
        log("begun")
        try yield(1)
        log("between")
        try yield(2)
        log("ended")
      }
      #expect(log.lines == [])
      #expect(generator.next() == 1)
      #expect(log.lines == ["begun"])
      #expect(generator.next() == 2)
      #expect(log.lines == ["begun", "between"])
      #expect(generator.next() == nil)
      #expect(log.lines == ["begun", "between", "ended"])
      #expect(generator.next() == nil)
    }
  }

  @Test func itIsASequence() async throws {
    try await runGreen {
      let endless = Generator<Int> { yield in
        var n = 0
        while true {
          n += 1
          try yield(n * n)
        }
      }
      #expect(Array(endless.prefix(3)) == [1, 4, 9])
      #expect(count(to: 5).map { $0 * 2 } == [0, 2, 4, 6, 8])
      #expect(zip(count(to: 3), count(to: 9)).map { $0 + $1 } == [0, 2, 4])
      #expect(count(to: 100).lazy.filter { $0 % 7 == 0 }.first { $0 > 10 } == 14)
    }
  }

  @Test func optionalElementsAreNoEnd() async throws {
    try await runGreen {
      let generator = Generator<Int?> { yield in
        try yield(1)
        try yield(nil)
        try yield(3)
      }
      #expect(Array(generator) == [1, nil, 3])
    }
  }

  @Test func itYieldsFromAnyDepthOfCalls() async throws {
    struct Tree { var value: Int, children: [Tree] = [] }
    @Sendable func walk(_ tree: Tree, _ yield: (Int) throws -> Void) throws {
      try yield(tree.value)
      for child in tree.children { try walk(child, yield) }
    }
    try await runGreen {
      let tree = Tree(
        value: 1,
        children: [Tree(value: 2, children: [Tree(value: 3)]), Tree(value: 4)])
      #expect(Array(Generator { try walk(tree, $0) }) == [1, 2, 3, 4])
    }
  }

  @Test func nestedOnes() async throws {
    try await runGreen {
      let table = Generator<[Int]> { yield in
        for row in count(to: 3) { for column in count(to: 3) { try yield([row, column]) } }
      }
      #expect(Array(table) == (0..<3).flatMap { row in (0..<3).map { [row, $0] } })
    }
  }

  @Test func recursiveOnes() async throws {
    @Sendable func permutations(_ items: [Int]) -> Generator<[Int]> {
      Generator { yield in
        if items.isEmpty { return try yield([]) }
        for (index, item) in items.enumerated() {
          var rest = items
          rest.remove(at: index)
          for tail in permutations(rest) { try yield([item] + tail) }
        }
      }
    }
    try await runGreen {
      let all = Array(permutations([1, 2, 3, 4, 5]))
      #expect(all.count == 120)
      #expect(Set(all).count == 120)
      #expect(all.first == [1, 2, 3, 4, 5])
      #expect(all.last == [5, 4, 3, 2, 1])
      #expect(all == all.sorted { $0.lexicographicallyPrecedes($1) })
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  /// Each layer takes from the one below: hundred stacks deep for each element.
  @Test func layeredOnes() async throws {
    try await runGreen {
      var layers = count(to: 10)
      for _ in 0..<100 {
        let below = layers
        layers = Generator(stackSize: 64 * 1024) { yield in
          for n in below { try yield(n + 1) }
        }
      }
      #expect(Array(layers) == (0..<10).map { $0 + 100 })
    }
  }

  @Test func thePrimeSieve() async throws {
    @Sendable func numbers(from first: Int) -> Generator<Int> {
      Generator { yield in
        var n = first
        while true {
          try yield(n)
          n += 1
        }
      }
    }
    @Sendable func sieve(_ source: Generator<Int>) -> Generator<Int> {
      Generator { yield in
        var source = source
        while let prime = source.next() {
          try yield(prime)
          let before = source
          source = Generator { yield in
            for n in before where n % prime != 0 { try yield(n) }
          }
        }
      }
    }
    try await runGreen {
      #expect(
        Array(sieve(numbers(from: 2)).prefix(10)) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  // MARK: Its end

  @Test func anEarlyDropUnwindsTheBody() async throws {
    try await runGreen {
      let log = Log()
      for n in count(to: 10, log: log) where n == 3 {
        log("leaves")
        break
      }
      #expect(log.lines == ["leaves", "ended"])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func oneThatWasNeverAskedNeverRuns() async throws {
    try await runGreen {
      let log = Log()
      _ = count(to: 3, log: log)
      #expect(log.lines == [])
    }
  }

  @Test func theBodyMayCatchTheExitAndEnd() async throws {
    try await runGreen {
      let log = Log()
      do {
        let generator = Generator<Int> { yield in
          do { try yield(1) } catch { log("caught \(error)") }
          log("ends")
        }
        #expect(generator.next() == 1)
      }
      #expect(log.lines == ["caught GreenletExit", "ends"])
    }
  }

  @Test func yieldingWhileItIsUnwoundThrowsAgain() async throws {
    try await runGreen {
      let log = Log()
      do {
        let generator = Generator<Int> { yield in
          do { try yield(1) } catch { log("caught \(error)") }
          do { try yield(2) } catch { log("again \(error)") }
          defer { _ = try? yield(3) }
          try yield(4)
          log("went on")
        }
        #expect(generator.next() == 1)
      }
      #expect(log.lines == ["caught GreenletExit", "again GreenletExit"])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func nestedOnesAreUnwoundFromTheOutside() async throws {
    try await runGreen {
      let log = Log()
      do {
        let outer = Generator<Int> { yield in
          defer { log("outer") }
          let inner = Generator<Int> { yield in
            defer { log("inner") }
            for n in 0... { try yield(n) }
          }
          for n in inner { try yield(n) }
        }
        #expect(Array(outer.prefix(3)) == [0, 1, 2])
      }
      #expect(log.lines.sorted() == ["inner", "outer"])
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func elementsAreReleasedOnce() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      for _ in 0..<3 {
        let generator = Generator<Tracked> { yield in
          for _ in 0..<10 { try yield(Tracked(counter)) }
        }
        for (index, element) in generator.enumerated() {
          #expect(element.counter.live >= 1)
          if index == 5 { break }
        }
      }
      #expect(counter.all == 18)
      #expect(counter.live == 0)
    }
  }

  @Test func anErrorInTheBodyEndsIt() async throws {
    try await runGreen {
      func failing() -> Generator<Int> {
        Generator { yield in
          try yield(1)
          throw OneError(text: "body")
        }
      }
      let generator = failing()
      var seen: [Int] = []
      for n in generator { seen.append(n) }
      #expect(seen == [1])
      #expect(generator.error as? OneError == OneError("body"))
      #expect(generator.next() == nil)

      let throwing = failing()
      try #expect(throwing.nextOrThrow() == 1)
      #expect(throws: OneError("body")) { try throwing.nextOrThrow() }
      try #expect(throwing.nextOrThrow() == nil)
    }
  }

  @Test func anErrorOfTheLoopReachesTheBodyAsAnExit() async throws {
    try await runGreen {
      let log = Log()
      #expect(throws: OneError("loop")) {
        for n in count(to: 10, log: log) where n == 2 { throw OneError(text: "loop") }
      }
      #expect(log.lines == ["ended"])
    }
  }

  // MARK: With the hub

  @Test func theBodyMaySleep() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let other = spawn {
        for _ in 0..<3 {
          try sleep(for: .seconds(2))
          log("other at \(clock.elapsed)")
        }
      }
      let generator = Generator<Int> { yield in
        for n in 0..<2 {
          try sleep(for: .seconds(3))
          try yield(n)
        }
      }
      for n in generator { log("\(n) at \(clock.elapsed)") }
      try other.join()
      #expect(
        log.lines == [
          "other at 2.0 seconds", "0 at 3.0 seconds", "other at 4.0 seconds",
          "1 at 6.0 seconds", "other at 6.0 seconds",
        ]
          || log.lines == [
            "other at 2.0 seconds", "0 at 3.0 seconds", "other at 4.0 seconds",
            "other at 6.0 seconds", "1 at 6.0 seconds",
          ])
    }
  }

  @Test func theBodyBlocksOnBehalfOfItsConsumer() async throws {
    try await runGreen {
      let gate = Gate()
      let names = Box<[String]>([])
      let greenlet = spawn {
        let generator = Generator<String> { yield in
          try gate.wait()
          try yield(Greenlet.current.name)
        }
        for name in generator { names.value.append(name) }
      }
      greenlet.name = "consumer"
      try idle()
      #expect(gate.count == 1)
      #expect(!greenlet.isReady)
      #expect(Hub.current.report().contains("waits for the gate"))
      gate.open()
      try #expect(greenlet.join())
      #expect(names.value == ["consumer"])
    }
  }

  @Test func itIsConsumedInAnotherGreenletThanItWasMade() async throws {
    try await runGreen {
      let owners = Log()
      let made = Box<Generator<Int>?>(nil)
      let maker = spawn {
        made.value = Generator { yield in
          for n in 0..<4 {
            owners(Greenlet.current.name)
            try Greenlet.yield()
            try yield(n)
          }
        }
      }
      try maker.get()
      let first = spawn { [made.value!.next(), made.value!.next()] }
      first.name = "first"
      try #expect(first.get() == [0, 1])
      let second = spawn { Array(made.value!) }
      second.name = "second"
      try #expect(second.get() == [2, 3])
      #expect(owners.lines == ["first", "first", "second", "second"])
    }
  }

  @Test func twoGreenletsTakeTurns() async throws {
    try await runGreen {
      let generator = count(to: 10)
      let taken = (0..<2).map { _ in
        spawn {
          var mine: [Int] = []
          while let n = generator.next() {
            mine.append(n)
            try Greenlet.yield()
          }
          return mine
        }
      }
      try #expect(taken[0].get() == [0, 2, 4, 6, 8])
      try #expect(taken[1].get() == [1, 3, 5, 7, 9])
    }
  }

  @Test func oneDroppedInAnotherGreenletIsUnwoundThere() async throws {
    try await runGreen {
      let log = Log()
      let held = Box<Generator<Int>?>(nil)
      try spawn {
        held.value = Generator { yield in
          defer { log("ended in \(Greenlet.current.name)") }
          for n in 0... { try yield(n) }
        }
        #expect(held.value!.next() == 0)
      }.get()
      let dropper = spawn { held.value = nil }
      dropper.name = "dropper"
      try dropper.get()
      #expect(log.lines == ["ended in dropper"])
    }
  }

  @Test func aKillReachesABodyThatSleeps() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let greenlet = spawn {
        let generator = Generator<Int> { yield in
          defer { log("body") }
          try yield(1)
          try sleep(for: .seconds(1000))
          try yield(2)
        }
        defer { log("consumer") }
        while let n = try generator.nextOrThrow() { log("\(n)") }
        log("went on")
      }
      try sleep(for: .seconds(1))
      try #expect(greenlet.kill())
      #expect(log.lines == ["1", "body", "consumer"])
      #expect(greenlet.error is GreenletExit)
      #expect(greenlet.isSuccessful)
      #expect(clock.elapsed == .seconds(1))
      #expect(InUse().stacks <= 1)
    }
  }

  @Test func aKillDuringAForLoopEndsTheConsumerAtItsNextSwitch() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let greenlet = spawn {
        let generator = Generator<Int> { yield in
          defer { log("body") }
          try yield(1)
          try sleep(for: .seconds(1000))
          try yield(2)
        }
        defer { log("consumer") }
        for n in generator { log("\(n)") }
        #expect(generator.error is GreenletExit)
        try sleep(for: .seconds(1000))
        log("went on")
      }
      try sleep(for: .seconds(1))
      try #expect(greenlet.kill())
      #expect(log.lines == ["1", "body", "consumer"])
      #expect(greenlet.error is GreenletExit)
      #expect(clock.elapsed == .seconds(1))
    }
  }

  @Test func anErrorOfTheBodysOwnIsLeftAloneAfterOneOfTheSameType() async throws {
    try await runGreenInVirtualTime { _ in
      let worker = spawn { try sleep(for: .seconds(1000)) }
      let generator = Generator<Int> { yield in
        try? withTimeout(.seconds(1)) { try sleep(for: .seconds(1000)) }
        try yield(1)
        try worker.get(timeout: .seconds(1))
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try sleep(for: .seconds(1000)) }
      }
      for n in generator { #expect(n == 1) }
      #expect(generator.error is Timeout)
      try Greenlet.yield()
      try sleep(for: .seconds(1))
      try worker.kill()
    }
  }

  @Test func aKillThatTheBodySwallowedIsOver() async throws {
    try await runGreen {
      let ended = spawn { try sleep(for: .seconds(1000)) }
      try Greenlet.yield()
      try ended.kill()
      let greenlet = spawn {
        let generator = Generator<Int> { yield in
          do { try sleep(for: .seconds(1000)) } catch is GreenletExit {}
          try yield(1)
          try ended.get()  // throws the exit of another one
        }
        for n in generator { #expect(n == 1) }
        #expect(generator.error is GreenletExit)
        try Greenlet.yield()
        return "lived"
      }
      try Greenlet.yield()
      try greenlet.kill()
      #expect(greenlet.value == "lived")
    }
  }

  @Test(arguments: [true, false])
  func aTimeoutThatWasPostponedCanBeTakenBack(_ isCancelled: Bool) async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { _, _ in }
      for error in [nil, OneError()] {
        let victim = spawn {
          let timeout = Timeout.start(after: .seconds(1), throwing: error)
          let generator = Generator<Int> { _ in try sleep(for: .seconds(1000)) }
          #expect(generator.next() == nil)
          if isCancelled { timeout.cancel() }
          try sleep(for: .seconds(1))
        }
        try victim.join()
        if isCancelled {
          #expect(victim.isSuccessful)
        } else {
          #expect(error == nil ? victim.error is Timeout : victim.error is OneError)
        }
      }
    }
  }

  @Test func aTimeoutInABodyMayOutliveWhoStartedIt() async throws {
    try await runGreenInVirtualTime { clock in
      let generator = Generator<Int> { yield in
        try withTimeout(.seconds(5)) {
          try yield(1)
          try yield(2)
        }
        try yield(3)
      }
      weak var first: AnyGreenlet?
      do {
        let asker = spawn { #expect(generator.next() == 1) }
        first = asker
        try asker.join()
      }
      try sleep(for: .seconds(10))
      #expect(clock.elapsed == .seconds(10))
      try spawn { #expect(generator.next() == 2) }.join()
      #expect(generator.next() == 3)
      #expect(first == nil, "the block held it")
    }
  }

  @Test func aTimeoutInABodyMayOutliveItsHub() throws {
    let log = Smuggled(Log())
    try onThread {
      var generator: Generator<Int>?
      Hub.withHub { _ in
        generator = Generator<Int> { yield in
          defer { log.value("unwound") }
          try withTimeout(.seconds(5)) { try yield(1) }
        }
        let consumer = generator!
        spawn { #expect(consumer.next() == 1) }
        try? Greenlet.yield()
      }
      #expect(log.value.lines.isEmpty)
      generator = nil
      #expect(log.value.lines == ["unwound"])
    }
  }

  @Test func theTimeoutOfABlockEndsALoopAndThenTheBlock() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let generator = Generator<Int> { yield in
        try yield(1)
        try sleep(for: .seconds(1000))
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(2)) {
          for n in generator { log("\(n)") }
          log("after the loop")
          try sleep(for: .seconds(1000))
          log("went on")
        }
      }
      #expect(log.lines == ["1", "after the loop"])
      #expect(clock.elapsed == .seconds(2))
      try sleep(for: .seconds(1))  // nothing is left of it
    }
  }

  @Test func anErrorOfTheBodyItselfDoesNotReachTheConsumerLater() async throws {
    try await runGreenInVirtualTime { _ in
      let generator = Generator<Int> { yield in
        try yield(1)
        try withTimeout(.seconds(1)) { try sleep(for: .seconds(1000)) }
      }
      #expect(Array(generator) == [1])
      #expect(generator.error is Timeout)
      try sleep(for: .seconds(1))
    }
  }

  @Test func aSecondGreenletIsRefusedWhileTheBodyBlocksForTheFirst() async throws {
    try await runGreenInVirtualTime { _ in
      let generator = Generator<Int> { yield in
        try sleep(for: .seconds(1))
        try yield(1)
      }
      let first = spawn { try generator.nextOrThrow() }
      try Greenlet.yield()
      #expect(throws: SwitchError.self) { try generator.nextOrThrow() }
      try #expect(first.get() == 1)
    }
  }

  @Test func theTimeoutOfABlockReachesTheBodyAndTheBlock() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let generator = Generator<Int> { yield in
        defer { log("body") }
        try yield(1)
        try sleep(for: .seconds(1000))
        try yield(2)
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(5)) { while let n = try generator.nextOrThrow() { log("\(n)") } }
      }
      #expect(log.lines == ["1", "body"])
      #expect(clock.elapsed == .seconds(5))
    }
  }
}
