// Evergreen: timeouts, thrown into the greenlet that started them.
// SPDX-License-Identifier: MIT
//
// `withTimeout` makes a `Timeout` only when its timer fires: around a body that is quick enough
// nothing is allocated (TimeoutScope.swift). The object is its identity, so an enclosing block never
// takes the inner one's timeout for its own.

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
public final class Timeout: Revocable, CustomStringConvertible, @unchecked Sendable {
  // Unchecked: the identity and the length never change; the rest belongs to the hub's thread.

  /// How long it was.
  public let duration: Duration?
  private let substitute: (any Error)?
  /// `nil` once it is over: the greenlet may hold the timeout, as its error.
  @exclusivity(unchecked) private var greenlet: AnyGreenlet?
  /// Linked into the loop while it is armed: an object does not move.
  @exclusivity(unchecked) private var timer = evg_timer_make(timeoutFired, nil)
  /// The block that it belonged to has ended.
  @exclusivity(unchecked) package internal(set) var isOver = false
  /// How many shields it began under, which do not hold it back.
  package let shields: UInt32

  package init(of duration: Duration?, under shields: UInt32 = 0) {
    self.duration = duration
    self.shields = shields
    substitute = nil
    greenlet = nil
  }

  private init(of duration: Duration, in greenlet: AnyGreenlet, throwing error: (any Error)?) {
    self.duration = duration
    self.greenlet = greenlet
    shields = greenlet.shields
    substitute = error
  }

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
  /// - Returns: The timeout, which runs.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Timeout.start_new(seconds, exception)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func start(after duration: Duration?, throwing error: (any Error)? = nil) -> Timeout
  {
    guard let duration else { return Timeout(of: nil) }
    let greenlet = Greenlet.current
    // Nothing else need hold a timeout that is running.
    let timeout = Timeout(of: duration, in: greenlet, throwing: error)
    greenlet.withHub {
      let deadline = $0.deadline(after: duration)
      if deadline.isNever { return }
      timeout.timer.context = Unmanaged.passRetained(timeout).toOpaque()
      $0.start(timeout.timerAddress, at: deadline)
    }
    return timeout
  }

  private var timerAddress: UnsafeMutablePointer<evg_timer> {
    withUnsafeMutablePointer(to: &timer) { $0 }
  }

  func belongs(to greenlet: AnyGreenlet?) -> Bool { self.greenlet === greenlet }

  /// Whether it runs: neither fired nor cancelled.
  public var isPending: Bool { timer.armed }

  /// Stops it. One that has fired but has not been thrown yet is taken back.
  public func cancel() {
    if let greenlet, !greenlet.isReady { greenlet.checkIsOnItsHub() }
    isOver = true
    guard let greenlet else { return }
    if timer.armed { greenlet.withHub { $0.stop(timerAddress) } }
    letGo()
    greenlet.takeBack(self)
    self.greenlet = nil
  }

  /// Gives up the reference that a running timeout has to itself.
  private func letGo() {
    guard let me = timer.context else { return }
    timer.context = nil
    Unmanaged<Timeout>.fromOpaque(me).release()
  }

  /// What the greenlet is to see now.
  package func takeThrown() -> any Error {
    greenlet = nil
    return substitute ?? self
  }

  /// It was thrown, has reached nobody, and can be taken back again.
  package func isDueAgain(in greenlet: AnyGreenlet) { self.greenlet = greenlet }

  /// Its loop, which is about to go, has stopped it.
  func loopHasEnded() {
    letGo()
    greenlet = nil
  }

  fileprivate func fire() {
    letGo()
    guard let greenlet, !greenlet.isReady else { return self.greenlet = nil }
    greenlet.interrupt(with: self)
  }

  public var description: String {
    duration.map { "timed out after \($0)" } ?? "timed out"
  }
}

let timeoutFired: @convention(c) (UnsafeMutablePointer<evg_timer>) -> Void = { timer in
  let timeout = Unmanaged<Timeout>.fromOpaque(timer.pointee.context!).takeUnretainedValue()
  withExtendedLifetime(timeout) { timeout.fire() }
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
///   - body: What may take so long.
/// - Returns: What `body` returns.
/// - Throws: The ``Timeout`` or `error`; what `body` throws.
///
/// > Switch point: As `body`.
///
/// > gevent: `with gevent.Timeout(seconds, exception)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@inlinable
public func withTimeout<R>(
  _ duration: Duration?, throwing error: (any Error)? = nil, _ body: () throws -> R
) throws -> R {
  guard let duration else { return try body() }
  var scope = try TimeoutScope(duration)
  let result: R
  do {
    result = try body()
    scope.stop()
  } catch let thrown {
    scope.stop()
    if let struck = scope.struck { throw error ?? struck }
    if let error, scope.isOwn(thrown) { throw error }
    throw thrown
  }
  if let struck = scope.struck { throw error ?? struck }
  return result
}

/// Runs `body`, and returns `default` if `duration` has passed before it is through.
///
/// Only this block's own timeout does so; that of an enclosing block is thrown on.
///
/// - Parameters:
///   - duration: As for ``withTimeout(_:throwing:_:)``.
///   - default: Evaluated when the time has run out.
///   - body: What may take so long.
/// - Returns: What `body` returns, or `default`.
/// - Throws: What `body` throws.
///
/// > Switch point: As `body`.
///
/// > gevent: `gevent.with_timeout(seconds, function, timeout_value=value)`, and with `()` for
/// > `default` the silent `gevent.Timeout(seconds, False)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@inlinable
public func withTimeout<R>(
  _ duration: Duration?, default: @autoclosure () throws -> R, _ body: () throws -> R
) throws -> R {
  guard let duration else { return try body() }
  var scope = try TimeoutScope(duration)
  do {
    let result = try body()
    scope.stop()
    if scope.struck == nil { return result }
  } catch {
    scope.stop()
    if scope.struck == nil && !scope.isOwn(error) { throw error }
  }
  return try `default`()
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
    let deadline = hub.deadline(after: delay)
    if !deadline.isNever { hub.start(timer, at: deadline) }
  }

  func cancel() {
    hub.stop(timer)
  }

  deinit {
    cancel()
    timer.deallocate()
  }
}
