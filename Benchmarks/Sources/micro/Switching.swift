// Evergreen: what greenlets themselves cost.
// SPDX-License-Identifier: MIT

import Evergreen

private let batch = 1_000

/// Batches of 1,000: all spawned, then all joined. Per greenlet.
func spawnJoin(_ n: Int) throws -> Report {
  var greenlets: [Greenlet<Void>] = []
  greenlets.reserveCapacity(batch)
  func round(of size: Int) throws {
    for _ in 0..<size { greenlets.append(spawn {}) }
    for greenlet in greenlets { try greenlet.join() }
    greenlets.removeAll(keepingCapacity: true)
  }
  try round(of: batch)
  let measurement = Measurement()
  for begun in stride(from: 0, to: n, by: batch) { try round(of: min(batch, n - begun)) }
  return measurement.report(per: n)
}

/// One spawned and joined, then the next. Per greenlet.
func spawnJoinSequentially(_ n: Int) throws -> Report {
  try spawn {}.join()
  let measurement = Measurement()
  for _ in 0..<n { try spawn {}.join() }
  return measurement.report(per: n)
}

/// 1,000 greenlets that do nothing but give way. Per `yield`.
func switchYield(_ n: Int) throws -> Report {
  let each = (n + batch - 1) / batch
  func round(of times: Int) throws {
    let greenlets = (0..<batch).map { _ in
      spawn {
        for _ in 0..<times { try Greenlet.yield() }
      }
    }
    for greenlet in greenlets { try greenlet.get() }
  }
  try round(of: 1)
  let measurement = Measurement()
  try round(of: each)
  return measurement.report(per: each * batch)
}

/// Two raw greenlets, to and fro. Per switch.
func switchRaw(_ n: Int) throws -> Report {
  let here = RawGreenlet.current
  let there = RawGreenlet { _ in
    while true { try here.switch() }
  }
  try there.switch()
  let rounds = (n + 1) / 2
  let measurement = Measurement()
  for _ in 0..<rounds { try there.switch() }
  return measurement.report(per: 2 * rounds)
}
