// Evergreen: where a greenlet is, and where it came from.
// SPDX-License-Identifier: MIT

import CGreenlet

extension AnyGreenlet {
  /// The functions in which it is, the innermost first: `name (module + offset)`. Empty if it has not
  /// run yet or has ended.
  ///
  /// Read by the frame pointers, which Swift keeps: functions of C libraries that have none are left out.
  ///
  /// > gevent: `greenlet.gr_frame`, and `gevent.util.print_run_info`.
  public var stack: [String] {
    guard phase == .running, let context = waiting ?? context else { return [] }
    return framesOf(context, most: 64).map { symbol(at: $0) }
  }

  /// The functions from which it was started, the innermost first: `name (module + offset)`; empty unless
  /// ``Hub/tracksSpawns`` was on then.
  ///
  /// > gevent: `Greenlet.spawning_stack`.
  public var spawnStack: [String] {
    guard let frames = extras?.spawnFrames else { return [] }
    let own = [
      "framesOf", "withUnsafeTemporaryAllocation", ".noteSpawn()", ".makeContext()", ".schedule()",
      "EvergreenHub.Greenlet.start(", "EvergreenHub.spawn<",
    ]
    return Array(
      frames.map { symbol(at: $0) }.drop { frame in own.contains { frame.contains($0) } }.prefix(10)
    )
  }

  /// Notes where it is started, if the hub wants to know that, and what it inherits.
  @inline(never)
  final func noteSpawn() {
    guard phase != .finished, let spawner = evg_current() else { return }
    if hub.tracksSpawns { ownExtras.spawnFrames = framesOf(spawner, most: 20) }
    if let tree = Hub.greenlet(of: spawner)?.extras?.tree { ownExtras.tree = tree }
    hub.onSpawn?(self)
  }
}

private func framesOf(
  _ context: UnsafeMutablePointer<evg_context>, most: Int
) -> [UnsafeRawPointer] {
  withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: most) { frames in
    let count = evg_context_frames(context, frames.baseAddress.unsafelyUnwrapped, most)
    return frames.prefix(count).compactMap { $0 }
  }
}

extension Hub {
  /// Whether ``AnyGreenlet/spawnStack`` is noted of each greenlet that is started on this hub: some
  /// 100 ns and a small allocation each. Off by default; `EVERGREEN_TRACK_SPAWNS=1` switches it on for
  /// all hubs.
  ///
  /// > gevent: `GEVENT_TRACK_GREENLET_TREE`, which is on by default.
  public var tracksSpawns: Bool {
    get { spawnInterest.tracks }
    set {
      checkIsCurrent()
      spawnInterest.tracks = newValue
    }
  }

  /// Called with each greenlet that is started on this hub, by the one that starts it; must not block.
  ///
  /// > gevent: `Greenlet.add_spawn_callback(callback)`.
  public var onSpawn: ((_ greenlet: AnyGreenlet) -> Void)? {
    get { spawnInterest.callback }
    set {
      checkIsCurrent()
      spawnInterest.callback = newValue
    }
  }

  struct SpawnInterest {
    var tracks = false
    var callback: ((AnyGreenlet) -> Void)?
    /// Greenlets have something that those whom they spawn inherit.
    var hasTrees = false
    var isAny: Bool { tracks || hasTrees || callback != nil }
  }
}

/// A variable that a greenlet shares with all whom it spawns from then on, and these with theirs.
///
/// ```swift
/// let requests = SpawnTreeLocal(default: 0)
/// requests.value += 1  // seen by the caller's spawn tree alone
/// ```
///
/// A tree begins at the greenlet that first uses one of these variables, unless it was spawned in a tree.
/// Shared, not copied: a change is seen by the whole tree. What each child is to have by itself is a
/// task local or a ``GreenletLocal``.
///
/// > gevent: `Greenlet.spawn_tree_locals`.
public final class SpawnTreeLocal<Value>: Sendable {
  private let initial: @Sendable () -> Value

  /// - Parameter initial: Evaluated when a tree first reads the variable.
  public init(default initial: @autoclosure @escaping @Sendable () -> Value) {
    self.initial = initial
  }

  /// The value of the running greenlet's tree.
  ///
  /// - Precondition: Not used in a callback on the hub's own stack: no greenlet runs there.
  public var value: Value {
    get {
      let tree = SpawnTree.current
      if let value = tree.values[ObjectIdentifier(self)] { return value.value as! Value }
      let value = initial()
      tree.values[ObjectIdentifier(self)] = (self, value)
      return value
    }
    set { SpawnTree.current.values[ObjectIdentifier(self)] = (self, newValue) }
  }
}

/// What a greenlet and those below it share.
final class SpawnTree {
  /// With what they are the values of, so that its place is not another's later.
  var values: [ObjectIdentifier: (key: AnyObject, value: Any)] = [:]

  static var current: SpawnTree {
    let greenlet = Greenlet.current
    if let tree = greenlet.extras?.tree { return tree }
    let tree = SpawnTree()
    greenlet.ownExtras.tree = tree
    greenlet.hub.spawnInterest.hasTrees = true
    return tree
  }
}
