// Evergreen: waiting under a lock for something to become true.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// Where greenlets wait for a change of what a ``Lock`` guards.
///
/// ```swift
/// try condition.withLock {
///   try condition.wait(until: { !jobs.isEmpty })
///   return jobs.removeFirst()
/// }
/// ```
///
/// Belongs to the hub on which it was made.
///
/// > gevent: `threading.Condition` of patched code; gevent has none of its own.
public final class Condition: WaitListOwner {
  private let hub = Hub.current
  package var waiters = WaitList()

  /// What guards it; several conditions may share one.
  public let lock: Lock

  public init(_ lock: Lock = Lock()) { self.lock = lock }

  /// Gives the lock back, waits to be notified, and takes the lock again.
  ///
  /// It takes the lock again also where it throws, so that what follows, a `defer` for instance, may rely
  /// on it: that part of the wait can be neither killed nor timed out.
  ///
  /// - Parameter timeout: The longest wait to be notified; `nil` waits for ever.
  /// - Returns: Whether it was notified; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  /// - Precondition: The caller has the lock.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func wait(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("a Condition")
    let me = Greenlet.current
    require(lock.owner === me, "\(me) waits for a Condition whose lock it does not have")
    try hub.checkForDueError()
    lock.release()
    defer { lock.acquireUninterruptibly(as: me) }
    return try hub.wait(
      WaitReason("a Condition"), until: Deadline(after: timeout, on: hub), in: self)
  }

  /// Waits, as often as it is notified, until `isTrue` is.
  ///
  /// - Parameters:
  ///   - timeout: The longest wait in all; `nil` waits for ever.
  ///   - isTrue: Looked at with the lock; must not wait.
  /// - Returns: What `isTrue` said last.
  /// - Throws: What is thrown into the caller while it waits; what `isTrue` throws.
  /// - Precondition: The caller has the lock.
  ///
  /// > Switch point: Yes, unless it is true.
  ///
  /// > gevent: `threading.Condition.wait_for(predicate, timeout)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func wait(timeout: Duration? = nil, until isTrue: () throws -> Bool) throws -> Bool {
    hub.checkIsCurrent("a Condition")
    let deadline = Deadline(after: timeout, on: hub)
    while try !isTrue() {
      guard try wait(timeout: deadline.remaining(on: hub)) else { return try isTrue() }
    }
    return true
  }

  /// Wakes those who have waited longest.
  ///
  /// - Parameter count: How many at most; not negative.
  /// - Precondition: The caller has the lock.
  ///
  /// > Switch point: No.
  public func notify(_ count: Int = 1) {
    hub.checkIsCurrent("a Condition")
    require(count >= 0, "cannot notify \(count) greenlets")
    require(
      lock.owner === Greenlet.current, "a Condition is notified by one that does not have its lock")
    var rest = count
    while rest > 0, waiters.signalFirst() { rest -= 1 }
  }

  /// Wakes all who wait; else as ``notify(_:)``.
  ///
  /// > Switch point: No.
  public func notifyAll() { notify(.max) }

  /// Runs `body` with the lock.
  ///
  /// > Switch point: Yes, unless it is free.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withLock<R>(_ body: () throws -> R) throws -> R { try lock.withLock(body) }
}
