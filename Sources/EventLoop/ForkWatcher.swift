// Evergreen: calls back in a forked child
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back in the child after a `fork(2)`, when the loop runs there: soon, but not at once.
///
/// The loop makes its kernel objects anew by itself; this is for what others have to do.
///
/// > gevent: `loop.fork()`.
public final class ForkWatcher: Watcher {
  init(_ loop: Loop) {
    super.init(loop, ev_fork.self)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  private var fork: UnsafeMutablePointer<ev_fork> {
    storage.assumingMemoryBound(to: ev_fork.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    ev_fork_start(loop, fork)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_fork_stop(loop, fork)
  }

  override var ownEvents: Int32 { Int32(EV_FORK) }
}
