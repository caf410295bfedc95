// Evergreen: greenlets of which only so many run at a time.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub
public import Greenlets

/// A set of greenlets with a limit: who spawns into a full pool waits.
///
/// ```swift
/// let pool = Pool(size: 10)
/// for url in urls { try pool.spawn { try fetch(url) } }
/// try pool.join()
/// ```
///
/// Belongs to the hub on which it was made.
///
/// > gevent: `gevent.pool.Pool`.
public final class Pool {
  private let hub = Hub.current
  private let slots: Semaphore
  private var members: Set<AnyGreenlet> = []
  private let empty = Event(isSet: true)

  /// How many may run at a time; `nil` for no limit.
  public let size: Int?

  /// - Parameter size: How many may run at a time, 1 or more; `nil` for no limit.
  public init(size: Int? = nil) {
    require(size ?? 1 > 0, "a pool cannot have the size \(size ?? 0)")
    self.size = size
    slots = Semaphore(value: size ?? .max)
  }

  /// How many run, or are ready to.
  public var count: Int { members.count }
  /// How many more may be spawned before a spawner waits.
  public var freeCount: Int { slots.value }
  public var isFull: Bool { slots.value == 0 }
  public var isEmpty: Bool { members.isEmpty }

  /// Called whenever a greenlet has left.
  package var onLeave: (() -> Void)?

  /// The greenlets in it.
  public var greenlets: [AnyGreenlet] { Array(members) }

  /// Waits for a free place and spawns a greenlet in it.
  ///
  /// - Throws: What is thrown into the caller while it waits; then nothing was spawned.
  ///
  /// > Switch point: Yes, if the pool is full.
  ///
  /// > gevent: `Pool.spawn(function)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func spawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) throws -> Greenlet<Success> {
    hub.checkIsCurrent("a Pool")
    try slots.acquire()
    return enroll(stackSize: stackSize, file: file, line: line, body)
  }

  /// Spawns a greenlet if there is a free place now.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func trySpawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) -> Greenlet<Success>? {
    hub.checkIsCurrent("a Pool")
    guard slots.tryAcquire() else { return nil }
    return enroll(stackSize: stackSize, file: file, line: line, body)
  }

  private func enroll<Success>(
    stackSize: Int?, file: StaticString, line: UInt, _ body: @escaping () throws -> Success
  ) -> Greenlet<Success> {
    let greenlet = Greenlet(stackSize: stackSize, file: file, line: line, body)
    members.insert(greenlet)
    empty.clear()
    _ = greenlet.rawLink { [unowned greenlet] in self.leave(greenlet) }
    return greenlet.start()
  }

  private func leave(_ greenlet: AnyGreenlet) {
    members.remove(greenlet)
    slots.release()
    if members.isEmpty { empty.set() }
    onLeave?()
  }

  /// Whether a greenlet is in it.
  package func contains(_ greenlet: AnyGreenlet) -> Bool { members.contains(greenlet) }

  /// Waits until there is a free place; does not take it.
  ///
  /// - Returns: Whether there is one; `false` if `timeout` ran out first.
  ///
  /// > Switch point: Yes, if the pool is full.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func waitAvailable(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("a Pool")
    guard try slots.acquire(timeout: timeout) else { return false }
    slots.release()
    return true
  }

  /// Waits until the pool has been empty at least once.
  ///
  /// - Returns: Whether it has; `false` if `timeout` ran out first.
  ///
  /// > Switch point: Yes, unless it is empty.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func join(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent("a Pool")
    return try empty.wait(timeout: timeout)
  }

  /// Ends all its greenlets, also those that are added meanwhile.
  ///
  /// - Parameters:
  ///   - error: What is thrown into them.
  ///   - waiting: Whether to wait until all have ended.
  ///   - timeout: The longest wait for all of them together; `nil` waits for ever.
  /// - Returns: Whether the pool is empty.
  /// - Throws: What is thrown into the caller while it waits. To a caller that is in the pool
  ///   itself, `error`, when the others have ended.
  ///
  /// > Switch point: Yes, if it waits.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func kill(
    _ error: any Error = GreenletExit(), waiting: Bool = true, timeout: Duration? = nil
  ) throws -> Bool {
    hub.checkIsCurrent("a Pool")
    let deadline = Deadline(after: timeout, on: hub)
    let me: AnyGreenlet? = waiting ? Greenlet.current : nil
    while members.contains(where: { $0 !== me }) {
      let victims = members.filter { $0 !== me }
      try killAll(victims.sorted { $0.id < $1.id }, with: error, waiting: false)
      if !waiting { break }
      // Those that were there; newcomers are seen in the next round.
      for member in victims {
        guard try member.join(timeout: deadline.remaining(on: hub)) else { return false }
      }
    }
    if let me, members.contains(me) { throw error }
    return members.isEmpty
  }
}
