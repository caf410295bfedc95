// Evergreen: tests of runs that a seed decides.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A bug: reads, gives the others a turn, and writes what it has read.
private final class Account {
  private(set) var total = 0

  func deposit(_ amount: Int) throws {
    let before = total
    if amount == 3 { try Greenlet.yield() }
    total = before + amount
  }
}

private struct MoneyIsLost: Error {}

/// Shows the bug in few orders only.
@Sendable private func deposits(_ simulation: Simulation) throws {
  let account = Account()
  let workers = (1...5).map { amount in
    spawn {
      for _ in 1..<amount { try Greenlet.yield() }
      try account.deposit(amount)
    }
  }
  try joinAll(workers, raisingErrors: true)
  if account.total != 15 { throw MoneyIsLost() }
}

/// In which order greenlets run that yield, sleep and hand on permits.
@Sendable private func trace(_ simulation: Simulation) throws -> [Int] {
  var order: [Int] = []
  let semaphore = Semaphore(value: 1)
  let workers = (0..<6).map { number in
    spawn {
      for step in 0..<4 {
        order.append(number)
        if step == 1 { try sleep(for: .seconds(1)) } else { try Greenlet.yield() }
        try semaphore.withPermit { try Greenlet.yield() }
        order.append(simulation.random.next(below: 100))
      }
    }
  }
  try joinAll(workers, raisingErrors: true)
  return order
}

@Suite(.timeLimit(.minutes(3))) struct SimulationTests {
  @Test func theSameSeedIsTheSameRun() async throws {
    for seed in [1, 2, 0, .max] as [UInt64] {
      let one = try await simulate(seed: seed, trace)
      let other = try await simulate(seed: seed, trace)
      #expect(one == other)
    }
  }

  @Test func otherSeedsAreOtherRuns() async throws {
    var seen: Set<[Int]> = []
    for seed in 1...50 as ClosedRange<UInt64> { seen.insert(try await simulate(seed: seed, trace)) }
    #expect(seen.count == 50)
  }

  @Test func aSeedIsTheSameRunInEachProcess() async throws {
    let sum = try await Self.checksum(of: simulate(seed: 99, trace))
    setenv("EVERGREEN_TEST_CHECKSUM", "\(sum)", 1)
    await #expect(processExitsWith: .success) {
      let sum = try await Self.checksum(of: simulate(seed: 99, trace))
      let expected = String(cString: getenv("EVERGREEN_TEST_CHECKSUM")!)
      guard "\(sum)" == expected else { exit(3) }
    }
  }

  private static func checksum(of numbers: [Int]) -> Int {
    numbers.reduce(0) { ($0 &* 31) &+ $1 }
  }

  @Test func everyOrderOfThreeComesAbout() async throws {
    var orders: Set<[Int]> = []
    for seed in 1...100 as ClosedRange<UInt64> {
      orders.insert(
        try await simulate(seed: seed) { _ in
          var order: [Int] = []
          try joinAll((0..<3).map { number in spawn { order.append(number) } })
          return order
        })
    }
    #expect(orders.count == 6)
  }

  @Test func everyOrderOfTimersThatAreDueTogetherComesAbout() async throws {
    var orders: Set<[Int]> = []
    for seed in 1...100 as ClosedRange<UInt64> {
      orders.insert(
        try await simulate(seed: seed) { simulation in
          var order: [Int] = []
          let sleepers = (0..<3).map { number in
            spawn {
              try sleep(for: .seconds(1))
              order.append(number)
            }
          }
          try joinAll(sleepers)
          #expect(simulation.clock.elapsed == .seconds(1))
          return order
        })
    }
    #expect(orders.count == 6)
  }

  @Test func everyOrderOfSocketsThatAreReadyTogetherComesAbout() async throws {
    var orders: Set<[Int]> = []
    for seed in 1...100 as ClosedRange<UInt64> {
      orders.insert(
        try await simulate(seed: seed) { _ in
          var order: [Int] = []
          let pairs = try (0..<3).map { _ in try Socket.pair() }
          let receivers = pairs.enumerated().map { number, pair in
            spawn {
              _ = try pair.0.receive(upTo: 1)
              order.append(number)
            }
          }
          try waitUntilBlocked()
          for pair in pairs { try pair.1.sendAll("x") }
          try joinAll(receivers, raisingErrors: true)
          for pair in pairs {
            pair.0.close()
            pair.1.close()
          }
          return order
        })
    }
    #expect(orders.count == 6)
  }

  @Test func whatSelectDrawsFollowsFromTheSeed() async throws {
    @Sendable func draws(_ simulation: Simulation) throws -> [Int] {
      let queues = (0..<3).map { _ in Queue<Int>() }
      for (number, queue) in queues.enumerated() { for _ in 0..<20 { try queue.put(number) } }
      return try (0..<20).map { _ in try select(queues.map { .get(from: $0) { $0 } }) }
    }
    let one = try await simulate(seed: 1, draws)
    #expect(try await simulate(seed: 1, draws) == one)
    #expect(try await simulate(seed: 2, draws) != one)
    #expect(Set(one) == [0, 1, 2])
  }

  @Test func withoutASeedFirstComeIsFirstServed() async throws {
    let order = try await runGreenInVirtualTime { _ in
      var order: [Int] = []
      try joinAll((0..<50).map { number in spawn { order.append(number) } })
      return order
    }
    #expect(order == Array(0..<50))
  }

  @Test func realTimeHasSeedsToo() async throws {
    var orders: Set<[Int]> = []
    for seed in 1...30 as ClosedRange<UInt64> {
      orders.insert(
        try await runGreen(seed: seed) {
          var order: [Int] = []
          try joinAll((0..<3).map { number in spawn { order.append(number) } })
          return order
        })
    }
    #expect(orders.count > 3)
  }

  @Test func nobodyStarves() async throws {
    try await forSeeds(20) { _ in
      var runs = [Int](repeating: 0, count: 10)
      var isOver = false
      let workers = runs.indices.map { number in
        spawn {
          while !isOver {
            runs[number] += 1
            try Greenlet.yield()
          }
        }
      }
      for _ in 0..<500 { try Greenlet.yield() }
      isOver = true
      try joinAll(workers)
      #expect(runs.allSatisfy { $0 > 100 })
    }
  }

  @Test func permitsStillGoToThoseWhoWaitedLongest() async throws {
    try await forSeeds(50) { _ in
      let semaphore = Semaphore(value: 0)
      var came: [Int] = []
      var served: [Int] = []
      let waiters = (0..<5).map { number in
        spawn {
          came.append(number)
          try semaphore.acquire()
          served.append(number)
        }
      }
      try waitUntilBlocked()
      for _ in 0..<5 {
        semaphore.release()
        try waitUntilBlocked()
      }
      try joinAll(waiters)
      #expect(served == came)
    }
  }

  // MARK: Failing seeds

  @Test func aRaceIsFoundAndItsSeedFindsItAgain() async throws {
    let failure = try #require(
      await #expect(throws: SeedFailure.self) { try await forSeeds(500, deposits) })
    #expect(failure.error is MoneyIsLost)
    #expect(failure.description.contains("EVERGREEN_SEED=\(failure.seed) "))
    for _ in 0..<3 {
      await #expect(throws: MoneyIsLost.self) {
        try await simulate(seed: failure.seed, deposits)
      }
    }
    for seed in 1..<failure.seed { try await simulate(seed: seed, deposits) }
  }

  private static let named = Guarded(0)

  @Test(
    .filterIssues { issue in
      guard issue.comments.contains(where: { $0.rawValue.contains("EVERGREEN_SEED=4 ") }) else {
        return true
      }
      named.withLock { $0 += 1 }
      return false
    })
  func anExpectationThatFailsNamesItsSeed() async throws {
    let runs = Guarded<[UInt64]>([])
    try await forSeeds(10) { simulation in
      runs.withLock { $0.append(simulation.seed) }
      #expect(simulation.seed < 4)
    }
    #expect(Self.named.withLock { $0 } == 1)
    #expect(runs.withLock { $0 } == [1, 2, 3, 4])  // and none after it
  }

  @Test func theEnvironmentChoosesTheSeed() async throws {
    await #expect(processExitsWith: .success) {
      setenv("EVERGREEN_SEED", "0x11", 1)
      try await forSeeds(3) { if $0.seed != 17 { exit(3) } }
      unsetenv("EVERGREEN_SEED")
      setenv("EVERGREEN_SEEDS", "7", 1)
      do {
        try await forSeeds(3) { if $0.seed == 7 { throw MoneyIsLost() } }
        exit(4)
      } catch let failure as SeedFailure {
        if failure.seed != 7 { exit(5) }
      }
    }
  }

  @Test func whatIsLeftBehindFailsItsSeed() async throws {
    let failure = try #require(
      await #expect(throws: SeedFailure.self) {
        try await forSeeds(3) { _ in
          _ = Timeout.start(after: .seconds(3600))
        }
      })
    #expect(failure.error is LeakReport && failure.seed == 1)
  }

  @Test func randomNumbersFollowFromTheSeed() {
    var random = SeededRandom(seed: 1_234_567)
    // What the authors of SplitMix64 give.
    #expect(random.next() == 6_457_827_717_110_365_317)
    #expect(random.next() == 3_203_168_211_198_807_973)
    var seen: Set<Int> = []
    for _ in 0..<200 { seen.insert(random.next(below: 7)) }
    #expect(seen == Set(0..<7))
    for _ in 0..<200 {
      #expect(
        (.seconds(1) ... .seconds(2)).contains(random.duration(in: .seconds(1) ... .seconds(2))))
    }
    #expect(!random.chance(0) && random.chance(1))
  }
}
