// Evergreen: an event loop over libev
// SPDX-License-Identifier: MIT

package import CLibev
import EvergreenBase

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

// How it works:
//
// 1. What libev's loop needs lives in a C struct on the heap (`evg_loop`), not in properties of
//    the class: the paths that the hub takes at every park (Loop+Interface.swift) then read plain
//    memory, with no exclusivity check and no reference counting.
// 2. A `LoopCore` owns that struct. The loop and every watcher hold the core; the core holds the
//    active watchers, in a list. So an active watcher stays alive, a dropped loop does not leak
//    (its deinit empties the list), and a watcher that outlives the loop finds a core that is
//    closed, and does nothing.
// 3. What a user can do does not reach libev's assertions, which are on in Debian's build and
//    end the process: descriptors are checked before each poll that would register them, signals
//    have a table of owners, children insist on the default loop. What is left is said at
//    `IOWatcher`.

/// An event loop: it waits for descriptors, timers, signals and more, and calls the watchers
/// that were started for them.
///
/// ```swift
/// let loop = try Loop()
/// loop.timer(after: .seconds(1)).start { print("a second later") }
/// loop.run()
/// ```
///
/// A loop, its watchers and their callbacks belong to one thread. From others, only an
/// ``AsyncWatcher``'s sender may be used. When the last reference to a loop goes, it is destroyed
/// as by ``destroy()``.
///
/// > gevent: `gevent.core.loop`.
public final class Loop {
  let core: LoopCore

  /// For the paths that must not look anywhere else.
  package let state: UnsafeMutablePointer<evg_loop>

  /// Makes a loop.
  ///
  /// - Parameter backend: How to ask the kernel; `nil` takes what the environment variable
  ///   `EVERGREEN_BACKEND` names, else the best one.
  /// - Throws: An error that names the unknown or unavailable backend and lists the available
  ///   ones, or says that the kernel refused (too many open files).
  public convenience init(backend: Backend? = nil) throws(LoopError) {
    try self.init(backend: backend, setting: Backend.environmentSetting)
  }

  /// `setting` stands for the value of `EVERGREEN_BACKEND`.
  package convenience init(backend: Backend?, setting: String?) throws(LoopError) {
    self.init(core: try LoopCore(backend: backend, setting: setting, isDefault: false))
  }

  /// Makes the process's default loop, the only one that can watch child processes.
  ///
  /// While it exists it owns `SIGCHLD` and collects **every** child that ends, so that no one
  /// else's `waitpid(2)` gets them. Use it only in a program that wants this.
  ///
  /// - Throws: `defaultLoopTaken` while another one exists, `signalTaken` while another loop
  ///   watches `SIGCHLD`; what ``init(backend:)`` throws.
  public static func makeDefault(backend: Backend? = nil) throws(LoopError) -> Loop {
    Loop(
      core: try LoopCore(
        backend: backend, setting: Backend.environmentSetting, isDefault: true))
  }

  private init(core: LoopCore) {
    self.core = core
    self.state = core.state
    core.loop = self
  }

  deinit {
    core.loop = nil
    core.close()
  }

  /// Stops all watchers, which become inert for ever, and frees what the loop holds of the
  /// kernel. The second time does nothing.
  ///
  /// - Precondition: The loop is not running, and is no hub's.
  public func destroy() {
    require(!isDriven, "the loop of a hub cannot be destroyed; it goes with the hub")
    core.close()
  }

  /// Whether ``destroy()`` was called. Such a loop answers zeros and does nothing.
  public var isDestroyed: Bool { state.pointee.raw == nil }

  /// Whether a hub runs this loop, and nobody else may.
  package var isDriven: Bool {
    get { core.isDriven }
    set { core.isDriven = newValue }
  }

  /// The hub's: whether somebody is ready to run, asked where the loop is about to wait.
  package var hasReady: () -> Bool {
    get { core.hasReady }
    set { core.hasReady = newValue }
  }

  // MARK: Running

  /// How long ``run(_:)`` goes on.
  public enum RunMode: Sendable {
    /// Until no referenced watcher is active, or ``Loop/stop(_:)`` is called.
    case untilIdle
    /// One pass, which waits for an event.
    case once
    /// One pass, which takes what is there.
    case noWait
  }

  /// Waits for events and calls back, until nothing is left to wait for or ``stop(_:)`` is called.
  ///
  /// May be called in a callback: then a second run goes on inside the first (``depth``).
  ///
  /// - Parameter mode: How long.
  /// - Returns: Whether referenced watchers are still active.
  /// - Precondition: It is no hub's: that one runs it, while its greenlets wait.
  @discardableResult
  public func run(_ mode: RunMode = .untilIdle) -> Bool {
    require(!isDriven, "a hub runs this loop; use sleep, join, or any call that waits")
    guard let raw = state.pointee.raw else { return false }
    // Watchers and the core keep each other; the last reference to the loop itself must not go
    // while libev runs in it.
    return withExtendedLifetime(self) {
      evg_check_fork(state)
      let flags =
        switch mode {
        case .untilIdle: 0
        case .once: EVRUN_ONCE
        case .noWait: EVRUN_NOWAIT
        }
      let counted = Int(ev_run(raw, Int32(flags)))
      assert(
        counted == activeCount + (state.pointee.held ? 1 : 0),
        "libev counts \(counted) references, and the loop \(activeCount)")
      return state.pointee.references > 0
    }
  }

  /// Which runs ``stop(_:)`` ends.
  public enum Extent: Sendable {
    /// The innermost.
    case one
    /// All that are nested in one another.
    case all
  }

  /// Makes ``run(_:)`` return after the callbacks that are pending now. Outside a run it does
  /// nothing.
  public func stop(_ extent: Extent = .one) {
    guard let raw = state.pointee.raw else { return }
    ev_break(raw, Int32(extent == .one ? EVBREAK_ONE : EVBREAK_ALL))
  }

  // MARK: Facts

  /// How this loop asks the kernel.
  public var backend: Backend { core.backend }

  /// Whether this is the process's default loop (see ``makeDefault(backend:)``).
  public var isDefault: Bool { core.isDefault }

  /// The time of the last poll, in nanoseconds of `CLOCK_MONOTONIC`.
  public var now: UInt64 {
    guard let raw = state.pointee.raw else { return 0 }
    return evg_now(raw)
  }

  /// The time of day at the last poll: the time since 1970 began, in UTC.
  public var wallTime: Duration {
    guard let raw = state.pointee.raw else { return .zero }
    return Duration(seconds: ev_now(raw))
  }

  /// Moves ``now`` to the present, after a callback that computed for long.
  public func updateNow() {
    guard let raw = state.pointee.raw else { return }
    ev_now_update(raw)
  }

  /// How often the loop has polled; wraps around.
  public var iteration: UInt32 {
    guard let raw = state.pointee.raw else { return 0 }
    return ev_iteration(raw)
  }

  /// How many runs are nested in one another; 0 outside of any.
  public var depth: Int {
    guard let raw = state.pointee.raw else { return 0 }
    return Int(ev_depth(raw))
  }

  /// How many callbacks are about to be called.
  public var pendingCount: Int {
    guard let raw = state.pointee.raw else { return 0 }
    return Int(ev_pending_count(raw))
  }

  /// How many references keep the loop running: active watchers whose `isReferenced` is true, and
  /// those of ``ref()``.
  public var activeCount: Int { Int(state.pointee.references) }

  /// Adds a reference, so that the loop runs on without a watcher.
  public func ref() {
    guard !isDestroyed else { return }
    evg_ref(state)
  }

  /// Takes back one ``ref()``.
  public func unref() {
    guard !isDestroyed else { return }
    evg_unref(state)
  }

  /// Checks libev's data structures, and ends the process if they are corrupt.
  public func verify() {
    guard let raw = state.pointee.raw else { return }
    ev_verify(raw)
  }

  // MARK: Errors

  /// Called with each error that a watcher's callback throws or that ends a watch (a descriptor
  /// closed under it). The loop goes on.
  ///
  /// The default prints one line to the standard error.
  public var onError: (_ error: any Error, _ watcher: Watcher) -> Void {
    get { core.onError }
    set { core.onError = newValue }
  }
}
