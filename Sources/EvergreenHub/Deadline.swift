// Evergreen: the end of a wait, counted once for all the waits of a call.
// SPDX-License-Identifier: MIT

import EventLoop

// Made and asked at every blocking call: inlined into the other floors.

/// An instant on the loop's clock, or never.
@usableFromInline
package struct Deadline: Hashable, Sendable {
  /// Nanoseconds of CLOCK_MONOTONIC; `UInt64.max` is never, 0 is now.
  @usableFromInline package let nanoseconds: UInt64

  @inlinable package static var never: Deadline { Deadline(nanoseconds: .max) }
  @inlinable package static var now: Deadline { Deadline(nanoseconds: 0) }

  @inlinable
  package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// - Parameters:
  ///   - timeout: From now on. `nil` never comes; zero and less are there already.
  ///   - hub: Whose clock counts.
  @inlinable
  @inline(__always)
  package init(after timeout: Duration?, on hub: Hub) {
    guard let timeout else { self = .never; return }
    self = timeout > .zero ? hub.deadline(after: timeout) : .now
  }

  @inlinable package var isNever: Bool { nanoseconds == .max }
  @inlinable package var isNow: Bool { nanoseconds == 0 }

  /// What is left until then: `nil` for ever, zero when it has come.
  package func remaining(on hub: Hub) -> Duration? {
    if isNever { return nil }
    let now = hub.readClock()
    return nanoseconds > now ? .nanoseconds(Int64(clamping: nanoseconds - now)) : .zero
  }
}

extension Hub {
  @usableFromInline
  package func deadline(after timeout: Duration) -> Deadline {
    Deadline(nanoseconds: readClock().saturating(adding: timeout.clampedNanoseconds))
  }
}
