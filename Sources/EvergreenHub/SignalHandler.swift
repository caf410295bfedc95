// Evergreen: signals, handled in greenlets.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenBase

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A signal that a hub answers; made by ``Hub/onSignal(_:keepsRunning:_:)``.
public final class SignalHandler {
  /// Which signal.
  public let signal: Int32
  private weak var hub: Hub?
  private let watcher: SignalWatcher
  let isWaker: Bool

  fileprivate init(
    _ signal: Int32, on hub: Hub, isWaker: Bool, _ body: @escaping () throws -> Void
  ) throws {
    self.signal = signal
    self.hub = hub
    self.isWaker = isWaker
    watcher = try hub.eventLoop.signal(signal)
    watcher.isReferenced = false
    try watcher.start {
      let greenlet = spawn(body)
      greenlet.name = "handler of signal \(signal)"
    }
    if isWaker { hub.externalWakers += 1 }
  }

  /// Ends it; the signal gets its default action again when its last handler ends.
  public func cancel() {
    guard let hub, hub.signalHandlers.removeValue(forKey: ObjectIdentifier(self)) != nil else {
      return
    }
    detach()
  }

  func detach() {
    watcher.stop()
    if isWaker { hub?.externalWakers -= 1 }
  }
}

extension Hub {
  /// Answers a signal: each time it comes, `body` runs in a greenlet of its own, so it may block.
  ///
  /// ```swift
  /// try Hub.current.onSignal(SIGTERM) { try server.stop() }
  /// ```
  ///
  /// The hub holds the handler until it is cancelled. While there is one that keeps it running, the
  /// hub does not take a standstill for a deadlock, and ``join(timeout:)`` waits, because the
  /// signal may come. Signals that arrive faster than the loop turns are one.
  ///
  /// - Parameters:
  ///   - signal: Which, as in `SIGTERM`.
  ///   - keepsRunning: Whether the signal is something to wait for. `false` for one that only
  ///     disturbs: without other work the hub does not wait for it.
  ///   - body: What answers it.
  /// - Returns: The handler, by which it can be cancelled.
  /// - Throws: ``LoopError`` if another hub answers the signal, or if it cannot be caught.
  ///
  /// > gevent: `gevent.signal_handler(signalnum, handler)`.
  @discardableResult
  public func onSignal(
    _ signal: Int32, keepsRunning: Bool = true, _ body: @escaping () throws -> Void
  ) throws -> SignalHandler {
    try addHandler(signal, isWaker: keepsRunning, body)
  }

  /// Writes ``report()`` to standard error each time the signal comes.
  ///
  /// - Parameter signal: Which; `nil` for `SIGUSR2`.
  /// - Returns: The handler, which the hub holds.
  /// - Throws: ``LoopError`` if another hub answers the signal, or if it cannot be caught.
  @discardableResult
  public func reportOnSignal(_ signal: Int32? = nil) throws -> SignalHandler {
    try addHandler(signal ?? SIGUSR2, isWaker: false) { [unowned self] in
      writeError(report() + "\n")
    }
  }

  private func addHandler(
    _ signal: Int32, isWaker: Bool, _ body: @escaping () throws -> Void
  ) throws -> SignalHandler {
    let handler = try SignalHandler(signal, on: self, isWaker: isWaker, body)
    signalHandlers[ObjectIdentifier(handler)] = handler
    return handler
  }
}
