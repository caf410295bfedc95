// Evergreen: random numbers that are the same in each run.
// SPDX-License-Identifier: MIT

/// Random numbers that follow from a seed alone: the same in each process, on each machine.
///
/// ```swift
/// var random = SeededRandom(seed: 17)
/// let die = Int.random(in: 1...6, using: &random)
/// ```
///
/// For tests only: whoever sees one number knows the next.
public struct SeededRandom: RandomNumberGenerator, Sendable {
  // SplitMix64. Each seed is good, small and neighbouring ones too, since all bits are mixed.
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
    return bits ^ (bits >> 31)
  }

  /// One of the numbers from 0 on.
  ///
  /// - Parameter count: How many numbers there are, 1 or more.
  /// - Returns: 0 or more, less than `count`.
  public mutating func next(below count: Int) -> Int {
    Int(next().multipliedFullWidth(by: UInt64(count)).high)
  }

  /// True once in so many times.
  ///
  /// - Parameter times: 1 or more; 1 is always.
  /// - Returns: Whether this is one of them.
  public mutating func oneIn(_ times: Int) -> Bool { next(below: times) == 0 }

  /// True with a probability.
  ///
  /// - Parameter probability: 0 is never, 1 is always.
  /// - Returns: Whether it has happened.
  public mutating func chance(_ probability: Double) -> Bool {
    Double(next() >> 11) * 0x1p-53 < probability
  }

  /// A time between two, both included, to the nanosecond.
  public mutating func duration(in range: ClosedRange<Duration>) -> Duration {
    let span = (range.upperBound - range.lowerBound) / .nanoseconds(1)
    return range.lowerBound + .nanoseconds(next(below: Int(span) + 1))
  }

  /// Other random numbers, which follow from these.
  public mutating func split() -> SeededRandom { SeededRandom(seed: next()) }
}
