// Evergreen: who has spawned whom.
// SPDX-License-Identifier: MIT

extension Hub {
  /// The unfinished greenlets below the ones that spawned them, with what they wait for. Those whose
  /// spawner has ended stand beside the main greenlet.
  ///
  /// > gevent: `gevent.util.GreenletTree.forest()`.
  public var greenletTrees: [GreenletTree] {
    let all = greenlets
    let serials = Set(all.map(\.serial))
    var children: [UInt64: [AnyGreenlet]] = [:]
    var roots: [AnyGreenlet] = []
    for greenlet in all.sorted(by: { $0.serial < $1.serial }) {
      if greenlet.serial != 0, greenlet.spawner != greenlet.serial,
        serials.contains(greenlet.spawner)
      {
        children[greenlet.spawner, default: []].append(greenlet)
      } else {
        roots.append(greenlet)
      }
    }
    let now = readClock()
    func tree(_ greenlet: AnyGreenlet) -> GreenletTree {
      // A spawner has a smaller serial than those whom it spawns, so this comes to an end.
      GreenletTree(
        greenlet: greenlet, activity: greenlet.activity(at: now),
        children: (children[greenlet.serial] ?? []).map(tree))
    }
    return roots.map(tree)
  }
}

/// A greenlet and those whom it has spawned.
public struct GreenletTree: CustomStringConvertible {
  public let greenlet: AnyGreenlet
  /// What it does: `waits for sleep, for 0.5 s`, `ready`, `runs`.
  public let activity: String
  /// Those whom it has spawned and who have not ended, the oldest first.
  public let children: [GreenletTree]

  /// A line for each, indented; below it, where it was started if ``Hub/tracksSpawns`` is on.
  ///
  /// > gevent: `GreenletTree.format()`.
  public var description: String { lines().joined(separator: "\n") }

  private func lines() -> [String] {
    var line = "\(greenlet): \(activity)"
    if greenlet.serial != 0 { line += ", spawned at \(greenlet.spawnedAt)" }
    return [line] + greenlet.spawnStack.map { "  | \($0)" }
      + children.flatMap { $0.lines().map { "  " + $0 } }
  }
}
