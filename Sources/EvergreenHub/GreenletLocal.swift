// Evergreen: variables of which every greenlet has its own.
// SPDX-License-Identifier: MIT

import Synchronization

/// A variable with a value for each greenlet, dropped when the greenlet ends.
///
/// ```swift
/// let requestID = GreenletLocal(default: 0)
/// requestID.value = 7  // for this greenlet alone
/// ```
///
/// Children do not inherit it; task locals are inherited.
///
/// > gevent: `gevent.local.local`.
public final class GreenletLocal<Value>: Sendable {
  private let initial: @Sendable () -> Value
  /// Not its address, which another one may have later.
  private let key = keys.add(1, ordering: .relaxed).newValue

  /// - Parameter initial: Evaluated when a greenlet first reads the variable, in that greenlet.
  public init(default initial: @autoclosure @escaping @Sendable () -> Value) {
    self.initial = initial
  }

  /// The value of the running greenlet.
  public var value: Value {
    get {
      let greenlet = Greenlet.current
      if let value = greenlet.extras?.locals[key] { return value as! Value }
      let value = initial()
      greenlet.ownExtras.locals[key] = value
      return value
    }
    set { Greenlet.current.ownExtras.locals[key] = newValue }
  }

  /// Whether the running greenlet has a value of its own already.
  public var isSet: Bool { Greenlet.current.extras?.locals[key] != nil }

  /// Forgets the running greenlet's value.
  public func reset() { Greenlet.current.extras?.locals[key] = nil }

  /// Gives the variable a value for the time of `body`.
  public func withValue<R>(_ value: Value, _ body: () throws -> R) rethrows -> R {
    let extras = Greenlet.current.ownExtras
    let before = extras.locals[key]
    extras.locals[key] = value
    defer { extras.locals[key] = before }
    return try body()
  }
}

private let keys = Atomic<UInt64>(0)
