// Evergreen: calls back before each poll
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back in each pass just before the loop asks the kernel, and perhaps blocks.
///
/// > gevent: `loop.prepare()`.
public final class PrepareWatcher: Watcher {
  init(_ loop: Loop) {
    super.init(loop, ev_prepare.self)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    // What it has made ready is not for the loop to see, which is about to wait.
    activate { [unowned core] in
      defer { if core.isDriven, core.hasReady() { evg_interrupt(core.state) } }
      try callback()
    }
  }

  private var prepare: UnsafeMutablePointer<ev_prepare> {
    storage.assumingMemoryBound(to: ev_prepare.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    ev_prepare_start(loop, prepare)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_prepare_stop(loop, prepare)
  }

  override var ownEvents: Int32 { Int32(EV_PREPARE) }
}
