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
  @usableFromInline final let hub = Hub.current
  @exclusivity(unchecked) @usableFromInline package final var waiters = WaitList()
  /// Those who wait until a permit is free, and take none.
  @exclusivity(unchecked) final var lookers = WaitList()

  @exclusivity(unchecked) @usableFromInline final var permits: Int

  /// How many there may be.
  private final let bound: Int

  /// - Parameter value: How many permits there are; not negative.
  public convenience init(value: Int = 1) { self.init(value: value, bound: .max) }

  init(value: Int, bound: Int) {
    require(value >= 0, "a semaphore cannot have \(value) permits")
    permits = value
    self.bound = bound
  }

  /// Permits that are free.
  public final var value: Int { permits }

  /// Whether no permit is free.
  public final var isLocked: Bool { permits == 0 }

  /// Takes a permit if one is free.
  ///
  /// - Returns: Whether one was.
  ///
  /// > Switch point: No.
  @inlinable
  public final func tryAcquire() -> Bool {
    hub.checkIsCurrent("a Semaphore")
    guard permits > 0 else { return false }
    permits -= 1
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
  @inlinable
  @discardableResult
  public final func acquire(timeout: Duration? = nil) throws -> Bool {
    if tryAcquire() { return true }
    return try waitAndAcquire(timeout)
  }

  @usableFromInline
  @inline(never)
  final func waitAndAcquire(_ timeout: Duration?) throws -> Bool {
    // A release hands its permit to the node, so the value stays as it is.
    return try hub.wait(WaitReason("a permit"), until: Deadline(after: timeout, on: hub), in: self)
  }

  /// Waits until a permit is free, and does not take it: it may be gone when the caller runs.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether one was free; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless a permit is free.
  ///
  /// > gevent: `Semaphore.wait(timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func wait(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("a Semaphore")
    if permits > 0 { return true }
    return try hub.wait(
      WaitReason("a free permit"), until: Deadline(after: timeout, on: hub),
      enlist: { lookers.append($0) }, delist: { lookers.remove($0) })
  }

  /// Gives permits back, or adds new ones.
  ///
  /// - Parameter count: How many; not negative.
  ///
  /// > Switch point: No.
  public final func release(_ count: Int = 1) {
    hub.checkIsCurrent("a Semaphore")
    require(count >= 0, "cannot release \(count) permits")
    require(
      count <= bound - permits,
      "released \(count) of \(bound) permits, of which \(permits) are free")
    var rest = count
    while rest > 0, waiters.signalFirst() { rest -= 1 }
    permits += rest
    if rest > 0 { lookers.signalAll() }
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

/// A semaphore that never has more permits than in the beginning: to release one that was not acquired
/// ends the program with a sentence.
///
/// > gevent: `gevent.lock.BoundedSemaphore`.
public final class BoundedSemaphore: Semaphore {
  /// - Parameter value: How many permits there are; not negative.
  public init(value: Int = 1) { super.init(value: value, bound: value) }
}
