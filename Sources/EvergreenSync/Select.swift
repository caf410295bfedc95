// Evergreen: whichever of several things can be done first.
// SPDX-License-Identifier: MIT
//
// 1. The cases are looked at in an order drawn by lot, and the first that can be done is.
// 2. If none can be, the greenlet lies in the lists of all of them, with one hand each. The nodes are of
//    one group that takes one: whoever fills, empties or signals the first of them has decided, and the
//    others are passed over from then on, so nothing is given to a case that is not chosen.
// 3. Awake, it takes out what is left of the others.

import EvergreenBase
public import EvergreenHub

/// One of the things of which ``select(_:)-(SelectCase<R>...)`` does the first that can be done.
///
/// > Go: a `case` of `select`.
public struct SelectCase<R> {
  @usableFromInline let kind: SelectKind
  /// What comes of it when it has been chosen.
  @usableFromInline let body: () throws -> R

  @inlinable
  init(_ kind: SelectKind, body: @escaping () throws -> R) {
    self.kind = kind
    self.body = body
  }

  /// Takes an item from a queue or a channel.
  ///
  /// - Parameters:
  ///   - queue: Where it is taken.
  ///   - body: Gets the item. May wait. If the queue has been shut down and is empty the case is chosen
  ///     and throws ``QueueShutDown``; ``next(of:_:)`` answers `nil` then.
  /// - Returns: The case.
  @inlinable
  public static func get<Element>(
    from queue: Queue<Element>, _ body: @escaping (Element) throws -> R
  ) -> SelectCase {
    next(of: queue) {
      guard let item = $0 else { throw QueueShutDown() }
      return try body(item)
    }
  }

  /// Takes an item from a queue or a channel, or sees its end.
  ///
  /// - Parameters:
  ///   - queue: Where it is taken.
  ///   - body: Gets the item, or `nil` if the queue has been shut down and is empty. May wait.
  /// - Returns: The case.
  @inlinable
  public static func next<Element>(
    of queue: Queue<Element>, _ body: @escaping (Element?) throws -> R
  ) -> SelectCase {
    let hand = Hand<Element>.allocate()
    let arm = SelectArm { step in
      switch step {
      case .attempt:
        hand.pointee.item = queue.tryGet()
        return hand.pointee.item != nil || queue.isClosed
      case .enlist(let group):
        hand.pointee.waitNode = WaitNode(in: group)
        queue.getters.append(hand.node())
      case .leave: queue.getters.remove(hand.node())
      case .isChosen(let node): return hand.node() == node
      case .free: hand.free()
      }
      return false
    }
    return SelectCase(.arm(arm)) {
      try withExtendedLifetime(arm) { try body(hand.pointee.item.take()) }
    }
  }

  /// Puts an item into a queue, or hands it over through a channel.
  ///
  /// - Parameters:
  ///   - item: What is put if the case is chosen, and only then.
  ///   - queue: Where it is put. If it has been shut down the case is chosen and throws ``QueueShutDown``.
  ///   - body: May wait.
  /// - Returns: The case.
  @inlinable
  public static func put<Element>(
    _ item: Element, into queue: Queue<Element>, _ body: @escaping () throws -> R
  ) -> SelectCase {
    let hand = Hand<Element>.allocate()
    let arm = SelectArm { step in
      switch step {
      case .attempt:
        let isPut = try? queue.tryPut(item)
        hand.pointee.item = isPut == true ? nil : item
        return isPut != false
      case .enlist(let group):
        hand.pointee.waitNode = WaitNode(in: group)
        queue.putters.append(hand.node())
      case .leave: queue.putters.remove(hand.node())
      case .isChosen(let node): return hand.node() == node
      case .free: hand.free()
      }
      return false
    }
    return SelectCase(.arm(arm)) {
      try withExtendedLifetime(arm) {
        if hand.pointee.item.take() != nil { throw QueueShutDown() }
        return try body()
      }
    }
  }

  /// Waits until something is ready: a greenlet has ended, an event is set, a result is there, a permit
  /// is free (which is not taken).
  ///
  /// - Parameters:
  ///   - object: What is waited for.
  ///   - body: Gets it. May wait.
  /// - Returns: The case.
  @inlinable
  public static func ready<Object: Waitable>(
    _ object: Object, _ body: @escaping (Object) throws -> R
  ) -> SelectCase {
    SelectCase(.arm(SelectArm(object))) { try body(object) }
  }

  /// Waits for time to pass. What can be done at the same moment is done instead.
  ///
  /// - Parameters:
  ///   - duration: From the beginning of the `select`; zero or less only looks at the other cases.
  ///   - body: May wait.
  /// - Returns: The case.
  ///
  /// > Go: `case <-time.After(duration)`.
  @inlinable
  public static func after(
    _ duration: Duration, _ body: @escaping () throws -> R
  ) -> SelectCase { SelectCase(.after(duration), body: body) }

  /// What is done if none of the others can be done now; then nothing is waited for.
  ///
  /// > Go: `default`.
  @inlinable
  public static func otherwise(_ body: @escaping () throws -> R) -> SelectCase {
    SelectCase(.otherwise, body: body)
  }
}

/// Does the first of several things that can be done, and none of the others.
///
/// ```swift
/// let text = try select(
///   .get(from: numbers) { "number \($0)" },
///   .put("work", into: jobs) { "a worker has taken it" },
///   .ready(worker) { "\($0) has ended" },
///   .after(.seconds(1)) { "nothing happened" })
/// ```
///
/// Of several that can be done at once each is as likely. Who waits in a `select` has his place among
/// the others who wait, in the order in which they came.
///
/// - Parameter cases: One or more, none of them twice; not more than one each of
///   ``SelectCase/after(_:_:)`` and ``SelectCase/otherwise(_:)``.
/// - Returns: What the case that was chosen returns.
/// - Throws: What that case throws; what is thrown into the caller while it waits, and then nothing was
///   done.
///
/// > Switch point: Yes, unless one can be done at once.
///
/// > Go: `select`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@inlinable
public func select<R>(_ cases: SelectCase<R>...) throws -> R { try select(cases) }

/// Does the first of several things that can be done, and none of the others; else as the form without
/// brackets.
///
/// - Parameter cases: One or more.
/// - Returns: What the case that was chosen returns.
/// - Throws: What that case throws; what is thrown into the caller while it waits.
///
/// > Switch point: Yes, unless one can be done at once.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@inlinable
public func select<R>(_ cases: [SelectCase<R>]) throws -> R {
  try withUnsafeTemporaryAllocation(of: SelectKind.self, capacity: cases.count) { kinds in
    for place in cases.indices { kinds.initializeElement(at: place, to: cases[place].kind) }
    defer { kinds.deinitialize() }
    return try cases[choose(among: kinds)].body()
  }
}

@usableFromInline
enum SelectKind {
  case arm(SelectArm)
  case after(Duration)
  case otherwise
}

/// - Returns: The place of the case that was chosen, which has been done.
@usableFromInline
func choose(among kinds: UnsafeMutableBufferPointer<SelectKind>) throws -> Int {
  var arms: [(place: Int, arm: SelectArm)] = []
  arms.reserveCapacity(kinds.count)
  var otherwise: Int?
  var after: (place: Int, duration: Duration)?
  for (place, kind) in kinds.enumerated() {
    switch kind {
    case .arm(let arm): arms.append((place, arm))
    case .after(let duration):
      require(after == nil, "a select can have one case `after`")
      after = (place, duration)
    case .otherwise:
      require(otherwise == nil, "a select can have one case `otherwise`")
      otherwise = place
    }
  }
  require(!kinds.isEmpty, "a select without cases would wait for ever")
  let hub = Hub.current
  let deadline = Deadline(after: after?.duration, on: hub)
  for index in arms.indices { arms.swapAt(index, hub.draw(below: index + 1)) }
  for (place, arm) in arms where arm.take(.attempt) { return place }
  if let otherwise { return otherwise }
  try hub.checkForDueError()
  if let after, deadline.isNow { return after.place }
  if let place = hub.stay(among: arms, until: deadline) { return place }
  try hub.checkForDueError()
  return after.unsafelyUnwrapped.place
}

extension Hub {
  /// Waits in the lists of all.
  ///
  /// - Returns: The place of the one that was chosen; `nil` if an error is due or `deadline` has come.
  fileprivate func stay(
    among arms: [(place: Int, arm: SelectArm)], until deadline: Deadline
  ) -> Int? {
    var group = WaitGroup(takesOne: true)
    return withUnsafeMutablePointer(to: &group) { group in
      for (_, arm) in arms { _ = arm.take(.enlist(in: group)) }
      let chosen = stay(in: group, WaitReason("one of several cases"), until: deadline)
      for (_, arm) in arms { _ = arm.take(.leave) }
      return chosen.flatMap { node in arms.first { $0.arm.take(.isChosen(by: node)) }?.place }
    }
  }
}

/// What a case does while it is chosen among: one closure, made where the type of its items is known.
@usableFromInline
final class SelectArm {
  @usableFromInline
  enum Step {
    /// Do it if it can be done now. Whether it has been done.
    case attempt
    /// Begin to wait. It is done by whoever makes it possible.
    case enlist(in: UnsafeMutablePointer<WaitGroup>)
    case leave
    case isChosen(by: UnsafeMutablePointer<WaitNode>)
    case free
  }

  @usableFromInline let take: (Step) -> Bool

  @inlinable
  init(_ take: @escaping (Step) -> Bool) { self.take = take }

  deinit { _ = take(.free) }

  @usableFromInline
  convenience init(_ object: some Waitable) {
    let node = UnsafeMutablePointer<WaitNode>.allocate(capacity: 1)
    self.init { step in
      switch step {
      case .attempt: return object.isReady
      case .enlist(let group):
        node.initialize(to: WaitNode(in: group))
        object.enlist(WaitPlace(node: node))
      case .leave: object.delist(WaitPlace(node: node))
      case .isChosen(let chosen): return node == chosen
      case .free: node.deallocate()
      }
      return false
    }
  }
}

extension Hand {
  /// One that is in no stack frame, and empty.
  @inlinable
  static func allocate() -> UnsafeMutablePointer<Hand> {
    let hand = UnsafeMutablePointer<Hand>.allocate(capacity: 1)
    hand.initialize(to: Hand(nil))
    return hand
  }
}

extension UnsafeMutablePointer {
  @inlinable
  func free<Element>() where Pointee == Hand<Element> {
    deinitialize(count: 1)
    deallocate()
  }
}
