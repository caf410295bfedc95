// Evergreen: libev's seconds and Swift's durations
// SPDX-License-Identifier: MIT

extension Duration {
  /// Exact to a nanosecond or so for what loops measure; bounded by what `Int64` seconds hold.
  init(seconds: Double) {
    let bounded = min(max(seconds, -0x1p62), 0x1p62)
    let whole = bounded.rounded(.down)
    self = .seconds(Int64(whole)) + .nanoseconds(Int64((bounded - whole) * 1e9))
  }

  /// As libev wants it.
  var inSeconds: Double { Double(attoseconds) * 1e-18 }
}

extension Duration {
  /// In nanoseconds, rounded up, at least 0; `UInt64.max` if it does not fit.
  @inlinable package var clampedNanoseconds: UInt64 {
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

extension UInt64 {
  /// The sum, or the largest number if it does not fit.
  @inlinable package func saturating(adding other: UInt64) -> UInt64 {
    let (sum, overflow) = addingReportingOverflow(other)
    return overflow ? .max : sum
  }
}
