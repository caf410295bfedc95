// Evergreen: the errors of the hub itself.
// SPDX-License-Identifier: MIT

/// Code that runs on the hub's own stack tried to block.
///
/// Callbacks of watchers made on ``Hub/eventLoop`` run there. Spawn a greenlet from the callback
/// and block in that.
///
/// > gevent: `gevent.exceptions.BlockingSwitchOutError`.
public struct BlockingInHub: Error, Hashable, Sendable, CustomStringConvertible {
  package init() {}

  public var description: String {
    "a loop callback runs on the hub and cannot block; spawn a greenlet there and block in it"
  }
}

/// The main greenlet waits, and nothing can ever wake it: no greenlet is ready, no timer runs, no
/// descriptor is watched, no thread or signal may come.
///
/// > gevent: `gevent.exceptions.LoopExit`.
public struct LoopExit: Error, Sendable, CustomStringConvertible {
  /// Every parked greenlet, what it waits for and where it was spawned.
  public let report: String

  public var description: String {
    "this would block for ever: nothing is left that could wake the main greenlet\n\(report)"
  }
}

/// Two greenlets used one object in the same direction at once. The first is not disturbed.
///
/// > gevent: `gevent.exceptions.ConcurrentObjectUseError`.
public struct ConcurrentUse: Error, Hashable, Sendable, CustomStringConvertible {
  /// Who was there first, who came second, and where both were spawned.
  public let description: String

  package init(of object: String, by second: AnyGreenlet, while first: AnyGreenlet?) {
    let holder = first.map { "\($0.descriptionWithOrigin)" } ?? "another greenlet"
    description =
      "\(second.descriptionWithOrigin) may not use \(object): \(holder) is waiting on it. "
      + "Give each its own connection, or put a lock around it"
  }
}

/// There was no memory for the stack of a greenlet when it was to run first.
public struct StackUnavailable: Error, Hashable, Sendable, CustomStringConvertible {
  /// Why, in the system's words, and what helps.
  public let description: String
}
