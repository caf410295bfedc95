// Evergreen: calls back after a signal
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back, as an ordinary callback of the loop, after the process has received a signal.
///
/// Several watchers of one loop may watch the same signal, but only one loop of the process.
/// Signals that arrive before the callback is called are one. When its last watcher stops, a
/// signal gets its default action again. The thread that starts a watch gets the signal unblocked
/// (threads of Dispatch, and those made by them, have all signals blocked).
///
/// In the child of a fork that another thread made, the signal has its default action again.
///
/// > gevent: `loop.signal(signum)`.
public final class SignalWatcher: Watcher {
  /// Which signal.
  public let signal: Int32

  init(_ loop: Loop, _ signal: Int32) throws(LoopError) {
    self.signal = signal
    super.init(loop, ev_signal.self)
    try ProcessSignals.check(signal)
  }

  /// Starts the watch; gives an active watcher another callback.
  ///
  /// - Throws: `signalTaken` while another loop watches this signal.
  public func start(_ callback: @escaping () throws -> Void) throws(LoopError) {
    if !isActive, core.raw != nil { try ProcessSignals.claim(signal, for: core, raw) }
    activate(callback)
  }

  private var raw: UnsafeMutablePointer<ev_signal> {
    storage.assumingMemoryBound(to: ev_signal.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    evg_signal_set(raw, signal)
    ev_signal_start(loop, raw)
    // libev 4.33 means to do this, but has the condition the wrong way round.
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, signal)
    pthread_sigmask(SIG_UNBLOCK, &set, nil)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_signal_stop(loop, raw)
    ProcessSignals.release(signal, raw)
  }

  override var ownEvents: Int32 { Int32(EV_SIGNAL) }

  override var subject: String { "signal \(signal)" }
}
