// Evergreen: items from greenlets for greenlets, in order.
// SPDX-License-Identifier: MIT
//
// Who must wait lies in a list, with a hand in its stack frame: a getter's is empty, a putter's holds
// the item. Whoever comes for the other side fills or empties the hand of the one that has waited
// longest, and wakes it. So nobody overtakes, and what lies in a hand counts even if a kill or a
// timeout comes before its greenlet runs: no item is lost or doubled.
//
//     items in the queue?   getters wait   putters wait
//     none                  possibly       only if there is no room at all (Channel)
//     some                  no             possibly, if it is full
//
// The calls that must not wait are inlined into the user's module, where the type of the items is known.

public import CGreenlet
import EvergreenBase
public import EvergreenHub

/// Passes items on, first in, first out.
///
/// ```swift
/// let jobs = Queue<Job>(capacity: 100)
/// spawn { for job in jobs { try run(job) } }  // until it is shut down
/// try jobs.put(job)                           // waits while 100 wait already
/// jobs.shutDown()
/// ```
///
/// Getters and putters are served in the order in which they came. Belongs to the hub on which it was
/// made.
///
/// > gevent: `gevent.queue.Queue`, whose `task_done` and `join` are ``JoinableQueue``'s.
public class Queue<Element>: Sequence {
  @usableFromInline final let hub = Hub.current
  @exclusivity(unchecked) @usableFromInline final var getters = WaitList()
  @exclusivity(unchecked) @usableFromInline final var putters = WaitList()
  @exclusivity(unchecked) @usableFromInline final var items = Ring<Element>()
  @usableFromInline final let limit: Int
  /// Whether the items lie in the ring, and not where a kind of its own keeps them.
  @usableFromInline final let isPlain: Bool

  @exclusivity(unchecked) @usableFromInline final var stored = 0
  @exclusivity(unchecked) @usableFromInline final var isClosed = false

  /// - Parameter capacity: How many items there may be before ``put(_:timeout:)`` waits, 1 or more; `nil`
  ///   for no limit. A ``Channel`` is one without room.
  public convenience init(capacity: Int? = nil) {
    self.init(limit: Queue.limit(of: capacity), isPlain: true)
  }

  /// - Parameters:
  ///   - limit: How many items there may be; 0 for none, so that who puts waits for who gets.
  ///   - isPlain: Whether the items are kept here.
  init(limit: Int, isPlain: Bool) {
    self.limit = limit
    self.isPlain = isPlain
  }

  static func limit(of capacity: Int?) -> Int {
    require(
      capacity ?? 1 > 0,
      "a queue cannot have the capacity \(capacity ?? 0); a Channel passes items without keeping any"
    )
    return capacity ?? .max
  }

  // What the kinds of queues differ in.
  @usableFromInline var kind: StaticString { "a Queue" }
  @usableFromInline func insert(_ item: Element) { items.append(item) }
  @usableFromInline func removeNext() -> Element { items.removeFirst() }
  @usableFromInline var next: Element? { items.first }
  /// An item goes from hand to hand, and never lies in the queue.
  @usableFromInline func passesByHand() {}

  // MARK: How it stands

  /// How many items can be got now without waiting for one to be put.
  ///
  /// > gevent: `Queue.qsize()`.
  public final var count: Int { stored }

  /// Whether ``shutDown(immediately:)`` was called.
  public final var isShutDown: Bool { isClosed }

  /// How many items there may be; `nil` for no limit, 0 for a ``Channel``.
  public final var capacity: Int? { limit == .max ? nil : limit }

  /// Whether no item lies in it.
  public final var isEmpty: Bool { stored == 0 }

  /// Whether no further item can lie in it; a ``Channel`` always is.
  public final var isFull: Bool { stored >= limit }

  /// The item that would be got next, which stays; `nil` if there is none.
  ///
  /// > gevent: `Queue.peek_nowait()`.
  public final var first: Element? { next }

  /// Greenlets that wait to put, less those that wait to get.
  ///
  /// > gevent: `Channel.balance`.
  public final var balance: Int { putters.count - getters.count }

  // MARK: Putting

  /// Puts an item if there is room, or somebody waits for one.
  ///
  /// - Returns: Whether it was put.
  /// - Throws: ``QueueShutDown``.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.put_nowait(item)`, which raises `Full`.
  @inlinable
  public final func tryPut(_ item: Element) throws -> Bool {
    hub.checkIsCurrent(kind)
    if isClosed { throw QueueShutDown() }
    if stored == 0, let getter = getters.removeFirst() {
      hand(item, to: getter)
      return true
    }
    if stored >= limit { return false }
    add(item)
    return true
  }

  /// Waits for room and puts an item.
  ///
  /// - Parameters:
  ///   - item: What is put.
  ///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether it was put; `false` if `timeout` ran out first.
  /// - Throws: ``QueueShutDown``; what is thrown into the caller while it waits. Then it was not put.
  ///
  /// > Switch point: Yes, if there is no room.
  ///
  /// > gevent: `Queue.put(item, block=True, timeout=None)`, which raises `Full`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @inlinable
  @discardableResult
  public final func put(_ item: Element, timeout: Duration? = nil) throws -> Bool {
    if try tryPut(item) { return true }
    return try waitAndPut(item, timeout)
  }

  @inlinable
  @inline(never)
  final func waitAndPut(_ item: Element, _ timeout: Duration?) throws -> Bool {
    try hub.checkForDueError()
    let deadline = Deadline(after: timeout, on: hub)
    if deadline.isNow { return false }
    var hand = Hand(item)
    let isSignaled = withUnsafeMutablePointer(to: &hand) { hand in
      putters.append(hand.node())
      if hub.stay(at: hand.node(), WaitReason("room in a queue"), until: deadline) { return true }
      putters.remove(hand.node())
      return false
    }
    if isSignaled {
      if hand.item != nil { throw QueueShutDown() }
      return true
    }
    try hub.checkForDueError()
    return false
  }

  @inlinable
  @inline(__always)
  final func add(_ item: Element) {
    stored += 1
    if isPlain { items.append(item) } else { insert(item) }
  }

  @inlinable
  @inline(__always)
  final func hand(_ item: Element, to getter: UnsafeMutablePointer<WaitNode>) {
    if !isPlain { passesByHand() }
    Hand<Element>.around(getter).pointee.item = item
    getter.signal()
  }

  // MARK: Getting

  /// Takes the next item if there is one.
  ///
  /// - Returns: The item; `nil` if there is none, also after a shut-down.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.get_nowait()`, which raises `Empty`.
  @inlinable
  public final func tryGet() -> Element? {
    hub.checkIsCurrent(kind)
    if stored == 0 {
      // Where there is room nobody waits to put into an empty queue.
      return limit > 0 ? nil : takeFromHand()
    }
    stored -= 1
    let item = isPlain ? items.removeFirst() : removeNext()
    if let item = takeFromHand() { add(item) }
    return item
  }

  @inlinable
  @inline(__always)
  final func takeFromHand() -> Element? {
    guard let putter = putters.removeFirst() else { return nil }
    if limit == 0, !isPlain { passesByHand() }
    let item = Hand<Element>.around(putter).pointee.item.take()
    putter.signal()
    return item
  }

  /// Waits for an item and takes it.
  ///
  /// - Returns: The item.
  /// - Throws: ``QueueShutDown`` when nothing is left and nothing will come; what is thrown into the
  ///   caller while it waits. Then nothing was taken.
  ///
  /// > Switch point: Yes, if there is none.
  ///
  /// > gevent: `Queue.get()`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @inlinable
  public final func get() throws -> Element {
    if let item = tryGet() { return item }
    return try waitAndGet(nil).unsafelyUnwrapped
  }

  /// Waits for an item and takes it.
  ///
  /// - Parameter timeout: The longest wait; `.zero` only looks.
  /// - Returns: The item; `nil` if `timeout` ran out first.
  /// - Throws: As ``get()``.
  ///
  /// > Switch point: Yes, if there is none.
  ///
  /// > gevent: `Queue.get(timeout=...)`, which raises `Empty`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @inlinable
  public final func get(timeout: Duration) throws -> Element? {
    if let item = tryGet() { return item }
    return try waitAndGet(timeout)
  }

  @inlinable
  @inline(never)
  final func waitAndGet(_ timeout: Duration?) throws -> Element? {
    if isClosed { throw QueueShutDown() }
    try hub.checkForDueError()
    let deadline = Deadline(after: timeout, on: hub)
    if deadline.isNow { return nil }
    let (isSignaled, item) = stay(until: deadline)
    if isSignaled {
      guard let item else { throw QueueShutDown() }
      return item
    }
    try hub.checkForDueError()
    return nil
  }

  /// - Returns: Whether somebody came, and what he has brought, if anything.
  @inlinable
  @inline(__always)
  final func stay(until deadline: Deadline) -> (Bool, Element?) {
    var hand = Hand<Element>(nil)
    let isSignaled = withUnsafeMutablePointer(to: &hand) { hand in
      getters.append(hand.node())
      if hub.stay(at: hand.node(), WaitReason("an item of a queue"), until: deadline) {
        return true
      }
      getters.remove(hand.node())
      return false
    }
    return (isSignaled, hand.item)
  }

  // MARK: Iterating

  /// Takes items as ``Queue/get()`` does, until the queue is shut down and empty, or something is due in
  /// the caller: that is thrown at its next switch point.
  public struct Iterator: IteratorProtocol {
    @usableFromInline let queue: Queue<Element>

    @inlinable
    init(queue: Queue<Element>) { self.queue = queue }

    /// > Switch point: Yes, if the queue is empty.
    @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
    @inlinable
    public func next() -> Element? { queue.tryGet() ?? queue.waitAndGetInLoop() }
  }

  @inlinable
  public final func makeIterator() -> Iterator { Iterator(queue: self) }

  @inlinable
  @inline(never)
  final func waitAndGetInLoop() -> Element? {
    isClosed || hub.mustLeaveForeignCode ? nil : stay(until: .never).1
  }

  // MARK: The end

  /// Ends it: from now on nothing can be put, and who waits for room gets ``QueueShutDown``. What is there
  /// can be got; then getters get ``QueueShutDown``, and iteration ends.
  ///
  /// - Parameter immediately: Whether to throw away what is there.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.shutdown(immediate=False)`.
  public final func shutDown(immediately: Bool = false) {
    hub.checkIsCurrent(kind)
    isClosed = true
    putters.signalAll()
    getters.signalAll()  // only if there is nothing for them
    if immediately { discard() }
  }

  func discard() {
    var discarded: [Element] = []  // they go when the queue is in order, whatever their end does
    while stored > 0 {
      stored -= 1
      discarded.append(removeNext())
    }
  }
}

/// A node with room for an item behind it.
@usableFromInline
struct Hand<Element> {
  @usableFromInline var waitNode: WaitNode
  @usableFromInline var item: Element?

  @inlinable
  init(_ item: Element?) {
    waitNode = WaitNode(context: evg_current().unsafelyUnwrapped)
    self.item = item
  }

  @inlinable
  init(_ item: Element?, in group: UnsafeMutablePointer<WaitGroup>) {
    waitNode = WaitNode(in: group)
    self.item = item
  }

  @inlinable
  @inline(__always)
  static func around(_ node: UnsafeMutablePointer<WaitNode>) -> UnsafeMutablePointer<Hand> {
    UnsafeMutableRawPointer(node).assumingMemoryBound(to: Hand.self)
  }
}

extension UnsafeMutablePointer {
  /// It comes first.
  @inlinable
  @inline(__always)
  func node<Element>() -> UnsafeMutablePointer<WaitNode> where Pointee == Hand<Element> {
    UnsafeMutableRawPointer(self).assumingMemoryBound(to: WaitNode.self)
  }
}

/// The queue has been shut down.
public struct QueueShutDown: Error, CustomStringConvertible {
  public init() {}

  public var description: String { "the queue has been shut down" }
}
