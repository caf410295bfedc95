// Evergreen: what many sleeping greenlets cost.
// SPDX-License-Identifier: MIT

import Evergreen
import Glibc

/// N greenlets that sleep at the same time, and wake at the same time. Per greenlet: the memory
/// while all of them sleep, and the time to create and to wake them (the sleep does not count).
func sleepers(_ n: Int) throws -> Report {
  var asleep = 0
  let measurement = Measurement()
  let deadline = measurement.wall + 1_000_000_000 + Int64(n) * 10_000
  let greenlets = (0..<n).map { _ in
    spawn {
      asleep += 1
      try sleep(for: .nanoseconds(deadline - nanoseconds(of: CLOCK_MONOTONIC)))
    }
  }
  while asleep < n { try Greenlet.yield() }
  let memory = residentBytes() - measurement.memory
  let created = nanoseconds(of: CLOCK_MONOTONIC)
  guard created < deadline else { fail("creating the sleepers took longer than their sleep") }
  for greenlet in greenlets { try greenlet.get() }
  let woken = nanoseconds(of: CLOCK_MONOTONIC) - deadline
  guard woken >= 0 else { fail("the sleepers woke \(-woken) ns too early") }
  return measurement.report(per: n, wall: created - measurement.wall + woken, memory: memory)
}
