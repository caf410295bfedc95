// Evergreen: a result that comes later.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// A value or an error that somebody sets once, and others wait for.
///
/// ```swift
/// let answer = AsyncResult<Int>()
/// spawn { answer.set(try compute()) }
/// let value = try answer.get(timeout: .seconds(2))
/// ```
///
/// Belongs to the hub on which it was made; ``completer`` completes it from other threads.
///
/// > gevent: `gevent.event.AsyncResult`.
public final class AsyncResult<Value>: WaitListOwner {
  let hub = Hub.current
  package var waiters = WaitList()
  /// The ``Completer`` that somebody holds.
  weak var livingCompleter: AnyObject?

  /// What has been set; `nil` if nothing has.
  public private(set) var result: Result<Value, any Error>?

  public init() {}

  /// Whether something has been set.
  ///
  /// > gevent: `AsyncResult.ready()`.
  public var isReady: Bool { result != nil }

  /// Whether a value has been set, and not an error.
  ///
  /// > gevent: `AsyncResult.successful()`.
  public var isSuccessful: Bool { value != nil }

  /// The value, if one has been set.
  public var value: Value? { try? result?.get() }

  /// The error, if one has been set.
  ///
  /// > gevent: `AsyncResult.exception`.
  public var error: (any Error)? {
    if case .failure(let error) = result { error } else { nil }
  }

  /// Sets the value and wakes all who wait, in the order in which they came.
  ///
  /// - Precondition: Nothing has been set yet; ``trySet(_:)`` asks.
  ///
  /// > Switch point: No. The waiters run when their turn comes.
  public func set(_ value: Value) { set(.success(value)) }

  /// Sets an error, which ``get(timeout:)`` throws; else as ``set(_:)``.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `AsyncResult.set_exception(error)`.
  public func set(throwing error: any Error) { set(.failure(error)) }

  /// Sets a value or an error; else as ``set(_:)``.
  ///
  /// > Switch point: No.
  public func set(_ result: Result<Value, any Error>) {
    require(
      trySet(result),
      "an AsyncResult was set twice; it keeps one result, so make one for each or use trySet")
  }

  /// Sets a value or an error if nothing has been set yet.
  ///
  /// - Returns: Whether it was the first.
  ///
  /// > Switch point: No.
  @discardableResult
  public func trySet(_ result: Result<Value, any Error>) -> Bool {
    hub.checkIsCurrent("an AsyncResult")
    guard self.result == nil else { return false }
    self.result = result
    waiters.signalAll()
    return true
  }

  /// Waits for the value.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: The value.
  /// - Throws: The error that was set; a ``Timeout`` if nothing came in time; what is thrown into the
  ///   caller while it waits.
  ///
  /// > Switch point: Yes, unless something has been set.
  ///
  /// > gevent: `AsyncResult.get(block=True, timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get(timeout: Duration? = nil) throws -> Value {
    guard try wait(timeout: timeout), let result else { throw Timeout(of: timeout) }
    return try result.get()
  }

  /// Waits until something has been set, whatever it is.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether something has been set; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits; never the error that was set.
  ///
  /// > Switch point: Yes, unless something has been set.
  ///
  /// > gevent: `AsyncResult.wait(timeout=None)`, which returns the value or `None`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func wait(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("an AsyncResult")
    if result != nil { return true }
    return try hub.wait(
      WaitReason("an AsyncResult"), until: Deadline(after: timeout, on: hub), in: self)
  }
}

extension AsyncResult where Value == Void {
  /// Wakes all who wait; else as ``set(_:)``.
  ///
  /// > Switch point: No.
  public func set() { set(()) }
}
