// Evergreen: what looking up a name of the hosts file costs.
// SPDX-License-Identifier: MIT

import Evergreen

/// N lookups of "localhost" at the same time. Per lookup.
func lookUpNames(_ n: Int) throws -> Report {
  _ = try lookUp()
  let measurement = Measurement()
  let lookups = (0..<n).map { _ in spawn { try lookUp() } }
  for lookup in lookups {
    guard try lookup.get() > 0 else { fail("localhost has no address") }
  }
  return measurement.report(per: n)
}

/// - Returns: How many addresses there are.
private func lookUp() throws -> Int {
  try SocketAddress.resolve("localhost", port: 80).count
}
