// Evergreen: mutual exclusion for code that calls itself.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// A ``Lock`` that the greenlet which has it may acquire again; it is free when it has been released as
/// often.
///
/// > gevent: `gevent.lock.RLock`.
public final class RLock {
  private let hub = Hub.current
  private let lock = Lock()

  /// How often its owner has acquired it.
  public private(set) var depth = 0

  public init() {}

  /// Who has it.
  public var owner: AnyGreenlet? { lock.owner }

  /// Whether somebody has it.
  public var isLocked: Bool { lock.isLocked }

  /// Takes it if it is free or the caller has it.
  ///
  /// > Switch point: No.
  public func tryAcquire() -> Bool {
    hub.checkIsCurrent("an RLock")
    guard lock.owner === Greenlet.current || lock.tryAcquire() else { return false }
    depth += 1
    return true
  }

  /// Waits until it is free, unless the caller has it, and takes it.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` gives the others a turn if it
  ///   is not free.
  /// - Returns: Whether the caller has it now.
  /// - Throws: What is thrown into the caller while it waits; then it has not got it.
  ///
  /// > Switch point: Yes, unless it is free or the caller's.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func acquire(timeout: Duration? = nil) throws -> Bool {
    if tryAcquire() { return true }
    guard try lock.acquire(timeout: timeout) else { return false }
    depth = 1
    return true
  }

  /// Gives it back once.
  ///
  /// - Precondition: The caller has it.
  ///
  /// > Switch point: No.
  public func release() {
    hub.checkIsCurrent("an RLock")
    if lock.owner === Greenlet.current {
      depth -= 1
      if depth > 0 { return }
    }
    // If it is not the caller's, this says so.
    lock.release()
  }

  /// Runs `body` while no other greenlet has it.
  ///
  /// > Switch point: Yes, unless it is free or the caller's.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withLock<R>(_ body: () throws -> R) throws -> R {
    try acquire()
    defer { release() }
    return try body()
  }
}
