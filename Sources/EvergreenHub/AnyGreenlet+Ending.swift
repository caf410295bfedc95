// Evergreen: waiting for the end of greenlets, and bringing it about.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase
public import Greenlets

extension AnyGreenlet {
  /// Waits until this greenlet has ended, whichever way it ended.
  ///
  /// ```swift
  /// let worker = spawn { try fetch(url) }
  /// guard try worker.join(timeout: .seconds(2)) else { return log("still busy") }
  /// ```
  ///
  /// - Parameter timeout: The longest wait, on the hub's monotonic clock. `nil` waits for ever;
  ///   `.zero` only looks.
  /// - Returns: `true` if the greenlet has ended, `false` if `timeout` ran out first.
  /// - Throws: What was thrown into the *caller* while it waited: ``GreenletExit``, or the
  ///   ``Timeout`` of an enclosing block. Never the error of this greenlet.
  /// - Precondition: Not called by this greenlet itself.
  ///
  /// > Switch point: Yes, unless the greenlet has ended already.
  ///
  /// > gevent: `Greenlet.join(timeout=None)`, which returns nothing.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func join(timeout: Duration? = nil) throws -> Bool {
    if phase == .finished { return true }
    checkIsOnItsHub()
    return try withHub { try join(until: Deadline(after: timeout, on: $0)) }
  }

  @discardableResult
  package final func join(until deadline: Deadline) throws -> Bool {
    if phase == .finished { return true }
    if evg_current()?.pointee.owner == Unmanaged.passUnretained(self).toOpaque() {
      if hasDueError { throw takeDueError() }
      fatal("\(self) waits for its own end, which would be for ever")
    }
    return try withHub {
      try $0.wait(
        WaitReason("the end of greenlet", Int64(id)), until: deadline,
        enlist: { joiners.append($0) }, delist: { joiners.remove($0) })
    }
  }

  /// As ``join(timeout:)``, called by foreign code, at which nothing can be thrown.
  ///
  /// - Returns: Whether it has ended; `false` if an error is due in the caller.
  package final func joinInForeignCode() -> Bool {
    if phase == .finished { return true }
    return withHub {
      $0.stay(
        evg_current().unsafelyUnwrapped, WaitReason("the end of greenlet", Int64(id)),
        until: .never, enlist: { joiners.append($0) }, delist: { joiners.remove($0) })
    }
  }

  /// Ends the greenlet by throwing `error` at the point where it waits.
  ///
  /// One that has not begun never runs its body; its error is reported when its turn comes. One
  /// that is ready to run, or has just won what it waited for, gets the error at its next switch
  /// point; one in a ``shielded(_:)`` block, after that. A kill that is under way already is not repeated. The greenlet may catch the error and
  /// go on; then it must be killed again.
  ///
  /// - Parameters:
  ///   - error: What is thrown there, and becomes its ``error``.
  ///   - waiting: Whether to wait until it has ended.
  ///   - timeout: The longest wait for that.
  /// - Returns: Whether it has ended.
  /// - Throws: What is thrown into the caller while it waits; `error` itself if a greenlet kills
  ///   itself and waits for it. Never the victim's error.
  ///
  /// > Switch point: Yes, if it waits.
  ///
  /// > gevent: `Greenlet.kill(exception=GreenletExit, block=True, timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func kill(
    _ error: any Error = GreenletExit(), waiting: Bool = true, timeout: Duration? = nil
  ) throws -> Bool {
    if phase == .finished { return true }
    checkIsOnItsHub()
    if evg_current()?.pointee.owner == Unmanaged.passUnretained(self).toOpaque() {
      if waiting { throw error }
      withDueErrors { $0.kill(with: error) }
      return false
    }
    requestEnd(with: error)
    if !waiting { return isReady }
    return try join(timeout: timeout)
  }

  package final func requestEnd(with error: any Error) {
    if phase != .finished { checkIsOnItsHub() }
    switch phase {
    case .finished: return
    case .new, .delayed, .scheduled: cancelStart(with: error)
    case .running:
      if extras?.due.hasKill == true { return }
      withDueErrors { $0.kill(with: error) }
      if hasDueError, let waiting { _ = evg_wake(waiting) }
    }
  }

  /// Ends one that has not begun. Its context, if it has one, is run all the same, finds it
  /// finished, reports the error, and gives itself back; for a report it gets one.
  final func cancelStart(with error: any Error) {
    let isQueued = phase == .scheduled
    dropBody()
    finish(with: error, isReporting: false)
    if isQueued { return }
    if context != nil || !(error is GreenletExit) { evg_ready(context ?? makeContext()) }
  }
}

/// Ends greenlets: those that have not begun never run, the others get `error` where they wait, in
/// the order given.
///
/// - Parameters:
///   - greenlets: Whom to end; all of one hub.
///   - error: What is thrown into them.
///   - waiting: Whether to wait until all have ended.
///   - timeout: The longest wait for all of them together.
/// - Throws: A ``Timeout`` if some have not ended in time; what is thrown into the caller.
///
/// > Switch point: Yes, if it waits.
///
/// > gevent: `gevent.killall(greenlets, exception, block, timeout)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func killAll(
  _ greenlets: some Sequence<AnyGreenlet>, with error: any Error = GreenletExit(),
  waiting: Bool = true, timeout: Duration? = nil
) throws {
  let victims = Array(greenlets)
  for victim in victims { victim.requestEnd(with: error) }
  guard waiting, let hub = Hub.currentIfAny else { return }
  let deadline = Deadline(after: timeout, on: hub)
  for victim in victims {
    guard try victim.join(until: deadline) else { throw Timeout(of: timeout) }
  }
}

/// Waits for greenlets.
///
/// - Parameters:
///   - greenlets: Whom to wait for; all of one hub.
///   - timeout: The longest wait for all of them together; `nil` waits for ever.
///   - count: How many to wait for; `nil` for all.
///   - raisingErrors: Whether to throw the error of the first that fails: of those that had ended
///     before the call the first in the order given, of the others the first in time.
/// - Returns: Those that have ended: first those that had before the call, in the order given, then
///   the others in the order in which they did.
/// - Throws: What is thrown into the caller; with `raisingErrors`, a greenlet's error.
///
/// > Switch point: Yes, unless enough have ended already.
///
/// > gevent: `gevent.joinall(greenlets, timeout, raise_error, count)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func joinAll<G: AnyGreenlet>(
  _ greenlets: some Sequence<G>, timeout: Duration? = nil, count: Int? = nil,
  raisingErrors: Bool = false
) throws -> [G] {
  var pending: [G] = []
  var ended: [G] = []
  func take(_ greenlet: G) throws {
    ended.append(greenlet)
    if raisingErrors, !greenlet.isSuccessful, let error = greenlet.error { throw error }
  }
  for greenlet in greenlets {
    if greenlet.isReady { try take(greenlet) } else { pending.append(greenlet) }
  }
  let wanted = min(count ?? .max, pending.count + ended.count)
  if ended.count >= wanted { return ended }
  let hub = Hub.current
  let deadline = Deadline(after: timeout, on: hub)
  let arrivals = Arrivals<G>()
  let links = pending.map { greenlet in (greenlet, greenlet.rawLink { arrivals.add(greenlet) }) }
  defer { for (greenlet, link) in links { greenlet.unlink(link) } }
  while ended.count < wanted {
    if arrivals.ended.isEmpty {
      guard
        try hub.wait(WaitReason("the end of greenlets"), until: deadline, in: arrivals)
      else { break }
    }
    let batch = arrivals.ended
    arrivals.ended = []
    for greenlet in batch.prefix(wanted - ended.count) { try take(greenlet) }
  }
  return ended
}

private final class Arrivals<G: AnyGreenlet>: WaitListOwner {
  var waiters = WaitList()
  var ended: [G] = []

  func add(_ greenlet: G) {
    ended.append(greenlet)
    waiters.signalFirst()
  }
}
