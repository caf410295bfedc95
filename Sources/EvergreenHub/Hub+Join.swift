// Evergreen: waiting until there is nothing left to do.
// SPDX-License-Identifier: MIT

import Greenlets

extension Hub {
  /// Waits until no greenlet is ready, nothing is watched, no timer runs and nothing outside can
  /// wake the hub: the graceful end of a program.
  ///
  /// Greenlets that wait for what can never happen do not count.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether nothing is left; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `gevent.wait()` without objects, and `hub.join(timeout)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func join(timeout: Duration? = nil) throws -> Bool {
    let deadline = Deadline(after: timeout, on: self)
    if deadline.isNow {
      checkIsCurrent()
      try checkForDueError()
      return isOutOfWork
    }
    let timers = deadline.isNever ? 0 : 1
    ownTimers += timers
    defer { ownTimers -= timers }
    return try wait(
      WaitReason("the end of all work"), until: deadline,
      enlist: { endWaiters.append($0) }, delist: { endWaiters.remove($0) })
  }
}
