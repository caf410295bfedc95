// Evergreen: waiting for several things, in the order in which they become ready.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub

/// What ``wait(for:timeout:count:)``, ``iwait(for:)`` and ``select(_:)`` wait for: greenlets, events,
/// results, semaphores, and what is made of them.
///
/// A type of one's own forwards to one of those that it has inside:
///
/// ```swift
/// extension Job: Waitable {
///   var isReady: Bool { done.isSet }
///   func enlist(_ place: WaitPlace) { done.enlist(place) }
///   func delist(_ place: WaitPlace) { done.delist(place) }
/// }
/// ```
///
/// > gevent: an object that has `rawlink` and `unlink`.
public protocol Waitable: AnyObject {
  /// Whether there is nothing to wait for.
  var isReady: Bool { get }

  /// Puts one who waits where he will be found when this becomes ready. Called only if it is not.
  func enlist(_ place: WaitPlace)

  /// Takes him out, also if he has been found.
  func delist(_ place: WaitPlace)
}

/// The place of one who waits for several things, in the list of one of them.
public struct WaitPlace {
  package let node: UnsafeMutablePointer<WaitNode>
}

extension AnyGreenlet: Waitable {
  public func enlist(_ place: WaitPlace) { joiners.append(place.node) }
  public func delist(_ place: WaitPlace) { joiners.remove(place.node) }
}

extension Event: Waitable {
  /// Whether it is set.
  public var isReady: Bool { isSet }
  public func enlist(_ place: WaitPlace) { waiters.append(place.node) }
  public func delist(_ place: WaitPlace) { waiters.remove(place.node) }
}

extension AsyncResult: Waitable {
  public func enlist(_ place: WaitPlace) { waiters.append(place.node) }
  public func delist(_ place: WaitPlace) { waiters.remove(place.node) }
}

/// Ready when a permit is free, which is not taken.
extension Semaphore: Waitable {
  /// Whether a permit is free.
  public final var isReady: Bool { value > 0 }
  public final func enlist(_ place: WaitPlace) { lookers.append(place.node) }
  public final func delist(_ place: WaitPlace) { lookers.remove(place.node) }
}

/// Objects as they become ready: first those that are, in the order given, then the others in the order
/// in which they do. Each comes once; one that is given twice comes twice.
///
/// Whoever stops early, or is killed, leaves nothing behind.
///
/// > gevent: what `gevent.iwait` returns.
public final class ReadyObjects<Object>: Sequence, IteratorProtocol {
  private let hub = Hub.current
  private let objects: [Object]
  private let waitable: (Object) -> any Waitable
  private let group: UnsafeMutablePointer<WaitGroup>
  private let nodes: UnsafeMutablePointer<WaitNode>
  /// How many have come, or need not come.
  private var count = 0

  init(_ objects: [Object], _ waitable: @escaping (Object) -> any Waitable) {
    self.objects = objects
    self.waitable = waitable
    group = .allocate(capacity: 1)
    group.initialize(to: WaitGroup(takesOne: false))
    nodes = .allocate(capacity: objects.count)
    nodes.initialize(repeating: WaitNode(in: group), count: objects.count)
    // Only now, in an order in which none can become ready between the look at one and at the next.
    for (index, object) in objects.enumerated() {
      let object = waitable(object)
      if object.isReady {
        (nodes + index).signal()
      } else {
        object.enlist(WaitPlace(node: nodes + index))
      }
    }
  }

  deinit {
    for (index, object) in objects.enumerated() where !nodes[index].isSignaled {
      waitable(object).delist(WaitPlace(node: nodes + index))
    }
    nodes.deallocate()
    group.deallocate()
  }

  /// Waits for the next one.
  ///
  /// - Returns: The object; `nil` after the last one, and if something is due in the caller: that is
  ///   thrown at its next switch point.
  ///
  /// > Switch point: Yes, unless one is ready.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func next() -> Object? {
    if let ready = take() { return ready }
    if count == objects.count || hub.mustLeaveForeignCode { return nil }
    return takeNext(until: .never)
  }

  /// Waits for the next one.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: The object; `nil` after the last one, and if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless one is ready.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func next(timeout: Duration?) throws -> Object? {
    try next(until: Deadline(after: timeout, on: hub))
  }

  func next(until deadline: Deadline) throws -> Object? {
    if let ready = take() { return ready }
    if count == objects.count { return nil }
    try hub.checkForDueError()
    if deadline.isNow { return nil }
    if let ready = takeNext(until: deadline) { return ready }
    try hub.checkForDueError()
    return nil
  }

  private func take() -> Object? {
    hub.checkIsCurrent("what is waited for")
    return group.pointee.removeFirst().map { object(of: $0) }
  }

  private func takeNext(until deadline: Deadline) -> Object? {
    hub.stay(in: group, WaitReason("one of several things"), until: deadline).map { object(of: $0) }
  }

  private func object(of node: UnsafeMutablePointer<WaitNode>) -> Object {
    count += 1
    return objects[node - nodes]
  }
}

/// Gives objects as they become ready.
///
/// ```swift
/// let downloads = urls.map { url in spawn { try fetch(url) } }
/// for download in iwait(for: downloads) { print(download.value ?? "failed") }
/// ```
///
/// - Parameter objects: What is waited for; all of this hub.
/// - Returns: The objects, in the order in which they become ready.
///
/// > Switch point: No; getting the next one is.
///
/// > gevent: `gevent.iwait(objects)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func iwait<Object: Waitable>(for objects: some Sequence<Object>) -> ReadyObjects<Object> {
  ReadyObjects(Array(objects)) { $0 }
}

/// Gives objects of several kinds as they become ready; else as for those of one kind.
///
/// - Parameter objects: What is waited for; all of this hub.
/// - Returns: The objects, in the order in which they become ready.
///
/// > Switch point: No; getting the next one is.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func iwait(for objects: [any Waitable]) -> ReadyObjects<any Waitable> {
  ReadyObjects(objects) { $0 }
}

/// Waits until objects are ready.
///
/// ```swift
/// let fastest = try wait(for: mirrors, count: 1).first
/// ```
///
/// - Parameters:
///   - objects: What is waited for; all of this hub.
///   - timeout: The longest wait for all of them together; `nil` waits for ever, `.zero` only looks.
///   - count: How many to wait for; `nil` for all.
/// - Returns: Those that are ready, in the order in which they became so; fewer than wanted if `timeout`
///   ran out first.
/// - Throws: What is thrown into the caller while it waits.
///
/// > Switch point: Yes, unless enough are ready.
///
/// > gevent: `gevent.wait(objects, timeout, count)`; without objects it is ``Hub/join(timeout:)``.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func wait<Object: Waitable>(
  for objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil
) throws -> [Object] {
  try iwait(for: objects).collect(count, timeout)
}

/// Waits until objects of several kinds are ready; else as for those of one kind.
///
/// - Parameters:
///   - objects: What is waited for; all of this hub.
///   - timeout: The longest wait for all of them together; `nil` waits for ever, `.zero` only looks.
///   - count: How many to wait for; `nil` for all.
/// - Returns: Those that are ready, in the order in which they became so.
/// - Throws: What is thrown into the caller while it waits.
///
/// > Switch point: Yes, unless enough are ready.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func wait(
  for objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil
) throws -> [any Waitable] {
  try iwait(for: objects).collect(count, timeout)
}

extension ReadyObjects {
  fileprivate func collect(_ count: Int?, _ timeout: Duration?) throws -> [Object] {
    require(count ?? 0 >= 0, "cannot wait for \(count ?? 0) objects")
    let wanted = Swift.min(count ?? .max, objects.count)
    let deadline = Deadline(after: timeout, on: hub)
    var ready: [Object] = []
    while ready.count < wanted, let object = try next(until: deadline) { ready.append(object) }
    return ready
  }
}
