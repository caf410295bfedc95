// Evergreen: what a loop and its watchers share
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Owns libev's loop and keeps the active watchers. Held by the ``Loop`` and by each watcher.
final class LoopCore {
  let state: UnsafeMutablePointer<evg_loop>
  let backend: Backend
  let isDefault: Bool

  /// Set by the loop, and cleared by its deinit.
  unowned(unsafe) var loop: Loop?

  var onError: (any Error, Watcher) -> Void = { error, watcher in
    warn("uncaught error in the callback of \(watcher): \(error)")
  }

  /// The active watchers: this reference and those in the chain keep them alive.
  private var first: Watcher?

  /// Descriptors whose registration changes at the next poll, to be checked just before it.
  private var changedDescriptors: [Int32] = []
  /// Active while descriptors are watched.
  private let guardian: UnsafeMutablePointer<ev_prepare>
  /// How many there are of each descriptor.
  private var watches: [Int32: Int] = [:]
  private var forks = evg_forks()

  /// A hub runs this loop, and nobody else may.
  var isDriven = false
  /// Whether somebody is ready to run, so that the loop must not wait.
  var hasReady: () -> Bool = { false }

  /// libev's loop, or `nil` once it has been destroyed.
  var raw: OpaquePointer? { state.pointee.raw }

  init(backend: Backend?, setting: String?, isDefault: Bool) throws(LoopError) {
    evg_prepare_process()
    if isDefault { try ProcessSignals.takeDefaultLoop() }
    do throws(LoopError) {
      let raw = try LoopCore.makeRaw(backend: backend, setting: setting, isDefault: isDefault)
      let mask = ev_backend(raw)
      self.backend = Backend.known.first { $0.mask == mask } ?? .select
      self.isDefault = isDefault
      state = .allocate(capacity: 1)
      evg_loop_open(state, raw)
      guardian = .allocate(capacity: 1)
    } catch {
      if isDefault { ProcessSignals.releaseDefaultLoop() }
      throw error
    }
    evg_watcher_init(guardian, checkChangedDescriptors, Unmanaged.passUnretained(self).toOpaque())
    evg_watcher_set_priority(guardian, Int32(Watcher.priorities.lowerBound))
    // The two clocks of `LoopInterface` must be one.
    let now = raw.map { evg_now($0) } ?? 0
    let (age, isLater) = evg_read_clock().subtractingReportingOverflow(now)
    require(!isLater && age < 60_000_000_000, "this libev does not use CLOCK_MONOTONIC")
  }

  deinit {
    close()
    guardian.deallocate()
    state.deallocate()
  }

  private static func makeRaw(
    backend: Backend?, setting: String?, isDefault: Bool
  ) throws(LoopError) -> OpaquePointer {
    let wanted: [Backend]
    if let backend {
      wanted = [try Backend(named: backend.name)]
    } else {
      wanted = try Backend.preferred(by: setting)
    }
    // libev does not return from its own attempt to make the wake-up descriptor; try it first.
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      let error = Errno.current
      throw LoopError(.cannotCreate, "cannot make a loop: \(error)", errno: error)
    }
    for end in ends { _ = closeDescriptor(end) }
    var error = Errno.current
    for mask in wanted.isEmpty ? [0] : wanted.map(\.mask) {
      let flags = mask | UInt32(EVFLAG_NOENV)
      if let raw = isDefault ? ev_default_loop(flags) : evg_loop_new(flags) { return raw }
      error = Errno.current
    }
    throw LoopError(.cannotCreate, "cannot make a loop: \(error)", errno: error)
  }

  // MARK: The active watchers

  func link(_ watcher: Watcher) {
    watcher.nextActive = first
    first?.previousActive = watcher
    first = watcher
  }

  func unlink(_ watcher: Watcher) {
    let next = watcher.nextActive
    next?.previousActive = watcher.previousActive
    if let previous = watcher.previousActive { previous.nextActive = next } else { first = next }
    watcher.nextActive = nil
    watcher.previousActive = nil
  }

  func close() {
    guard let raw else { return }
    require(
      ev_depth(raw) == 0, "a loop was destroyed while it runs; stop it, and destroy it after run()")
    while let watcher = first { watcher.stop() }
    changedDescriptors = []
    stopGuardian()
    evg_loop_close(state)
    // It may hold watchers, and these hold this.
    let handler = onError
    onError = { _, _ in }
    withExtendedLifetime(handler) {}
    if isDefault { ProcessSignals.releaseDefaultLoop() }
  }

  // MARK: Closed descriptors

  /// A watch of `fd`, which others may close, begins or ends. libev will look at it in the next
  /// pass; so shall we, just before.
  func noteWatch(of fd: Int32, begins: Bool) {
    let count = watches[fd, default: 0] + (begins ? 1 : -1)
    watches[fd] = count > 0 ? count : nil
    guard let raw else { return }
    changedDescriptors.append(fd)
    if !evg_watcher_is_active(guardian) {
      ev_prepare_start(raw, guardian)
      ev_unref(raw)
    }
  }

  fileprivate func checkChanged() {
    // After a fork libev is about to register all of them anew; poll(2) looks at all each time.
    if forks != evg_forks() || backend == .poll {
      forks = evg_forks()
      changedDescriptors += watches.keys
    }
    let descriptors = changedDescriptors
    changedDescriptors.removeAll(keepingCapacity: true)
    if watches.isEmpty { stopGuardian() }
    for fd in descriptors {
      do throws(Errno) { try checkDescriptor(fd) } catch { evg_forget_descriptor(state, fd) }
    }
  }

  private func stopGuardian() {
    guard let raw, evg_watcher_is_active(guardian) else { return }
    ev_ref(raw)
    ev_prepare_stop(raw, guardian)
  }
}

// Inside the class the name means another function.
private let closeDescriptor = close

/// Runs before libev registers descriptors, and after all prepare watchers of higher priorities.
private func checkChangedDescriptors(
  _ raw: OpaquePointer, _ watcher: UnsafeMutablePointer<ev_watcher>, _ events: Int32
) {
  guard let data = evg_watcher_data(watcher) else { return }
  Unmanaged<LoopCore>.fromOpaque(data).takeUnretainedValue().checkChanged()
}
