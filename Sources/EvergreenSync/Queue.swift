// Evergreen: items from greenlets for greenlets, in order.
// SPDX-License-Identifier: MIT
//
// Who waits for an item, or for room, has a place in a list. The one that makes an item available wakes
// the first of them and promises it: others see one item less from then on, so nobody overtakes, and
// the one that was woken takes it even if it is killed at the same moment. Room is promised likewise.
// So an item is neither lost nor doubled, and no node carries one.

import EvergreenBase
import EvergreenHub

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
  fileprivate let hub = Hub.current
  fileprivate let getters = Waiters()
  fileprivate let putters = Waiters()
  private var items = Ring<Element>()
  /// Items that greenlets have been woken for, and room.
  private var promisedItems = 0
  private var promisedRoom = 0

  fileprivate final class Waiters: WaitListOwner { var waiters = WaitList() }

  /// How many items there may be; `nil` for no limit.
  public final let capacity: Int?

  /// Whether ``shutDown(immediately:)`` was called.
  public final private(set) var isShutDown = false

  /// - Parameter capacity: How many items there may be before ``put(_:timeout:)`` waits, 1 or more; `nil`
  ///   for no limit. A ``Channel`` is one without room.
  public init(capacity: Int? = nil) {
    require(capacity ?? 1 > 0, "a queue cannot have the capacity \(capacity ?? 0)")
    self.capacity = capacity
  }

  // What the kinds of queues differ in.
  func insert(_ item: Element) { items.append(item) }
  func removeNext() -> Element { items.removeFirst() }
  var next: Element? { items.first }
  var stored: Int { items.count }

  /// How many items can be got now.
  ///
  /// > gevent: `Queue.qsize()`.
  public final var count: Int { stored - promisedItems }
  public final var isEmpty: Bool { count <= 0 }
  /// Whether ``put(_:timeout:)`` would wait.
  public final var isFull: Bool { capacity.map { stored + promisedRoom >= $0 } ?? false }

  /// The item that would be got next, which stays.
  ///
  /// > gevent: `Queue.peek_nowait()`.
  public final var first: Element? { isEmpty ? nil : next }

  // MARK: Putting

  /// Puts an item if there is room.
  ///
  /// - Returns: Whether it was put.
  /// - Throws: ``QueueShutDown``.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.put_nowait(item)`, which raises `Full`.
  public final func tryPut(_ item: Element) throws -> Bool {
    hub.checkIsCurrent()
    if isShutDown { throw QueueShutDown() }
    if isFull { return false }
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
  /// > Switch point: Yes, if the queue is full.
  ///
  /// > gevent: `Queue.put(item, block=True, timeout=None)`, which raises `Full`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func put(_ item: Element, timeout: Duration? = nil) throws -> Bool {
    if try tryPut(item) { return true }
    guard
      try hub.wait(
        WaitReason("room in a queue"), until: Deadline(after: timeout, on: hub), in: putters)
    else { return false }
    guard promisedRoom > 0 else { throw QueueShutDown() }
    promisedRoom -= 1
    if isShutDown {
      // It was closed after the room was promised, before the caller could use it.
      throw QueueShutDown()
    }
    add(item)
    return true
  }

  private func add(_ item: Element) {
    insert(item)
    if getters.waiters.signalFirst() { promisedItems += 1 }
  }

  // MARK: Getting

  /// Takes the next item if there is one.
  ///
  /// - Returns: The item; `nil` if there is none, also after a shut-down.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.get_nowait()`, which raises `Empty`.
  public final func tryGet() -> Element? {
    hub.checkIsCurrent()
    return isEmpty ? nil : take()
  }

  /// Waits for an item and takes it.
  ///
  /// - Throws: ``QueueShutDown`` when nothing is left and nothing will come; what is thrown into the
  ///   caller while it waits. Then nothing was taken.
  ///
  /// > Switch point: Yes, if the queue is empty.
  ///
  /// > gevent: `Queue.get()`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func get() throws -> Element {
    try get(until: .never).unsafelyUnwrapped
  }

  /// Waits for an item and takes it.
  ///
  /// - Parameter timeout: The longest wait; `.zero` only looks.
  /// - Returns: The item; `nil` if `timeout` ran out first.
  /// - Throws: As ``get()``.
  ///
  /// > Switch point: Yes, if the queue is empty.
  ///
  /// > gevent: `Queue.get(timeout=...)`, which raises `Empty`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func get(timeout: Duration) throws -> Element? {
    try get(until: Deadline(after: timeout, on: hub))
  }

  private func get(until deadline: Deadline) throws -> Element? {
    if let item = tryGet() { return item }
    if isShutDown { throw QueueShutDown() }
    guard try hub.wait(WaitReason("an item of a queue"), until: deadline, in: getters) else {
      return nil
    }
    guard let item = takePromised() else { throw QueueShutDown() }
    return item
  }

  private func takePromised() -> Element? {
    guard promisedItems > 0 else { return nil }
    promisedItems -= 1
    return take()
  }

  private func take() -> Element {
    let item = removeNext()
    if !isFull, putters.waiters.signalFirst() { promisedRoom += 1 }
    return item
  }

  // MARK: Iterating

  /// Takes items as ``get()`` does, until the queue is shut down and empty, or something is due in the
  /// caller: that is thrown at its next switch point.
  public struct Iterator: IteratorProtocol {
    let queue: Queue<Element>

    /// > Switch point: Yes, if the queue is empty.
    @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
    public func next() -> Element? {
      if let item = queue.tryGet() { return item }
      if queue.isShutDown { return nil }
      let isSignaled = queue.hub.stayInForeignCode(
        WaitReason("an item of a queue"), in: queue.getters)
      return isSignaled ? queue.takePromised() : nil
    }
  }

  public final func makeIterator() -> Iterator { Iterator(queue: self) }

  // MARK: The end

  /// Ends it: from now on nothing can be put, and who waits for room gets ``QueueShutDown``. What is there
  /// can be got; then getters get ``QueueShutDown``, and iteration ends.
  ///
  /// - Parameter immediately: Whether to throw away what is there and nobody has been woken for.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Queue.shutdown(immediate=False)`.
  public func shutDown(immediately: Bool = false) {
    hub.checkIsCurrent()
    isShutDown = true
    putters.waiters.signalAll()
    getters.waiters.signalAll()  // only if there is nothing for them
    if immediately { discard() }
  }

  fileprivate func discard() {
    while count > 0 { _ = removeNext() }
  }
}

/// The queue has been shut down.
public struct QueueShutDown: Error, CustomStringConvertible {
  public init() {}

  public var description: String { "the queue has been shut down" }
}

/// A ``Queue`` that gives the newest item first.
///
/// > gevent: `gevent.queue.LifoQueue`.
public final class LifoQueue<Element>: Queue<Element> {
  private var stack: [Element] = []

  override func insert(_ item: Element) { stack.append(item) }
  override func removeNext() -> Element { stack.removeLast() }
  override var next: Element? { stack.last }
  override var stored: Int { stack.count }
}

/// A ``Queue`` that gives the least item first; of equal ones, the one that was put first.
///
/// > gevent: `gevent.queue.PriorityQueue`.
public final class PriorityQueue<Element: Comparable>: Queue<Element> {
  private var heap: [(item: Element, number: UInt64)] = []
  private var numbers: UInt64 = 0

  override var next: Element? { heap.first?.item }
  override var stored: Int { heap.count }

  private func isBefore(_ one: Int, _ other: Int) -> Bool {
    if heap[one].item < heap[other].item { return true }
    if heap[other].item < heap[one].item { return false }
    return heap[one].number < heap[other].number
  }

  override func insert(_ item: Element) {
    heap.append((item, numbers))
    numbers += 1
    var place = heap.count - 1
    while place > 0, isBefore(place, (place - 1) / 2) {
      heap.swapAt(place, (place - 1) / 2)
      place = (place - 1) / 2
    }
  }

  override func removeNext() -> Element {
    heap.swapAt(0, heap.count - 1)
    let least = heap.removeLast().item
    var place = 0
    while true {
      var child = 2 * place + 1
      if child >= heap.count { return least }
      if child + 1 < heap.count, isBefore(child + 1, child) { child += 1 }
      if !isBefore(child, place) { return least }
      heap.swapAt(place, child)
      place = child
    }
  }
}

/// A ``Queue`` that knows which items have been dealt with.
///
/// > gevent: `gevent.queue.JoinableQueue`.
public final class JoinableQueue<Element>: Queue<Element> {
  private let done = Event(isSet: true)

  /// Items that were put and for which ``taskDone()`` has not been called.
  public private(set) var unfinished = 0

  override func insert(_ item: Element) {
    super.insert(item)
    unfinished += 1
    done.clear()
  }

  /// Says that an item which was got has been dealt with.
  ///
  /// - Precondition: Not called more often than items were put.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `JoinableQueue.task_done()`.
  public func taskDone() {
    hub.checkIsCurrent()
    require(unfinished > 0, "taskDone was called more often than items were put")
    unfinished -= 1
    if unfinished == 0 { done.set() }
  }

  /// Waits until all items have been dealt with.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether they have; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless they have been.
  ///
  /// > gevent: `JoinableQueue.join(timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func join(timeout: Duration? = nil) throws -> Bool { try done.wait(timeout: timeout) }

  /// Items that are thrown away need not be dealt with.
  override func discard() {
    let before = stored
    super.discard()
    unfinished -= before - stored
    if unfinished == 0 { done.set() }
  }
}
