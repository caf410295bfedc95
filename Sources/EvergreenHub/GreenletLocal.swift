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
  ///
  /// - Precondition: Not used in a callback on the hub's own stack: no greenlet runs there.
  public var value: Value {
    get {
      let greenlet = Greenlet.current
      if let value = greenlet.extras?.locals[key] { return value as! Value }
      let value = initial()
      put(value, in: greenlet.ownExtras)
      return value
    }
    set { put(newValue, in: Greenlet.current.ownExtras) }
  }

  /// The old value goes when the access to the others is over: its end may read and write them.
  private func put(_ value: Any?, in extras: AnyGreenlet.Extras) {
    let old = extras.locals[key]
    extras.locals[key] = value
    withExtendedLifetime(old) {}
  }

  /// Whether the running greenlet has a value of its own already.
  public var isSet: Bool { Greenlet.current.extras?.locals[key] != nil }

  /// Forgets the running greenlet's value.
  public func reset() {
    if let extras = Greenlet.current.extras { put(nil, in: extras) }
  }

  /// Gives the variable a value for the time of `body`.
  public func withValue<R>(_ value: Value, _ body: () throws -> R) rethrows -> R {
    let extras = Greenlet.current.ownExtras
    let before = extras.locals[key]
    put(value, in: extras)
    defer { put(before, in: extras) }
    return try body()
  }
}

private let keys = Atomic<UInt64>(0)
