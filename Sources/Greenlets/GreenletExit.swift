// Evergreen: the error that ends a greenlet without being a failure.
// SPDX-License-Identifier: MIT

/// Thrown at the switch point of a greenlet that is to end: by `kill`, by `throw`, or because the
/// last reference to an unfinished raw greenlet went away.
///
/// A greenlet that ends by it counts as successful and is not reported. Catch it to clean up, and
/// throw it on; `defer` is the better place.
///
/// > gevent: `greenlet.GreenletExit`.
public struct GreenletExit: Error, Hashable, Sendable, CustomStringConvertible {
  public init() {}

  public var description: String { "GreenletExit" }
}

/// What is wrong with a switch that was asked for by hand.
///
/// > gevent: `greenlet.error` and `gevent.exceptions.InvalidSwitchError`.
public struct SwitchError: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String

  package init(_ description: String) { self.description = description }
}
