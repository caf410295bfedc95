// Evergreen: raw greenlets whose last reference went away on a thread that is not theirs.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// Cores for their own thread to unwind: only there can their stacks run.
///
/// `@unchecked Sendable`: the list is behind its lock, and a core in it is touched by nobody until
/// its own thread takes it out.
final class DroppedCores: @unchecked Sendable {
  private struct State {
    var cores: [UInt] = []  // retained
    var isOpen = true
  }
  private let state = Guarded(State())
  private let owner = evg_thread_self()

  var isPending: Bool { state.withLock { !$0.cores.isEmpty } }

  /// A core of a thread that has ended stays as it is: its stack is gone.
  func add(_ core: Unmanaged<RawCore>) {
    let address = UInt(bitPattern: core.toOpaque())
    state.withLock {
      guard $0.isOpen else { return }
      $0.cores.append(address)
      evg_set_raw_attention(owner, true)
    }
  }

  func take() -> RawCore? {
    let address = state.withLock { $0.cores.popLast() }
    return address.flatMap(UnsafeRawPointer.init(bitPattern:)).map {
      Unmanaged<RawCore>.fromOpaque($0).takeRetainedValue()
    }
  }

  /// Tells the thread's switches whether there is anything for them to see to.
  func setAttention(orElse isNeeded: Bool) {
    state.withLock { evg_set_raw_attention(owner, isNeeded || !$0.cores.isEmpty) }
  }

  func close() {
    state.withLock { $0.isOpen = false }
  }
}
