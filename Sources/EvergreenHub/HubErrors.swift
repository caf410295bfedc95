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
/// In the child of a fork where the main greenlet stayed in the parent, the greenlet that forked gets
/// this instead.
///
/// > gevent: `gevent.exceptions.LoopExit`.
public struct LoopExit: Error, Sendable, CustomStringConvertible {
  /// Every parked greenlet, what it waits for and where it was spawned.
  public let report: String
  let waiter: String

  /// The same, with more about what is waited for.
  package func explained(by text: String) -> LoopExit {
    LoopExit(report: "\(text)\n\(report)", waiter: waiter)
  }

  public var description: String {
    "this would block for ever: nothing is left that could wake \(waiter)\n\(report)"
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

/// What a greenlet has ended with in the child of a fork that another one made: it goes on in the
/// parent alone.
///
/// After `fork(2)` the child keeps the greenlet that forked, with the hub, its loop, its signal
/// handlers and watchers of one's own. The others count as ended there: `join` returns at once, `get`
/// throws this. They are not unwound, so what they hold stays held, and their links do not run. Work
/// that was under way on a thread, and mail that was not delivered, is the parent's. When the greenlet
/// that forked is not the main one, it gets the ``LoopExit`` in its place; when it has ended and
/// nothing is left to do, the child exits, with status 0, or 1 if it failed.
///
/// > gevent: Keeps all greenlets in both processes.
public struct LostInFork: Error, Hashable, Sendable, CustomStringConvertible {
  let greenlet: String

  public var description: String {
    "\(greenlet) goes on in the parent process alone: another greenlet forked"
  }
}

/// There was no memory for the stack of a greenlet when it was to run first.
public struct StackUnavailable: Error, Hashable, Sendable, CustomStringConvertible {
  /// Why, in the system's words, and what helps.
  public let description: String
}

/// The hub that was to do this has ended, or stayed in the parent of a fork.
public struct HubEnded: Error, Hashable, Sendable, CustomStringConvertible {
  package init() {}

  public var description: String { "the hub has ended" }
}
