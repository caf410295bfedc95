// Evergreen: what all watchers have in common
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

/// Something for which a ``Loop`` can wait, and what to call when it happens.
///
/// A watcher is made by its loop (``Loop/timer(after:repeating:)``, ``Loop/io(_:_:)``...), is
/// inactive at first, and may be started and stopped as often as needed. While it is active the
/// loop keeps it and its callback alive; afterwards the callback is let go. A watcher that
/// outlives its loop is inert: it can be started and stopped, but it never fires.
///
/// An error that a callback throws goes to ``Loop/onError``; the watcher stays as it is.
public class Watcher {
  let core: LoopCore

  /// One of libev's structs, owned; which one, the subclass knows.
  let storage: UnsafeMutableRawPointer

  // The core's list of active watchers.
  final var nextActive: Watcher?
  final unowned(unsafe) var previousActive: Watcher?

  private var callback: (() throws -> Void)?

  init<Struct: BitwiseCopyable>(_ loop: Loop, _ type: Struct.Type) {
    core = loop.core
    storage = .allocate(
      byteCount: MemoryLayout<Struct>.size, alignment: MemoryLayout<Struct>.alignment)
    storage.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<Struct>.size)
    evg_watcher_init(storage, watcherFired, Unmanaged.passUnretained(self).toOpaque())
  }

  deinit {
    // Never active, hence never known to libev: the core's list keeps the active ones.
    storage.deallocate()
  }

  // MARK: For the subclasses

  /// Hands the watcher to libev.
  func startRaw(_ loop: OpaquePointer) {
    preconditionFailure("\(Self.self) does not say how it starts")
  }

  /// Takes it back; must also do where libev has stopped it already.
  func stopRaw(_ loop: OpaquePointer) {
    preconditionFailure("\(Self.self) does not say how it stops")
  }

  /// Called before the callback, with libev's bits; answers whether to call it.
  func willCall(_ events: Int32) -> Bool { true }

  /// What is watched, in words.
  var subject: String { "" }

  /// What ``feed()`` pretends to have happened.
  var ownEvents: Int32 { Int32(EV_CUSTOM) }

  /// Starts an inactive watcher; gives an active one another callback.
  final func activate(_ callback: @escaping () throws -> Void) {
    guard let raw = core.raw else { return }
    self.callback = callback
    guard !isActive else { return }
    startRaw(raw)
    isActive = true
    evg_count(core.state, 1)
    if !isReferenced { evg_unref(core.state) }
    core.link(self)
  }

  private func deactivate() {
    guard isActive, let raw = core.raw else { return }
    isActive = false
    if !isReferenced { evg_ref(core.state) }
    evg_count(core.state, -1)
    stopRaw(raw)
    // Last, as these may hold the last reference to this object and to others.
    withExtendedLifetime((self, callback)) {
      callback = nil
      core.unlink(self)
    }
  }

  fileprivate final func fired(_ events: Int32) {
    let callback = callback
    // libev stops what can happen only once; then it may be started again in its own callback.
    if !evg_watcher_is_active(storage) { deactivate() }
    if willCall(events) {
      do {
        try callback?()
      } catch {
        core.onError(error, self)
      }
    }
    // In the child, if that callback forked.
    if core.raw != nil { evg_check_fork(core.state) }
  }

  // MARK: For everybody

  /// The loop; `nil` once it has been destroyed.
  public final var loop: Loop? {
    core.raw == nil ? nil : core.loop
  }

  /// Whether it was started, and neither stopped nor used up since. A timer that has expired is
  /// active until its callback is called.
  public final private(set) var isActive = false

  /// Whether the event has happened and the callback is about to be called.
  public var isPending: Bool {
    evg_watcher_is_pending(storage)
  }

  /// The priorities that libev knows.
  public static let priorities = -2...2

  /// In a pass of the loop, callbacks with a higher priority are called first.
  ///
  /// - Precondition: From -2 to 2, and set only while the watcher is inactive.
  public final var priority: Int {
    get { Int(evg_watcher_priority(storage)) }
    set {
      require(!isActive, "the priority of a watcher was set while it is active; stop it first")
      require(
        Watcher.priorities.contains(newValue),
        "a watcher's priority is from -2 to 2, not \(newValue)")
      evg_watcher_set_priority(storage, Int32(newValue))
    }
  }

  /// Whether this watcher, while active, keeps ``Loop/run(_:)`` from returning. May be set at any
  /// time.
  public final var isReferenced = true {
    didSet {
      guard isActive, core.raw != nil, isReferenced != oldValue else { return }
      if isReferenced { evg_ref(core.state) } else { evg_unref(core.state) }
    }
  }

  /// Ends the watch, also where its event is pending already. An inactive watcher stays as it is.
  public final func stop() {
    deactivate()
  }

  /// Has the callback called in the next pass, as if the event had happened. An inactive watcher
  /// ignores it.
  public final func feed() {
    feedRaw(ownEvents)
  }

  final func feedRaw(_ events: Int32) {
    guard isActive, let raw = core.raw else { return }
    ev_feed_event(raw, storage, events)
  }
}

extension Watcher: CustomStringConvertible {
  /// The type, and what it watches.
  public var description: String {
    subject.isEmpty ? "\(type(of: self))" : "\(type(of: self))(\(subject))"
  }
}

private func watcherFired(
  _ raw: OpaquePointer, _ watcher: UnsafeMutablePointer<ev_watcher>, _ events: Int32
) {
  guard let data = evg_watcher_data(watcher) else { return }
  Unmanaged<Watcher>.fromOpaque(data).takeUnretainedValue().fired(events)
}
