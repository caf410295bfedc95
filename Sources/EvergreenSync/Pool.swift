// Evergreen: greenlets of which only so many run at a time.
// SPDX-License-Identifier: MIT
//
// Places are handed on: who frees one gives it to the spawner that has waited longest, so nobody
// overtakes, and a spawner that is killed at the same moment has it and spawns.
//
// A member that spawns into its own full pool cannot wait for a place: if all members did, each would
// wait for the others. It runs the body itself, as in eventlet; the body has the member's place. To
// count the others that wait, and run only the last one's body, would still stand still where one of
// them has what the others wait for.

import EvergreenBase
public import EvergreenHub

/// A set of greenlets with a limit: who spawns into a full pool waits.
///
/// ```swift
/// let pool = Pool(size: 10)
/// for url in urls { try pool.spawn { try fetch(url) } }
/// try pool.join()
/// let titles = try pool.map(urls) { try title(of: fetch($0)) }
/// ```
///
/// Fair: spawners get places in the order in which they came. Belongs to the hub on which it was made.
///
/// > gevent: `gevent.pool.Pool`.
public final class Pool: AnyGroup, WaitListOwner {
  @exclusivity(unchecked) package var waiters = WaitList()
  /// Places that members have, or that spawners have been woken for.
  @exclusivity(unchecked) private var taken = 0

  /// How many may run at a time, 1 or more; `nil` for no limit.
  ///
  /// A larger one lets spawners go on at once. After a smaller one nobody is spawned until so many have
  /// left.
  @exclusivity(unchecked) public var size: Int? {
    didSet {
      Pool.check(size)
      handOnPlaces()
    }
  }

  private static func check(_ size: Int?) {
    require(
      size ?? 1 > 0,
      "a pool cannot have the size \(size ?? 0): nothing would ever run in it")
  }

  /// - Parameter size: How many may run at a time, 1 or more; `nil` for no limit.
  public init(size: Int? = nil) {
    Pool.check(size)
    self.size = size
  }

  /// How many more may be spawned before a spawner waits.
  public var freeCount: Int { max(0, (size ?? .max) - taken) }
  public var isFull: Bool { freeCount == 0 }
  /// How many wait for a place.
  ///
  /// > eventlet: `GreenPool.waiting()`.
  public var waitingCount: Int { waiters.count }

  // MARK: Places

  @usableFromInline
  override func tryTakePlace() -> Bool {
    checkIsCurrent()
    if isFull { return false }
    taken += 1
    return true
  }

  @usableFromInline
  override func takePlace() throws -> Bool {
    if tryTakePlace() { return true }
    if callerHasPlace {
      try hub.checkForDueError()
      return false
    }
    return try waitForPlace(until: .never)
  }

  private func waitForPlace(until deadline: Deadline) throws -> Bool {
    try hub.wait(WaitReason("a place in a Pool of", Int64(size ?? 0)), until: deadline, in: self)
  }

  override func givePlace() {
    taken -= 1
    handOnPlaces()
  }

  private func handOnPlaces() {
    while !isFull, waiters.signalFirst() { taken += 1 }
  }

  override var callerHasPlace: Bool {
    AnyGreenlet.currentIfAny.map { members.contains($0) } ?? false
  }

  override var usualBuffer: Int { size.map { $0 < 1 << 30 ? 2 * $0 : $0 } ?? 128 }

  // MARK: Spawning

  /// Waits for a free place and spawns a greenlet in it.
  ///
  /// If the caller is in the pool itself, and that is full, the body runs in the caller, before this
  /// returns, and the greenlet that is returned has ended: members that waited for each other's places
  /// would do so for ever. What is thrown into the caller meanwhile, this throws.
  ///
  /// - Parameters:
  ///   - stackSize: As for the function `spawn`.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: What it runs.
  /// - Returns: The greenlet.
  /// - Throws: What is thrown into the caller while it waits; then nothing was spawned.
  ///
  /// > Switch point: Yes, if the pool is full.
  ///
  /// > gevent: `Pool.spawn(function)`, which waits for ever where eventlet's, and this, go on.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  @inlinable
  public func spawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) throws -> Greenlet<Success> {
    let hasPlace = try takePlace()
    let greenlet = Greenlet(stackSize: stackSize, file: file, line: line, body)
    if !hasPlace {
      try runInCaller(greenlet)
      return greenlet
    }
    enroll(greenlet)
    return greenlet.start()
  }

  @usableFromInline
  func runInCaller(_ greenlet: AnyGreenlet) throws { try greenlet.runHere() }

  /// Spawns a greenlet if there is a free place now.
  ///
  /// - Parameters:
  ///   - stackSize: As for the function `spawn`.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: What it runs.
  /// - Returns: The greenlet; `nil` if there is no place.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @inlinable
  public func trySpawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) -> Greenlet<Success>? {
    guard tryTakePlace() else { return nil }
    let greenlet = Greenlet(stackSize: stackSize, file: file, line: line, body)
    enroll(greenlet)
    return greenlet.start()
  }

  /// Waits for a place and takes in a greenlet, started or not.
  ///
  /// - Parameters:
  ///   - greenlet: Who is to have the place; one that has ended leaves at once.
  ///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether it is in the pool; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if the pool is full.
  ///
  /// > gevent: `Pool.add(greenlet, blocking=True, timeout=None)`, which raises `PoolFull`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func add(_ greenlet: AnyGreenlet, timeout: Duration? = nil) throws -> Bool {
    if contains(greenlet) { return true }
    if !tryTakePlace() {
      guard try waitForPlace(until: Deadline(after: timeout, on: hub)) else { return false }
    }
    enroll(greenlet)
    return true
  }

  /// Waits until there is a free place; does not take it.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether there is one; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if the pool is full.
  ///
  /// > gevent: `Pool.wait_available(timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func waitAvailable(timeout: Duration? = nil) throws -> Bool {
    if !isFull { return true }
    guard try waitForPlace(until: Deadline(after: timeout, on: hub)) else { return false }
    givePlace()
    return true
  }
}
