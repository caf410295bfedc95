// Evergreen: timeouts, thrown into the greenlet that started them.
// SPDX-License-Identifier: MIT
//
// `withTimeout` keeps its timer in its own frame, and makes a `Timeout` only when the timer fires:
// around a body that is quick enough nothing is allocated. The object is its identity, so an
// enclosing block never takes the inner one's timeout for its own.

import CGreenlet
import CLibev
import EventLoop
import Greenlets

/// Time ran out: thrown, where it waits, into the greenlet that started the timeout.
///
/// It reaches a greenlet only at a switch point; a loop that computes is not interrupted. Blocks
/// may be nested; each passes on the timeouts of the others.
///
/// > gevent: `gevent.Timeout`.
public final class Timeout: Error, CustomStringConvertible, @unchecked Sendable {
  // Unchecked: the identity and the length never change; the rest belongs to the hub's thread.

  /// How long it was.
  public let duration: Duration?
  private let substitute: (any Error)?
  private let greenlet: AnyGreenlet?
  private var timer: UnsafeMutablePointer<evg_timer>?
  /// Nothing else need hold a timeout that is running.
  private var selfWhilePending: Timeout?

  init(of duration: Duration?) {
    self.duration = duration
    substitute = nil
    greenlet = nil
  }

  private init(of duration: Duration, in greenlet: AnyGreenlet, throwing error: (any Error)?) {
    self.duration = duration
    self.greenlet = greenlet
    substitute = error
  }

  deinit { timer?.deallocate() }

  /// Starts a timeout for the calling greenlet, where no block fits.
  ///
  /// ```swift
  /// let timeout = Timeout.start(after: .seconds(2))
  /// defer { timeout.cancel() }
  /// ```
  ///
  /// - Parameters:
  ///   - duration: From now on; zero or less fires as soon as the loop runs; `nil` never.
  ///   - error: Thrown instead of the timeout itself.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Timeout.start_new(seconds, exception)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func start(after duration: Duration?, throwing error: (any Error)? = nil) -> Timeout
  {
    guard let duration else { return Timeout(of: nil) }
    let greenlet = Greenlet.current
    let timeout = Timeout(of: duration, in: greenlet, throwing: error)
    let timer = UnsafeMutablePointer<evg_timer>.allocate(capacity: 1)
    timeout.timer = timer
    timeout.selfWhilePending = timeout
    evg_timer_init(
      timer,
      { Unmanaged<Timeout>.fromOpaque($0.pointee.context!).takeUnretainedValue().fire() },
      Unmanaged.passUnretained(timeout).toOpaque())
    let hub = greenlet.hub
    hub.loop.start(timer, at: hub.deadline(after: duration).nanoseconds)
    return timeout
  }

  /// Whether it runs: neither fired nor cancelled.
  public var isPending: Bool { timer?.pointee.armed ?? false }

  /// Stops it. One that has fired but has not been thrown yet is taken back.
  public func cancel() {
    guard let greenlet else { return }
    if isPending, let timer { greenlet.hub.loop.stop(timer) }
    selfWhilePending = nil
    if substitute == nil { greenlet.due.remove(self) }
  }

  private func fire() {
    let me = self  // the reference below may be the last
    me.selfWhilePending = nil
    if let greenlet, !greenlet.isReady { greenlet.interrupt(with: substitute ?? me) }
  }

  public var description: String {
    duration.map { "timed out after \($0)" } ?? "timed out"
  }
}

/// A timeout of a block, in the block's frame.
private struct TimeoutScope {
  let greenlet: Unmanaged<AnyGreenlet>
  let duration: Duration
  var fired: Timeout?
}

/// Runs `body`, and throws a timeout into it when `duration` has passed.
///
/// ```swift
/// let answer = try withTimeout(.seconds(2)) { try socket.receive(upTo: 512) }
/// ```
///
/// - Parameters:
///   - duration: From now on, for all that `body` does; zero or less fires as soon as the loop
///     runs; `nil` sets no limit.
///   - error: Thrown out of this call instead of the ``Timeout``.
/// - Throws: The ``Timeout`` or `error`; what `body` throws.
///
/// > Switch point: As `body`.
///
/// > gevent: `with gevent.Timeout(seconds, exception)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func withTimeout<R>(
  _ duration: Duration?, throwing error: (any Error)? = nil, _ body: () throws -> R
) throws -> R {
  guard let duration else { return try body() }
  return try inTimeoutScope(duration, body) { throw error ?? $0 }
}

/// Runs `body`, and returns `default` if `duration` has passed before it is through.
///
/// Only this block's own timeout does so; that of an enclosing block is thrown on.
///
/// > Switch point: As `body`.
///
/// > gevent: `gevent.with_timeout(seconds, function, timeout_value=value)`, and with `()` for
/// > `default` the silent `gevent.Timeout(seconds, False)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func withTimeout<R>(
  _ duration: Duration?, default: @autoclosure () throws -> R, _ body: () throws -> R
) throws -> R {
  guard let duration else { return try body() }
  return try inTimeoutScope(duration, body) { _ in try `default`() }
}

@inline(__always)
private func inTimeoutScope<R>(
  _ duration: Duration, _ body: () throws -> R, _ late: (Timeout) throws -> R
) throws -> R {
  let hub = Hub.current
  let greenlet = try hub.blockingGreenlet()
  var scope = TimeoutScope(greenlet: .passUnretained(greenlet), duration: duration)
  return try withTimerAndScope(&scope) { timer, scope in
    hub.loop.start(timer, at: hub.deadline(after: duration).nanoseconds)
    do {
      let result = try body()
      hub.loop.stop(timer)
      if let fired = scope.pointee.fired { greenlet.due.remove(fired) }
      return result
    } catch {
      hub.loop.stop(timer)
      guard let fired = scope.pointee.fired else { throw error }
      greenlet.due.remove(fired)
      if let timeout = error as? Timeout, timeout === fired { return try late(timeout) }
      throw error
    }
  }
}

@inline(__always)
private func withTimerAndScope<R>(
  _ scope: UnsafeMutablePointer<TimeoutScope>,
  _ body: (UnsafeMutablePointer<evg_timer>, UnsafeMutablePointer<TimeoutScope>) throws -> R
) rethrows -> R {
  try withUnsafeTemporaryAllocation(of: evg_timer.self, capacity: 1) { memory in
    let timer = memory.baseAddress.unsafelyUnwrapped
    evg_timer_init(timer, scopeTimerFired, scope)
    return try body(timer, scope)
  }
}

private let scopeTimerFired: @convention(c) (UnsafeMutablePointer<evg_timer>) -> Void = { timer in
  let scope = timer.pointee.context!.assumingMemoryBound(to: TimeoutScope.self)
  let timeout = Timeout(of: scope.pointee.duration)
  scope.pointee.fired = timeout
  scope.pointee.greenlet._withUnsafeGuaranteedRef { _ = $0.interrupt(with: timeout) }
}

/// Starts a greenlet later.
final class StartTimer {
  private let hub: Hub
  private let timer = UnsafeMutablePointer<evg_timer>.allocate(capacity: 1)
  private let action: () -> Void

  init(on hub: Hub, after delay: Duration, _ action: @escaping () -> Void) {
    self.hub = hub
    self.action = action
    evg_timer_init(
      timer,
      { timer in
        let me = Unmanaged<StartTimer>.fromOpaque(timer.pointee.context!).takeUnretainedValue()
        me.action()
      }, Unmanaged.passUnretained(self).toOpaque())
    hub.loop.start(timer, at: hub.deadline(after: delay).nanoseconds)
  }

  func cancel() {
    if timer.pointee.armed { hub.loop.stop(timer) }
  }

  deinit {
    cancel()
    timer.deallocate()
  }
}
