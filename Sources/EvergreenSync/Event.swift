// Evergreen: a flag that greenlets wait for.
// SPDX-License-Identifier: MIT

public import EvergreenHub

/// A flag that is set or not, and those who wait until it is.
///
/// ```swift
/// let ready = Event()
/// spawn { try ready.wait(); serve() }
/// ready.set()
/// ```
///
/// Belongs to the hub on which it was made.
///
/// > gevent: `gevent.event.Event`.
public final class Event: WaitListOwner {
  private let hub = Hub.current
  package var waiters = WaitList()

  /// Whether it is set.
  public private(set) var isSet: Bool

  public init(isSet: Bool = false) { self.isSet = isSet }

  /// Sets the flag and wakes all who wait, in the order in which they came.
  ///
  /// > Switch point: No. The waiters run when their turn comes.
  public func set() {
    hub.checkIsCurrent("an Event")
    isSet = true
    waiters.signalAll()
  }

  /// Clears the flag. Those who were woken before stay woken.
  public func clear() {
    hub.checkIsCurrent("an Event")
    isSet = false
  }

  /// Waits until the flag is set.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether it was set at any time during the wait, even if it has been cleared since.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless it is set already.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func wait(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("an Event")
    if isSet { return true }
    return try hub.wait(WaitReason("an Event"), until: Deadline(after: timeout, on: hub), in: self)
  }
}
