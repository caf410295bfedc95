// Evergreen: calls back after each poll
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back in each pass just after the loop has asked the kernel, before the callbacks of what
/// was found (unless they have a higher priority).
///
/// > gevent: `loop.check()`.
public final class CheckWatcher: Watcher {
  init(_ loop: Loop) {
    super.init(loop, ev_check.self)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  private var check: UnsafeMutablePointer<ev_check> {
    storage.assumingMemoryBound(to: ev_check.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    ev_check_start(loop, check)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_check_stop(loop, check)
  }

  override var ownEvents: Int32 { Int32(EV_CHECK) }
}
