// Evergreen: values that are made when first needed, by code that may wait.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub

/// A value that the first greenlet which needs it makes, while the others wait.
///
/// Swift's own `lazy` and `static let` must not wait while they make theirs: a second greenlet would run
/// into the first. If making it fails, the error goes to that one alone and the next one tries again.
///
/// ```swift
/// let connection = GreenletLazy { try Database.connect(host: "db", timeout: .seconds(5)) }
/// try connection.get().query("select 1")
/// ```
///
/// Belongs to the hub on which it was made.
///
/// > gevent: has none.
public final class GreenletLazy<Value> {
  private let hub = Hub.current
  private let lock = Lock()
  private var make: (() throws -> Value)?

  /// The value, if it has been made.
  public private(set) var value: Value?

  /// - Parameter make: Makes the value; may wait.
  public init(_ make: @escaping () throws -> Value) { self.make = make }

  /// The value, made now if it has not been.
  ///
  /// - Throws: What making it throws; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless it has been made.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get() throws -> Value {
    hub.checkIsCurrent("a GreenletLazy")
    if let value { return value }
    require(
      lock.owner == nil || lock.owner !== Greenlet.current,
      "what makes the value of a GreenletLazy, or the code of a Once, asks for it itself")
    return try lock.withLock {
      if let value { return value }
      let made = try make!()
      value = made
      make = nil
      return made
    }
  }
}

/// Runs code once, however many greenlets ask for it; the others wait until it has run.
///
/// > gevent: has none.
public final class Once {
  private let hub = Hub.current
  private let lazy: GreenletLazy<Void>

  /// - Parameter body: Runs at the first ``run()``, and again if it failed.
  public init(_ body: @escaping () throws -> Void) { lazy = GreenletLazy(body) }

  /// Whether it has run.
  public var hasRun: Bool { lazy.value != nil }

  /// Runs the code unless it has run, or waits for whoever runs it.
  ///
  /// - Throws: What the code throws, to the one that ran it; what is thrown into the caller.
  ///
  /// > Switch point: Yes, unless it has run.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func run() throws {
    hub.checkIsCurrent("a Once")
    try lazy.get()
  }
}
