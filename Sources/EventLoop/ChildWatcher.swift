// Evergreen: calls back when a child process ends
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back when a child process ends. Only the default loop can watch children
/// (``Loop/makeDefault(backend:)``).
///
/// Start it before the loop runs on after the child was made: the loop collects every child that
/// has ended, watched or not. The watch of one process is over when that process has ended.
///
/// > gevent: `loop.child(pid, trace)`.
public final class ChildWatcher: Watcher {
  /// Which process; 0 for any child.
  public let processID: Int32

  /// Whether children that are stopped or continued by a signal are reported too.
  public let isTracing: Bool

  /// In the callback: the process that it is about.
  public private(set) var reportedProcessID: Int32 = 0

  /// The status as `waitpid(2)` gives it.
  public private(set) var rawStatus: Int32 = 0

  init(_ loop: Loop, _ processID: Int32, tracing: Bool) throws(LoopError) {
    self.processID = processID
    self.isTracing = tracing
    super.init(loop, ev_child.self)
    guard core.isDefault else {
      throw LoopError(
        .needsDefaultLoop,
        "child processes are watched by the default loop only (Loop.makeDefault)")
    }
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  /// The exit code of the reported process; `nil` if it did not exit by itself.
  public var exitCode: Int32? {
    rawStatus & 0x7f == 0 ? (rawStatus >> 8) & 0xff : nil
  }

  /// The signal that ended the reported process; `nil` if none did.
  public var endingSignal: Int32? {
    let signal = rawStatus & 0x7f
    return signal != 0 && signal != 0x7f ? signal : nil
  }

  private var child: UnsafeMutablePointer<ev_child> {
    storage.assumingMemoryBound(to: ev_child.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    evg_child_set(child, processID, isTracing)
    ev_child_start(loop, child)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_child_stop(loop, child)
  }

  override func willCall(_ events: Int32) -> Bool {
    reportedProcessID = child.pointee.rpid
    rawStatus = child.pointee.rstatus
    // 0xffff is "continued".
    let hasEnded = rawStatus != 0xffff && (exitCode != nil || endingSignal != nil)
    if processID != 0, reportedProcessID == processID, hasEnded { stop() }
    return true
  }

  override var ownEvents: Int32 { Int32(EV_CHILD) }

  override var subject: String { "process \(processID)" }
}
