// Evergreen: mutual exclusion among greenlets.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// Lets one greenlet at a time into a piece of code that has switch points.
///
/// ```swift
/// let lock = Lock()
/// try lock.withLock { try connection.exchange(request) }
/// ```
///
/// Fair: who has waited longest is next. It belongs to the greenlet that acquired it, and to the hub on
/// which it was made. What has no switch point in it needs no lock: nobody else runs meanwhile.
///
/// > gevent: `gevent.lock.BoundedSemaphore(1)`.
public final class Lock: WaitListOwner {
  private let hub = Hub.current
  package var waiters = WaitList()

  /// Who has it.
  public private(set) var owner: AnyGreenlet?

  public init() {}

  /// Whether somebody has it.
  public var isLocked: Bool { owner != nil }

  /// Takes it if it is free.
  ///
  /// > Switch point: No.
  public func tryAcquire() -> Bool {
    hub.checkIsCurrent("a Lock")
    guard owner == nil else { return false }
    owner = Greenlet.current
    return true
  }

  /// Waits until it is free and takes it.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever. With `.zero` the others get a turn if
  ///   it is not free, so that who tries again and again does not keep the owner from releasing it.
  /// - Returns: Whether the caller has it now.
  /// - Throws: What is thrown into the caller while it waits; then it has not got it.
  /// - Precondition: The caller does not have it already; an ``RLock`` allows that.
  ///
  /// > Switch point: Yes, unless it is free.
  ///
  /// > gevent: `acquire(blocking=True, timeout=None)`, which also lets others run when it only looks.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func acquire(timeout: Duration? = nil) throws -> Bool {
    if tryAcquire() { return true }
    let me = Greenlet.current
    require(owner !== me, "\(me) waits for a Lock that it has itself; an RLock allows that")
    if let timeout, timeout <= .zero {
      try Greenlet.yield()
      return tryAcquire()
    }
    // Who releases it makes the waiter its owner.
    return try hub.wait(WaitReason("a Lock"), until: Deadline(after: timeout, on: hub), in: self)
  }

  /// Takes it, whatever is thrown into the caller meanwhile: that is thrown at its next switch point.
  func acquireUninterruptibly(as me: AnyGreenlet) {
    if tryAcquire() { return }
    hub.stayFirmly(WaitReason("a Lock"), in: self)
  }

  /// Gives it to the one that has waited longest, or frees it.
  ///
  /// - Precondition: The caller has it.
  ///
  /// > Switch point: No.
  public func release() {
    hub.checkIsCurrent("a Lock")
    let me = Greenlet.current
    require(
      owner === me, "\(me) releases a Lock that \(owner.map { "\($0) has" } ?? "nobody has")")
    // It is handed over, so nobody overtakes the one that is woken.
    owner = waiters.first?.pointee.greenlet
    waiters.signalFirst()
  }

  /// Runs `body` while no other greenlet has the lock, and gives it back however `body` ends.
  ///
  /// > Switch point: Yes, unless it is free.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withLock<R>(_ body: () throws -> R) throws -> R {
    try acquire()
    defer { release() }
    return try body()
  }
}
