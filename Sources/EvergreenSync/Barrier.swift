// Evergreen: a place where greenlets wait for each other.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// Lets greenlets pass when as many have come as belong together; then the next round begins.
///
/// If one of those who wait is killed or runs out of time, the barrier breaks: the others could wait for
/// ever, so they get ``BrokenBarrier``, and so does everybody until ``reset()``.
///
/// Belongs to the hub on which it was made.
///
/// > gevent: `threading.Barrier` of patched code; gevent has none of its own.
public final class Barrier: WaitListOwner {
  private let hub = Hub.current
  package var waiters = WaitList()
  private var round = Round()

  private final class Round { var isBroken = false }

  /// How many belong together.
  public let parties: Int
  /// How many of them wait now.
  public private(set) var count = 0

  /// - Parameter parties: How many belong together, 1 or more.
  public init(parties: Int) {
    require(parties > 0, "a barrier cannot have \(parties) parties")
    self.parties = parties
  }

  /// Whether somebody has given up, or ``abort()`` was called.
  public var isBroken: Bool { round.isBroken }

  /// Waits until all have come.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever.
  /// - Returns: How many were still missing when the caller came: 0 for the last one, different for each.
  /// - Throws: ``BrokenBarrier``; a ``Timeout`` if `timeout` ran out, which breaks the barrier, as does
  ///   what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless it is the last one.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func wait(timeout: Duration? = nil) throws -> Int {
    hub.checkIsCurrent("a Barrier")
    try hub.checkForDueError()
    let round = round
    if round.isBroken { throw BrokenBarrier() }
    count += 1
    let missing = parties - count
    if missing == 0 {
      begin()
      return 0
    }
    do {
      guard
        try hub.wait(WaitReason("a Barrier"), until: Deadline(after: timeout, on: hub), in: self)
      else { throw Timeout(of: timeout) }
    } catch {
      breakUp(round)
      throw error
    }
    if round.isBroken { throw BrokenBarrier() }
    return missing
  }

  /// Breaks it: those who wait, and those who come, get ``BrokenBarrier``.
  ///
  /// > Switch point: No.
  public func abort() {
    hub.checkIsCurrent("a Barrier")
    breakUp(round)
  }

  /// Begins anew. Those who wait get ``BrokenBarrier``.
  ///
  /// > Switch point: No.
  public func reset() {
    hub.checkIsCurrent("a Barrier")
    if count > 0 { breakUp(round) }
    round = Round()
  }

  private func begin() {
    count = 0
    round = Round()
    waiters.signalAll()
  }

  /// Not one that has been passed already, by whoever is late to notice.
  private func breakUp(_ round: Round) {
    guard round === self.round else { return }
    round.isBroken = true
    count = 0
    waiters.signalAll()
  }
}

/// Somebody for whom the others wait at a ``Barrier`` will not come.
public struct BrokenBarrier: Error, CustomStringConvertible {
  public init() {}

  public var description: String {
    "the barrier is broken: one of those who belong together has given up"
  }
}
