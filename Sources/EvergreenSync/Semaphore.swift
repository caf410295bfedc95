// Evergreen: a number of permits.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// Permits, of which so many greenlets can hold one at a time.
///
/// Fair: permits go to those who have waited longest; a greenlet that releases and acquires again
/// does not overtake them.
///
/// Belongs to the hub on which it was made.
///
/// > gevent: `gevent.lock.Semaphore`.
public class Semaphore: WaitListOwner {
  private let hub = Hub.current
  package final var waiters = WaitList()

  /// Permits that are free.
  public final private(set) var value: Int

  /// - Parameter value: How many permits there are; not negative.
  public init(value: Int = 1) {
    require(value >= 0, "a semaphore cannot have \(value) permits")
    self.value = value
  }

  /// Whether no permit is free.
  public final var isLocked: Bool { value == 0 }

  /// Takes a permit if one is free.
  ///
  /// > Switch point: No.
  public final func tryAcquire() -> Bool {
    guard value > 0 else { return false }
    value -= 1
    return true
  }

  /// Waits for a permit and takes it.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether it has got a permit.
  /// - Throws: What is thrown into the caller while it waits; then it has got none.
  ///
  /// > Switch point: Yes, unless a permit is free.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func acquire(timeout: Duration? = nil) throws -> Bool {
    if tryAcquire() { return true }
    // A release hands its permit to the node, so the value stays as it is.
    return try hub.wait(WaitReason("a permit"), until: Deadline(after: timeout, on: hub), in: self)
  }

  /// Gives permits back, or adds new ones.
  ///
  /// - Parameter count: How many; not negative.
  ///
  /// > Switch point: No.
  public func release(_ count: Int = 1) {
    hub.checkIsCurrent()
    require(count >= 0, "cannot release \(count) permits")
    var rest = count
    while rest > 0, waiters.signalFirst() { rest -= 1 }
    value += rest
  }

  /// Runs `body` with a permit and gives it back, however `body` ends.
  ///
  /// > Switch point: Yes, unless a permit is free.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func withPermit<R>(_ body: () throws -> R) throws -> R {
    try acquire()
    defer { release() }
    return try body()
  }
}

/// A semaphore that never has more permits than in the beginning.
///
/// > gevent: `gevent.lock.BoundedSemaphore`.
public final class BoundedSemaphore: Semaphore {
  private let bound: Int

  public override init(value: Int = 1) {
    bound = value
    super.init(value: value)
  }

  /// Gives permits back.
  ///
  /// - Precondition: They have been acquired.
  public override func release(_ count: Int = 1) {
    require(
      count <= bound - value, "released \(count) of \(bound) permits, of which \(value) are free")
    super.release(count)
  }
}
