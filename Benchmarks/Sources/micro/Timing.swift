// Evergreen: what timeouts cost that never come true.
// SPDX-License-Identifier: MIT

import Evergreen

/// `withTimeout` around nothing. Per call.
func timers(_ n: Int) throws -> Report {
  try withTimeout(.seconds(5)) {}
  let measurement = Measurement()
  for _ in 0..<n { try withTimeout(.seconds(5)) {} }
  return measurement.report(per: n)
}

/// A million live timers of one hour, one begun 100 ns after the other; an operation cancels the
/// oldest and starts a new one, as a server with a million connections does whenever one of them
/// says something. Per operation.
func timersChurn(_ n: Int) throws -> Report {
  let live = 1_000_000
  func start(_ number: Int) -> Timeout {
    Timeout.start(after: .nanoseconds(3_600_000_000_000 + 100 * number))
  }
  var timers = (0..<live).map(start)
  let measurement = Measurement()
  for i in 0..<n {
    timers[i % live].cancel()
    timers[i % live] = start(live + i)
  }
  let report = measurement.report(per: n)
  for timer in timers { timer.cancel() }
  return report
}
