// Evergreen: calls back while nothing else is to be done
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back in each pass in which no watcher of the same or a higher priority has anything to do.
///
/// While one is active the loop does not block.
///
/// > gevent: `loop.idle()`.
public final class IdleWatcher: Watcher {
  init(_ loop: Loop) {
    super.init(loop, ev_idle.self)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  private var idle: UnsafeMutablePointer<ev_idle> {
    storage.assumingMemoryBound(to: ev_idle.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    ev_idle_start(loop, idle)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_idle_stop(loop, idle)
  }

  override var ownEvents: Int32 { Int32(EV_IDLE) }
}
