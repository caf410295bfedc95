// Evergreen: a condition variable for the library's own threads.
// SPDX-License-Identifier: MIT

import CLocks

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Wakes threads that wait; a wake-up between looking and waiting is not lost.
///
/// `@unchecked Sendable`: all but the addresses is read and written under the mutex.
package final class ThreadSignal: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<evg_lock>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var count: UInt64 = 0
  private var forks = evg_forks()

  package init() {
    evg_lock_init(mutex)
    makeCondition()
  }

  deinit {
    _ = withMutex { pthread_cond_destroy(condition) }
    evg_lock_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  private func makeCondition() {
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    #if canImport(Glibc)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    #endif
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  @discardableResult
  private func withMutex<R>(_ body: () -> R) -> R {
    evg_lock_take(mutex)
    defer { evg_lock_give(mutex) }
    if forks != evg_forks() {
      // Threads that waited when the process was forked do not exist in this one; the condition
      // still counts them, and would take a wake-up for theirs.
      forks = evg_forks()
      makeCondition()
    }
    return body()
  }

  /// Look at this first, then at what may have to be waited for.
  package var generation: UInt64 { withMutex { count } }

  package func wakeOne() { wake { pthread_cond_signal(condition) } }

  package func wakeAll() { wake { pthread_cond_broadcast(condition) } }

  private func wake(_ how: () -> Int32) {
    withMutex {
      count &+= 1
      _ = how()
    }
  }

  /// Waits until it has been woken since `generation`. False if `duration` passed first; it may be
  /// of any length.
  package func wait(since generation: UInt64, atMost duration: Duration) -> Bool {
    var end = timespec()
    #if canImport(Glibc)
    clock_gettime(CLOCK_MONOTONIC, &end)
    #else
    clock_gettime(CLOCK_REALTIME, &end)
    #endif
    let (seconds, attoseconds) = min(max(duration, .zero), .seconds(1 << 31)).components
    end.tv_sec += Int(seconds)
    end.tv_nsec += Int(attoseconds / 1_000_000_000)
    if end.tv_nsec >= 1_000_000_000 {
      end.tv_sec += 1
      end.tv_nsec -= 1_000_000_000
    }
    return withMutex {
      while count == generation {
        if evg_lock_wait(mutex, condition, &end) != 0 {
          return count != generation
        }
      }
      return true
    }
  }
}
