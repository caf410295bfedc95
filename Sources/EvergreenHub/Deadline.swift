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
    let now = readClock()
    let (sum, overflow) = now.addingReportingOverflow(timeout.clampedNanoseconds)
    return Deadline(nanoseconds: overflow ? .max : sum)
  }
}

extension Duration {
  /// In nanoseconds, rounded up, at least 0; `UInt64.max` if it does not fit.
  package var clampedNanoseconds: UInt64 {
    if self <= .zero { return 0 }
    // 10⁹ is 2⁹ × 1,953,125: after the shift most durations fit into 64 bits, where division by a
    // constant is a multiplication.
    let (raised, overflow) = attoseconds.addingReportingOverflow(999_999_999)
    if overflow { return .max }
    let shifted = raised >> 9
    if let small = UInt64(exactly: shifted) { return small / 1_953_125 }
    return UInt64(clamping: shifted / 1_953_125)
  }
}
