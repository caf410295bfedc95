// Evergreen: runs that a seed decides.
// SPDX-License-Identifier: MIT
//
// The hub asks whose turn it is before each run (`Hub.choosesNext`), so every order of the ready
// greenlets can come about, also those that first come, first served never shows. Timers that are
// due together fire in an order of the seed, and some of them only after others have run.

import EvergreenBase
import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What a body that ``simulate(seed:_:)`` or ``forSeeds(_:_:)`` runs has at hand.
public final class Simulation {
  /// What decides the run: whose turn it is, what ``random`` gives, what the ``network`` does.
  public let seed: UInt64
  /// The time, which passes when everybody waits for it.
  public let clock: VirtualClock
  /// Random numbers of the seed, for what the test itself does.
  public var random: SeededRandom
  /// A network in memory, without delay and without losses until the test says otherwise.
  public private(set) lazy var network = SimulatedNetwork(seed: seed &+ 2 << 32)

  init(seed: UInt64, clock: VirtualClock) {
    self.seed = seed
    self.clock = clock
    random = SeededRandom(seed: ~seed)
  }
}

/// Runs `body` in virtual time; a seed decides the order in which greenlets run.
///
/// ```swift
/// let total = try await simulate(seed: 17) { simulation in
///   let account = Account()
///   let workers = (1...5).map { amount in spawn { try account.deposit(amount) } }
///   try joinAll(workers, raisingErrors: true)
///   return account.total
/// }
/// ```
///
/// What follows from the code and the seed is the same in each run. What comes from outside of the
/// hub is not: threads, other processes, sockets, and the order of a `Set` or `Dictionary`, which is
/// another one in each process unless `SWIFT_DETERMINISTIC_HASHING` is set.
///
/// Greenlets run in any order here. What Evergreen promises to be in order still is: permits and
/// items go to those who have waited longest, but a greenlet that was woken first may run last, and
/// one that was spawned first may begin last.
///
/// - Parameters:
///   - seed: Any number.
///   - body: The code of the test; it is the thread's main greenlet.
/// - Returns: What `body` returns.
/// - Throws: What `body` throws; ``LeakReport`` if something is left behind.
public func simulate<R: Sendable>(
  seed: UInt64, _ body: @escaping @Sendable (Simulation) throws -> R
) async throws -> R {
  try await runGreenInVirtualTime(seed: seed) { clock in
    try body(Simulation(seed: seed, clock: clock))
  }
}

/// Runs `body` under many seeds, each time in virtual time and in another order, until one fails.
///
/// ```swift
/// @Test func noMoneyIsLost() async throws {
///   try await forSeeds(200) { simulation in
///     let account = Account()
///     let workers = (1...5).map { amount in spawn { try account.deposit(amount) } }
///     try joinAll(workers, raisingErrors: true)
///     #expect(account.total == 15)
///   }
/// }
/// ```
///
/// The failure says which seed it was: `EVERGREEN_SEED=17` in the environment runs that one alone.
/// `EVERGREEN_SEEDS=10000` tries so many instead of `count`. See ``simulate(seed:_:)`` for what a
/// seed decides, and what it cannot.
///
/// - Parameters:
///   - count: How many seeds are tried: 1, 2, 3 and so on, so that each run of the tests tries the
///     same ones.
///   - body: The code of the test. An `#expect` that fails is a failure of its seed.
/// - Throws: ``SeedFailure`` with what `body` threw, or the ``LeakReport``.
public func forSeeds(
  _ count: Int = 100, _ body: @escaping @Sendable (Simulation) throws -> Void
) async throws {
  let seeds = SeedRange(count)
  let current = Guarded(seeds.first)
  let reminder = Task {
    var last: UInt64?
    while (try? await Task.sleep(for: .seconds(20))) != nil {
      let now = current.withLock { $0 }
      if now == last { warn("\(seeds.advice(for: now)); it has been running for 20 s or more") }
      last = now
    }
  }
  defer { reminder.cancel() }
  var seed = seeds.first
  while seed <= seeds.last {
    let now = seed
    current.withLock { $0 = now }
    let isGood = try await notingIssues("\(seeds.advice(for: seed))") {
      do { try await simulate(seed: now, body) } catch {
        throw SeedFailure(seed: now, error: error, advice: seeds.advice(for: now))
      }
    }
    if !isGood || seed == .max { return }
    seed += 1
  }
}

/// A run that failed, and the seed that makes it fail again.
public struct SeedFailure: Error, CustomStringConvertible {
  public let seed: UInt64
  /// What was thrown.
  public let error: any Error
  let advice: String

  public var description: String { "\(advice): \(error)" }
}

/// The seeds to try.
struct SeedRange {
  let first: UInt64
  let last: UInt64

  init(_ count: Int) {
    if let only = number(of: "EVERGREEN_SEED") {
      (first, last) = (only, only)
    } else {
      (first, last) = (1, number(of: "EVERGREEN_SEEDS") ?? UInt64(max(0, count)))
    }
  }

  func advice(for seed: UInt64) -> String {
    "seed \(seed) of \(first)...\(last), EVERGREEN_SEED=\(seed) runs it alone"
  }
}

/// What a variable of the environment says, decimal or with `0x`.
private func number(of variable: String) -> UInt64? {
  guard let value = getenv(variable) else { return nil }
  let text = String(cString: value)
  let number =
    text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  if number == nil { fatal("\(variable) is \"\(text)\", which is no number") }
  return number
}
