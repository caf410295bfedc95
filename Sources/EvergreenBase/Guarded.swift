// Evergreen: a value that several threads share.
// SPDX-License-Identifier: MIT

import CLocks

/// A value behind a mutex.
///
/// As `Synchronization.Mutex`, with two differences: the thread sanitizer understands it on Linux,
/// where that one is a futex in code that is not instrumented; and a fork finds it free and the
/// value whole (see `CLocks.h`). So code under it must be short, and must call nothing that may
/// fork, nor drop references to what is not the library's own.
package struct Guarded<Value>: ~Copyable, @unchecked Sendable {
  // Unchecked: the value is touched under the mutex alone; neither address ever changes.
  private let mutex: UnsafeMutablePointer<evg_lock>
  private let value: UnsafeMutablePointer<Value>

  package init(_ value: consuming sending Value) {
    mutex = .allocate(capacity: 1)
    evg_lock_init(mutex)
    self.value = .allocate(capacity: 1)
    self.value.initialize(to: value)
  }

  deinit {
    evg_lock_destroy(mutex)
    mutex.deallocate()
    value.deinitialize(count: 1)
    value.deallocate()
  }

  /// Runs `body` while no other thread does.
  package borrowing func withLock<R, E: Error>(_ body: (inout Value) throws(E) -> R) throws(E) -> R
  {
    evg_lock_take(mutex)
    defer { evg_lock_give(mutex) }
    return try body(&value.pointee)
  }
}
