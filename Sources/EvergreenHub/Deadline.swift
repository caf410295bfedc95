// Evergreen: the end of a wait, counted once for all the waits of a call.
// SPDX-License-Identifier: MIT

import EventLoop

/// An instant on the loop's clock, or never.
package struct Deadline: Hashable, Sendable {
  /// Nanoseconds of CLOCK_MONOTONIC; `UInt64.max` is never, 0 is now.
  package let nanoseconds: UInt64

  package static let never = Deadline(nanoseconds: .max)
  package static let now = Deadline(nanoseconds: 0)

  package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// - Parameter timeout: From now on. `nil` never comes; zero and less are there already.
  @inline(__always)
  package init(after timeout: Duration?, on hub: Hub) {
    guard let timeout else { self = .never; return }
    self = timeout > .zero ? hub.deadline(after: timeout) : .now
  }

  package init(at instant: ContinuousClock.Instant?, on hub: Hub) {
    self.init(after: instant.map { ContinuousClock.now.duration(to: $0) }, on: hub)
  }

  package var isNever: Bool { nanoseconds == .max }

  /// What is left until then: `nil` for ever, zero when it has come.
  package func remaining(on hub: Hub) -> Duration? {
    if isNever { return nil }
    let now = hub.loop.readClock()
    return nanoseconds > now ? .nanoseconds(Int64(clamping: nanoseconds - now)) : .zero
  }
}

extension Hub {
  @inline(__always)
  func deadline(after timeout: Duration) -> Deadline {
    let now = loop.readClock()
    let (sum, overflow) = now.addingReportingOverflow(timeout.clampedNanoseconds)
    return Deadline(nanoseconds: overflow ? .max : sum)
  }
}

extension Duration {
  /// In nanoseconds, rounded up, at least 0; `UInt64.max` if it does not fit.
  package var clampedNanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    if seconds < 0 || attoseconds < 0 { return 0 }
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, carry) = whole.addingReportingOverflow(
      UInt64((attoseconds + 999_999_999) / 1_000_000_000))
    return overflow || carry ? .max : sum
  }
}
