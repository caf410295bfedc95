// Evergreen: raw greenlets whose last reference went away on a thread that is not theirs.
// SPDX-License-Identifier: MIT

import Synchronization

/// Cores for their own thread to unwind: only there can their stacks run.
///
/// `@unchecked Sendable`: the list is behind its mutex, and a core in it is touched by nobody until
/// its own thread takes it out.
final class DroppedCores: @unchecked Sendable {
  private struct State {
    var cores: [UInt] = []  // retained
    var isOpen = true
  }
  private let state = Mutex(State())
  private let pending = Atomic(false)

  var isPending: Bool { pending.load(ordering: .relaxed) }

  /// A core of a thread that has ended stays as it is: its stack is gone.
  func add(_ core: Unmanaged<RawCore>) {
    let address = UInt(bitPattern: core.toOpaque())
    state.withLock { if $0.isOpen { $0.cores.append(address) } }
    pending.store(true, ordering: .relaxed)
  }

  func take() -> RawCore? {
    let address = state.withLock {
      let address = $0.cores.popLast()
      if $0.cores.isEmpty { pending.store(false, ordering: .relaxed) }
      return address
    }
    return address.flatMap(UnsafeRawPointer.init(bitPattern:)).map {
      Unmanaged<RawCore>.fromOpaque($0).takeRetainedValue()
    }
  }

  func close() {
    state.withLock { $0.isOpen = false }
  }
}
