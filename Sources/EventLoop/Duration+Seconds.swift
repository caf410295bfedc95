// Evergreen: libev's seconds and Swift's durations
// SPDX-License-Identifier: MIT

extension Duration {
  /// Exact to a nanosecond or so for what loops measure.
  init(seconds: Double) {
    let whole = seconds.rounded(.down)
    self = .seconds(Int64(whole)) + .nanoseconds(Int64((seconds - whole) * 1e9))
  }

  /// As libev wants it.
  var inSeconds: Double {
    let (seconds, attoseconds) = components
    return Double(seconds) + Double(attoseconds) * 1e-18
  }
}

extension Duration {
  /// Whole nanoseconds, rounded up; negative durations are 0, huge ones the largest number.
  var clampedNanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    if seconds < 0 || attoseconds < 0 { return 0 }
    let whole = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let sum = whole.partialValue.addingReportingOverflow(
      (UInt64(attoseconds) + 999_999_999) / 1_000_000_000)
    return whole.overflow || sum.overflow ? .max : sum.partialValue
  }
}
