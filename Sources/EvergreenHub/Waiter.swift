// Evergreen: one answer, delivered to one greenlet.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// A meeting of one greenlet that waits and somebody, often a callback of the loop, who delivers: what
/// blocking calls of one's own are made of.
///
/// ```swift
/// func exchange(_ request: Request) throws -> Reply {
///   let waiter = Waiter<Reply>()
///   driver.send(request) { waiter.resume(returning: $0) }
///   return try waiter.get(timeout: .seconds(5))
/// }
/// ```
///
/// It is delivered to once, before or after the greenlet waits, and keeps what it got: each later
/// ``get(timeout:)`` answers at once. Belongs to the hub on which it was made.
///
/// > gevent: `gevent.hub.Waiter`.
public final class Waiter<Value>: WaitListOwner {
  private let hub = Hub.current
  private var result: Result<Value, any Error>?
  package var waiters = WaitList()  // one at most

  public init() {}

  /// Whether something has been delivered.
  ///
  /// > gevent: `Waiter.ready()`.
  public var isReady: Bool { result != nil }

  /// Waits for what is delivered.
  ///
  /// A greenlet that is killed, or whose time runs out, leaves the place free; what is delivered then
  /// is kept for the next one.
  ///
  /// - Parameter timeout: The longest wait. `nil` waits for ever; `.zero` only looks.
  /// - Returns: What was given to ``resume(returning:)``.
  /// - Throws: What was given to ``resume(throwing:)``; a ``Timeout`` if nothing came in time;
  ///   ``ConcurrentUse`` while another greenlet waits, which is not disturbed; what is thrown into the
  ///   caller while it waits.
  ///
  /// > Switch point: Yes, unless something has been delivered already.
  ///
  /// > gevent: `Waiter.get()`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get(timeout: Duration? = nil) throws -> Value {
    hub.checkIsCurrent("a Waiter")
    if let result { return try result.get() }
    if let node = waiters.first { throw refusal(while: node) }
    guard
      try hub.wait(WaitReason("a Waiter"), until: Deadline(after: timeout, on: hub), in: self),
      let result
    else { throw Timeout(of: timeout) }
    return try result.get()
  }

  /// Delivers a value. The one that waits runs when its turn comes.
  ///
  /// Also for callbacks on the hub.
  ///
  /// - Precondition: Nothing has been delivered yet.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Waiter.switch(value)`.
  public func resume(returning value: Value) { resume(with: .success(value)) }

  /// Delivers an error, which ``get(timeout:)`` throws; else as ``resume(returning:)``.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Waiter.throw(error)`.
  public func resume(throwing error: any Error) { resume(with: .failure(error)) }

  /// Delivers a value or an error; else as ``resume(returning:)``.
  ///
  /// > Switch point: No.
  public func resume(with result: Result<Value, any Error>) {
    hub.checkIsCurrent("a Waiter")
    require(
      self.result == nil,
      "a Waiter was resumed twice; it delivers one answer, so make one for each")
    self.result = result
    waiters.signalFirst()
  }

  /// What the second of two gets that want to wait where one can.
  @inline(never)
  private func refusal(while first: UnsafeMutablePointer<WaitNode>) -> any Error {
    guard let second = AnyGreenlet.currentIfAny else { return BlockingInHub() }
    return ConcurrentUse(of: "a Waiter", by: second, while: first.pointee.greenlet)
  }
}

extension Waiter where Value == Void {
  /// Lets the one that waits go on; else as ``resume(returning:)``.
  ///
  /// > Switch point: No.
  public func resume() { resume(returning: ()) }
}
