// Evergreen: items from hand to hand.
// SPDX-License-Identifier: MIT
//
// The value lies in the frame of whoever came first. A sender that finds a receiver waiting puts it into
// that one's frame and goes on; a receiver that finds a sender takes it out of his. Only one who waits in
// a `Select` gets nothing into the hand, since he may choose otherwise: he is told that there is an offer,
// and comes for it.

import CGreenlet
import EvergreenBase
import EvergreenHub

/// Passes each item from one greenlet to another: who puts waits until somebody gets it.
///
/// ```swift
/// let numbers = Channel<Int>()
/// spawn { for number in 1...3 { try numbers.put(number) }; numbers.shutDown() }
/// for number in numbers { print(number) }
/// ```
///
/// Both sides are served in the order in which they came. Belongs to the hub on which it was made.
///
/// > gevent: `gevent.queue.Channel`.
public final class Channel<Element>: Sequence {
  private let hub = Hub.current
  private let receivers = Waiters()
  private let senders = Waiters()
  /// Offers that ones who wait in a `Select` have been told of.
  private var promised = 0

  fileprivate final class Waiters: WaitListOwner { var waiters = WaitList() }

  /// A node with a place for a value behind it.
  private struct Hand {
    var node: WaitNode
    var value: Element?
  }

  /// Whether ``shutDown()`` was called.
  public private(set) var isShutDown = false

  public init() {}

  /// Greenlets that wait to put, less those that wait to get.
  ///
  /// > gevent: `Channel.balance`.
  public var balance: Int { senders.waiters.count - receivers.waiters.count }

  private func hand(of node: UnsafeMutablePointer<WaitNode>) -> UnsafeMutablePointer<Hand> {
    UnsafeMutableRawPointer(node).assumingMemoryBound(to: Hand.self)
  }

  // MARK: Putting

  /// Gives the item to one who waits for it, if anybody does.
  ///
  /// - Returns: Whether it was given.
  /// - Throws: ``QueueShutDown``.
  ///
  /// > Switch point: No.
  public func tryPut(_ item: Element) throws -> Bool {
    hub.checkIsCurrent()
    if isShutDown { throw QueueShutDown() }
    guard let node = receivers.waiters.first, !node.pointee.isTentative else { return false }
    receivers.waiters.remove(node)
    hand(of: node).pointee.value = item
    node.signal()
    return true
  }

  /// Waits until somebody has got the item.
  ///
  /// - Parameters:
  ///   - item: What is put.
  ///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether somebody has; `false` if `timeout` ran out first, and then nobody will.
  /// - Throws: ``QueueShutDown``; what is thrown into the caller while it waits. Then nobody has got it.
  ///
  /// > Switch point: Yes, unless somebody waits for it.
  ///
  /// > gevent: `Channel.put(item, block=True, timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func put(_ item: Element, timeout: Duration? = nil) throws -> Bool {
    if try tryPut(item) { return true }
    let (isSignaled, left) = try meet(
      item, in: senders, WaitReason("one who gets it from a Channel"),
      until: Deadline(after: timeout, on: hub))
    if isSignaled, left != nil { throw QueueShutDown() }
    return isSignaled
  }

  /// Waits with a hand in which an item lies, or may be laid.
  ///
  /// - Returns: Whether somebody came, and what lies there then.
  private func meet(
    _ item: Element?, in side: Waiters, _ reason: WaitReason, until deadline: Deadline
  ) throws -> (Bool, Element?) {
    try hub.checkForDueError()
    if deadline.isNow { return (false, item) }
    var hand = Hand(node: WaitNode(context: evg_current().unsafelyUnwrapped), value: item)
    let isSignaled = withUnsafeMutablePointer(to: &hand) { hand in
      hub.stay(
        UnsafeMutableRawPointer(hand).assumingMemoryBound(to: WaitNode.self), reason,
        until: deadline,
        enlist: {
          side.waiters.append($0)
          if item != nil { tellSelecting() }
        }, delist: { side.waiters.remove($0) })
    }
    if !isSignaled { try hub.checkForDueError() }
    return (isSignaled, hand.value)
  }

  /// There is an offer for one who waits for several things.
  private func tellSelecting() {
    guard let node = receivers.waiters.first else { return }
    receivers.waiters.remove(node)
    promised += 1
    node.signal()
  }

  // MARK: Getting

  /// Whether an offer is there that nobody has been told of.
  var hasOffer: Bool { senders.waiters.count > promised }

  private func takeOffer() -> Element? {
    guard let node = senders.waiters.first else { return nil }
    senders.waiters.remove(node)
    let item = hand(of: node).pointee.value.take()
    node.signal()
    return item
  }

  /// Takes the item of one who waits to put it, if anybody does.
  ///
  /// > Switch point: No.
  public func tryGet() -> Element? {
    hub.checkIsCurrent()
    return promised == 0 || hasOffer ? takeOffer() : nil
  }

  /// Waits for an item.
  ///
  /// - Throws: ``QueueShutDown`` if nothing will come; what is thrown into the caller while it waits. Then
  ///   nothing was taken.
  ///
  /// > Switch point: Yes, unless somebody waits to put one.
  ///
  /// > gevent: `Channel.get()`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get() throws -> Element { try get(until: .never).unsafelyUnwrapped }

  /// Waits for an item.
  ///
  /// - Parameter timeout: The longest wait; `.zero` only looks.
  /// - Returns: The item; `nil` if `timeout` ran out first.
  /// - Throws: As ``get()``.
  ///
  /// > Switch point: Yes, unless somebody waits to put one.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get(timeout: Duration) throws -> Element? {
    try get(until: Deadline(after: timeout, on: hub))
  }

  private func get(until deadline: Deadline) throws -> Element? {
    if let item = tryGet() { return item }
    if isShutDown { throw QueueShutDown() }
    let (isSignaled, item) = try meet(
      nil, in: receivers, WaitReason("one who puts into a Channel"), until: deadline)
    if isSignaled, item == nil { throw QueueShutDown() }
    return item
  }

  // MARK: The end

  /// Ends it: those who wait, on either side, and those who come get ``QueueShutDown``.
  ///
  /// > Switch point: No.
  public func shutDown() {
    hub.checkIsCurrent()
    isShutDown = true
    senders.waiters.signalAll()
    receivers.waiters.signalAll()
  }

  public struct Iterator: IteratorProtocol {
    let channel: Channel<Element>

    /// > Switch point: Yes, unless somebody waits to put an item.
    @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
    public func next() -> Element? { try? channel.get() }
  }

  public func makeIterator() -> Iterator { Iterator(channel: self) }
}
