// Evergreen: calls back when another thread says so
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

/// Calls back on the loop's thread after any thread has called ``Sender/send()``.
///
/// ```swift
/// let done = loop.async()
/// done.start { print("the thread is done") }
/// let sender = done.sender
/// startThread { compute(); sender.send() }
/// ```
///
/// Several sends before the callback is called are one.
///
/// > gevent: `loop.async_()`.
public final class AsyncWatcher: Watcher {
  /// The end of an ``AsyncWatcher`` that other threads may hold, for as long as they like.
  public struct Sender: Sendable {
    fileprivate let target = Target()

    /// Has the callback called soon. Does nothing while the watcher is inactive, when it or its loop
    /// are gone, or in the child of a fork that another thread than the loop's made.
    ///
    /// Takes a lock for a moment, so it is not for signal handlers.
    public func send() {
      target.send()
    }
  }

  /// For other threads.
  public let sender = Sender()

  init(_ loop: Loop) {
    super.init(loop, ev_async.self)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  /// The same as ``Sender/send()``.
  public func send() {
    sender.send()
  }

  /// Whether it was sent and the callback is about to be called.
  public override var isPending: Bool {
    isActive && (evg_async_is_pending(async) || super.isPending)
  }

  private var async: UnsafeMutablePointer<ev_async> {
    storage.assumingMemoryBound(to: ev_async.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    ev_async_start(loop, async)
    sender.target.open(core.state, async)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    sender.target.close()
    ev_async_stop(loop, async)
  }

  override var ownEvents: Int32 { Int32(EV_ASYNC) }
}

/// Where a send goes. The lock is what lets senders live longer than watcher and loop.
private final class Target: Sendable {
  private typealias Address = (
    loop: UnsafeMutablePointer<evg_loop>, watcher: UnsafeMutablePointer<ev_async>
  )

  private let address = Guarded<Address?>(nil)

  func open(
    _ loop: UnsafeMutablePointer<evg_loop>, _ watcher: UnsafeMutablePointer<ev_async>
  ) {
    address.withLock { $0 = (loop, watcher) }
  }

  func close() {
    address.withLock { $0 = nil }
  }

  func send() {
    address.withLock { address in
      if let address { evg_send(address.loop, address.watcher) }
    }
  }
}
