// Evergreen: connections and the like, lent to one greenlet at a time.
// SPDX-License-Identifier: MIT
//
// A permit of a fair semaphore stands for a resource that is lent, or is about to be. Who has got one
// takes an idle resource or makes one; whatever that comes to, the permit goes back on the way out. A
// waiter that is killed as it gets the permit has it, and gives it back in the same way. So neither
// place nor resource is lost, and no resource is promised to anybody who may never come.

import EventLoop
import EvergreenBase
import EvergreenHub
import Greenlets

/// Resources that are dear to make, connections above all, lent to one greenlet at a time.
///
/// ```swift
/// let connections = ResourcePool(maxSize: 10) { try Connection(to: database) }
/// let rows = try connections.withResource(timeout: .seconds(2)) { try $0.query("select 1") }
/// ```
///
/// They are made when needed, and kept for later ones. One that was in use when an error came out of the
/// block is thrown away, for an answer may be under way still: after a kill or a timeout always, after
/// other errors unless `keeping` says that they do not matter to it.
///
/// Fair: who has waited longest is next. Greenlets that each have one and wait for another may wait for
/// each other for ever: take one at a time, or give the wait a timeout. Belongs to the hub on which it was made.
///
/// > eventlet: `pools.Pool` and `db_pool`.
public final class ResourcePool<Resource> {
  /// Which of the idle resources is lent next.
  public enum Order: Sendable {
    /// The one that came back last: it is warm, and the others grow old.
    case lastUsedFirst
    /// The one that came back first: all are used alike.
    case longestIdleFirst
  }

  private struct Kept {
    let resource: Resource
    let born: UInt64
    var idleSince: UInt64
  }

  private let hub = Hub.current
  private let slots: Semaphore
  private let create: () throws -> Resource
  @exclusivity(unchecked) private var idle: [Kept] = []  // by the time at which they came back
  private let allReturned = Event(isSet: true)

  /// How many there may be.
  public let maxSize: Int
  /// How many idle ones the limit of idle time leaves alone.
  public let minSize: Int
  private let order: Order
  private let maxIdle: UInt64
  private let maxAge: UInt64
  private let isHealthy: ((Resource) throws -> Bool)?
  private let dispose: (Resource) throws -> Void
  private let keeps: (any Error) -> Bool

  /// How many are lent, or about to be.
  @exclusivity(unchecked) public private(set) var inUse = 0
  /// How many are idle.
  public var idleCount: Int { idle.count }
  /// How many wait for one.
  public var waitingCount: Int { slots.waiters.count }
  /// Whether ``close()`` was called.
  @exclusivity(unchecked) public private(set) var isClosed = false

  /// - Parameters:
  ///   - maxSize: How many resources there may be, 1 or more.
  ///   - minSize: How many idle ones `maxIdleTime` leaves alone.
  ///   - order: Which of the idle ones is lent next.
  ///   - maxIdleTime: After so long without use one is thrown away; `nil` for never. It is looked at when
  ///     the pool is used, and by ``disposeOfExpired()``.
  ///   - maxAge: After so long one is thrown away, when it is not in use; `nil` for never.
  ///   - isHealthy: Asked before an idle one is lent; may wait. If not, or if it throws, the resource is
  ///     thrown away and the next one tried.
  ///   - keeping: Whether an error that came out of a block leaves the resource usable. Not asked for
  ///     kills and timeouts, which leave it who knows where.
  ///   - dispose: Ends one that is thrown away; may wait, and is shielded from kills and timeouts. Its
  ///     error is ignored.
  ///   - create: Makes one; may wait.
  public init(
    maxSize: Int, minSize: Int = 0, order: Order = .lastUsedFirst,
    maxIdleTime: Duration? = nil, maxAge: Duration? = nil,
    isHealthy: ((Resource) throws -> Bool)? = nil,
    keeping: @escaping (any Error) -> Bool = { _ in false },
    disposing dispose: @escaping (Resource) throws -> Void = { _ in },
    create: @escaping () throws -> Resource
  ) {
    require(
      maxSize > 0 && (0...maxSize).contains(minSize),
      "a pool of resources cannot have between \(minSize) and \(maxSize)")
    self.maxSize = maxSize
    self.minSize = minSize
    self.order = order
    maxIdle = maxIdleTime?.clampedNanoseconds ?? .max
    self.maxAge = maxAge?.clampedNanoseconds ?? .max
    self.isHealthy = isHealthy
    keeps = keeping
    self.dispose = dispose
    self.create = create
    slots = Semaphore(value: maxSize)
  }

  // MARK: Lending

  /// Waits for a resource, lends it to `body`, and takes it back, however `body` ends.
  ///
  /// - Parameters:
  ///   - timeout: The longest wait for a resource, the time to make one included; `nil` waits for ever.
  ///   - body: Uses the resource, and must not keep it.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws; a ``Timeout`` if there was no resource in time; the error of the
  ///   closure that makes them; ``ResourcePoolClosed``; what is thrown into the caller.
  ///
  /// > Switch point: Yes, unless an idle one is at hand; and as the closures.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withResource<R>(
    timeout: Duration? = nil, _ body: (Resource) throws -> R
  ) throws -> R {
    let kept = try withTimeout(timeout) { try take() }
    defer { giveSlotBack() }
    let result: R
    do {
      result = try body(kept.resource)
    } catch {
      if survives(error) { putBack(kept) } else { end(kept.resource) }
      throw error
    }
    putBack(kept)
    return result
  }

  private func survives(_ error: any Error) -> Bool {
    !(error is GreenletExit || error is Timeout || error is GroupCancelled)
      && !AnyGreenlet.hasBeenThrown(error) && keeps(error)
  }

  /// Takes a slot, and a resource for it.
  private func take() throws -> Kept {
    hub.checkIsCurrent("a ResourcePool")
    if isClosed { throw ResourcePoolClosed() }
    try slots.acquire()
    inUse += 1
    allReturned.clear()
    do {
      while true {
        if isClosed { throw ResourcePoolClosed() }
        disposeOfExpired()
        guard let kept = order == .lastUsedFirst ? idle.popLast() : takeFirst() else { break }
        if try isUsable(kept.resource) { return kept }
      }
      let fresh = try create()
      // Made in time, and then the pool was closed.
      if isClosed {
        end(fresh)
        throw ResourcePoolClosed()
      }
      let now = hub.readClock()
      return Kept(resource: fresh, born: now, idleSince: now)
    } catch {
      giveSlotBack()
      throw error
    }
  }

  private func takeFirst() -> Kept? { idle.isEmpty ? nil : idle.removeFirst() }

  /// Ends one that is not.
  private func isUsable(_ resource: Resource) throws -> Bool {
    guard let isHealthy else { return true }
    do {
      if try isHealthy(resource) { return true }
      end(resource)
      return false
    } catch {
      end(resource)
      if AnyGreenlet.hasBeenThrown(error) { throw error }
      return false
    }
  }

  private func giveSlotBack() {
    inUse -= 1
    slots.release()
    if inUse == 0 { allReturned.set() }
  }

  private func putBack(_ kept: Kept) {
    let now = hub.readClock()
    if isClosed || now - kept.born >= maxAge { return end(kept.resource) }
    var kept = kept
    kept.idleSince = now
    idle.append(kept)
  }

  private func end(_ resource: Resource) {
    shielded { try? dispose(resource) }
  }

  // MARK: Keeping

  /// Makes resources until there are `minSize`, so that the first users need not wait.
  ///
  /// - Throws: The error of the closure that makes them; ``ResourcePoolClosed``; what is thrown into the
  ///   caller.
  ///
  /// > Switch point: As the closure.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func fill() throws {
    while true {
      hub.checkIsCurrent("a ResourcePool")
      if isClosed { throw ResourcePoolClosed() }
      if idle.count + inUse >= minSize { return }
      try slots.acquire()
      inUse += 1
      allReturned.clear()
      defer { giveSlotBack() }
      let now = hub.readClock()
      putBack(Kept(resource: try create(), born: now, idleSince: now))
    }
  }

  /// Throws away those that have been idle for too long, or are too old.
  ///
  /// > Switch point: As the closure that ends them.
  public func disposeOfExpired() {
    if maxIdle == .max && maxAge == .max { return }
    let now = hub.readClock()
    var ended: [Kept] = []
    idle.removeAll { kept in
      guard now - kept.born >= maxAge else { return false }
      ended.append(kept)
      return true
    }
    while idle.count > minSize, let first = idle.first, now - first.idleSince >= maxIdle {
      ended.append(idle.removeFirst())
    }
    for kept in ended { end(kept.resource) }
  }

  /// Throws away the idle ones; those that are lent are kept when they come back.
  ///
  /// > Switch point: As the closure that ends them.
  public func disposeOfIdle() {
    let all = idle
    idle = []
    for kept in all { end(kept.resource) }
  }

  // MARK: The end

  /// Ends the pool: who waits gets ``ResourcePoolClosed``, idle ones are thrown away, and those that are
  /// lent when they come back.
  ///
  /// > Switch point: As the closure that ends them.
  public func close() {
    hub.checkIsCurrent("a ResourcePool")
    if isClosed { return }
    isClosed = true
    slots.release(slots.waiters.count)  // they look, and leave
    disposeOfIdle()
  }

  /// Closes the pool and waits until all have come back.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether all have; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless none is lent.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func drain(timeout: Duration? = nil) throws -> Bool {
    close()
    return try allReturned.wait(timeout: timeout)
  }
}

/// The pool of resources has been closed.
public struct ResourcePoolClosed: Error, Hashable, Sendable, CustomStringConvertible {
  public init() {}

  public var description: String { "the pool of resources has been closed" }
}
