// Evergreen: messages for a hub from anywhere.
// SPDX-License-Identifier: MIT
//
// Senders put their messages where the hub will find them, under a lock, and post one letter for all that
// have come since the hub looked last. The hub moves them into a queue of its own, of which the receivers
// know. Where there is a limit it counts both, and a message counts until somebody has got it. Who waits
// for room and runs in a greenlet waits as greenlets do; another thread blocks. Room that becomes free is
// kept for those who have waited longest, so nobody overtakes; they are woken when half of it is free, or
// when the receiver pauses: waking a thread with each message would cost ten times what the message does.
//
// What lies between the two ends is not generic, or the compiler could not specialise it: a message goes in
// a parcel.

import CGreenlet
import EvergreenBase
import EvergreenHub
import Synchronization

/// A hub's mailbox for messages of one type: other threads, hubs and tasks send, greenlets receive.
///
/// ```swift
/// let inbox = Inbox<Job>(capacity: 100)
/// startThreads(inbox.sender)          // there: try sender.send(job)
/// for job in inbox { try run(job) }   // until somebody shuts it down
/// ```
///
/// The receiving end belongs to the hub on which it was made and serves as a ``Queue`` does: in order,
/// first come, first served. As long as somebody holds its ``sender``, the hub does not take a standstill
/// for a deadlock.
///
/// > gevent: `gevent.queue.SimpleQueue` between threads, `gevent.threading`'s hub-aware primitives.
public final class Inbox<Message>: Sequence {
  private let hub = Hub.current
  private let queue = Queue<AnyParcel>()
  private let core: InboxCore
  private weak var livingSender: InboxSender<Message>?

  /// How many messages there may be; `nil` for no limit.
  public var capacity: Int? { core.capacity }

  /// - Parameter capacity: How many messages may wait before ``InboxSender/send(_:timeout:)`` does, 1 or
  ///   more; `nil` for no limit.
  public init(capacity: Int? = nil) {
    require(capacity ?? 1 > 0, "an inbox cannot have the capacity \(capacity ?? 0)")
    core = InboxCore(capacity: capacity, door: hub.backDoor)
    core.queue = queue
    hub.attachments[ObjectIdentifier(core)] = InboxAnchor { [core] in core.close(with: HubEnded()) }
  }

  deinit {
    core.close(with: QueueShutDown())
    if hub.isCurrent { hub.attachments[ObjectIdentifier(core)] = nil }
  }

  /// The other end, for any thread and task.
  public var sender: InboxSender<Message> {
    hub.checkIsCurrent("an Inbox")
    if let livingSender { return livingSender }
    let sender = InboxSender<Message>(core, hub.mailbox)
    livingSender = sender
    return sender
  }

  /// How many messages can be got now.
  public var count: Int {
    hub.checkIsCurrent("an Inbox")
    core.moveAll()
    return queue.count
  }

  public var isEmpty: Bool { count == 0 }

  /// Whether ``shutDown()`` was called, at either end.
  public var isShutDown: Bool { core.isShutDown }

  /// Takes the next message if there is one.
  ///
  /// > Switch point: No.
  public func tryGet() -> Message? {
    hub.checkIsCurrent("an Inbox")
    core.moveAll()
    return open(queue.tryGet())
  }

  /// Waits for a message and takes it.
  ///
  /// - Throws: ``QueueShutDown`` when nothing is left and nothing will come; what is thrown into the
  ///   caller while it waits. Then nothing was taken.
  ///
  /// > Switch point: Yes, if there is none.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get() throws -> Message {
    hub.checkIsCurrent("an Inbox")
    core.moveAll()
    return open(try queue.get())
  }

  /// Waits for a message and takes it.
  ///
  /// - Parameter timeout: The longest wait; `.zero` only looks.
  /// - Returns: The message; `nil` if `timeout` ran out first.
  /// - Throws: As ``get()``.
  ///
  /// > Switch point: Yes, if there is none.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get(timeout: Duration) throws -> Message? {
    hub.checkIsCurrent("an Inbox")
    core.moveAll()
    return open(try queue.get(timeout: timeout))
  }

  private func open(_ parcel: AnyParcel?) -> Message? { parcel.map { open($0) } }

  private func open(_ parcel: AnyParcel) -> Message {
    core.noteTaken()
    return unsafeDowncast(parcel, to: Parcel<Message>.self).message
  }

  /// Ends it: from now on nothing can be sent, and who waits for room gets ``QueueShutDown``. What has
  /// been sent can be got; then receivers get ``QueueShutDown``, and iteration ends.
  ///
  /// > Switch point: No.
  public func shutDown() {
    hub.checkIsCurrent("an Inbox")
    core.shutDown()
    core.moveAll()
  }

  /// Takes messages as ``get()`` does, until it is shut down and empty, or something is due in the
  /// caller: that is thrown at its next switch point.
  public struct Iterator: IteratorProtocol {
    fileprivate let inbox: Inbox<Message>
    fileprivate var iterator: Queue<AnyParcel>.Iterator

    /// > Switch point: Yes, if there is no message.
    @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
    public mutating func next() -> Message? {
      inbox.hub.checkIsCurrent("an Inbox")
      inbox.core.moveAll()
      return inbox.open(iterator.next())
    }
  }

  public func makeIterator() -> Iterator {
    Iterator(inbox: self, iterator: queue.makeIterator())
  }
}

/// The end of an ``Inbox`` that may be handed to any thread and task.
public final class InboxSender<Message>: Sendable {
  private let core: InboxCore
  private let mailbox: Mailbox  // counts it as one who may wake the hub

  fileprivate init(_ core: InboxCore, _ mailbox: Mailbox) {
    self.core = core
    self.mailbox = mailbox
  }

  /// Whether ``shutDown()`` was called, at either end.
  public var isShutDown: Bool { core.isShutDown }

  /// Sends a message if there is room.
  ///
  /// Callable from any thread and from tasks.
  ///
  /// - Returns: Whether it was sent.
  /// - Throws: ``QueueShutDown``, also when nobody has the inbox any more; ``HubEnded``.
  ///
  /// > Switch point: No.
  @discardableResult
  public func trySend(_ message: sending Message) throws -> Bool {
    let parcel = Parcel(message)
    return try core.put(parcel, waiter: nil)
  }

  /// Waits for room and sends a message.
  ///
  /// In a greenlet, of whatever hub, it waits as greenlets do; elsewhere it blocks the thread.
  ///
  /// - Parameters:
  ///   - message: What is sent.
  ///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether it was sent; `false` if `timeout` ran out first.
  /// - Throws: As ``trySend(_:)``; what is thrown into the calling greenlet while it waits. Then it was
  ///   not sent.
  ///
  /// > Switch point: Yes, if there is no room.
  @available(*, noasync, message: "it may block; in async code use trySend(_:)")
  @discardableResult
  public func send(_ message: sending Message, timeout: Duration? = nil) throws -> Bool {
    let parcel = Parcel(message)
    if try core.put(parcel, waiter: nil) { return true }
    if let hub = Hub.currentIfAny { return try core.wait(on: hub, timeout, parcel) }
    return try core.waitOnThread(timeout, parcel)
  }

  /// Ends it; see ``Inbox/shutDown()``.
  ///
  /// > Switch point: No.
  public func shutDown() { core.shutDown() }
}

/// A message on its way.
private class AnyParcel: @unchecked Sendable {}

private final class Parcel<Message>: AnyParcel, @unchecked Sendable {
  // Unchecked: the message was `sending`, and the sender keeps nothing of it.
  let message: Message

  init(_ message: consuming Message) { self.message = message }
}

/// One who waits for room: told on its own hub, or by a signal to its thread.
private final class RoomWaiter: WaitListOwner, @unchecked Sendable {
  // Unchecked: the list belongs to the waiter's hub, `hasRoom` is guarded by the inbox's lock.
  var waiters = WaitList()
  /// Room has been kept for it.
  var hasRoom = false
  let door: MailboxCore?
  let signal: ThreadSignal?

  init(door: MailboxCore?) {
    self.door = door
    signal = door == nil ? ThreadSignal() : nil
  }

  func wake() {
    if let door { door.post { self.waiters.signalFirst() } } else { signal?.wakeOne() }
  }
}

/// Goes when the hub ends.
private final class InboxAnchor {
  let end: () -> Void
  init(_ end: @escaping () -> Void) { self.end = end }
  deinit { end() }
}

private enum Sending { case full, sent, sentFirst }

private final class InboxCore: @unchecked Sendable {
  // Unchecked: `queue` belongs to the hub.
  private struct State {
    var sent: [AnyParcel] = []
    /// Sent and not got yet, and room that is kept for somebody.
    var count = 0
    /// Why nothing can be sent any more.
    var end: (any Error)?
    var isOnTheWay = false
    /// Where there are any, all room is taken or kept for them.
    var waiters: [RoomWaiter] = []
    /// Room that is kept for them, and of which they will be told.
    var kept = 0
  }
  private let state = Guarded(State())
  private let hasNews = Atomic(false)
  let capacity: Int?
  let door: MailboxCore
  var queue: Queue<AnyParcel>?

  init(capacity: Int?, door: MailboxCore) {
    self.capacity = capacity
    self.door = door
  }

  var isShutDown: Bool { state.withLock { $0.end != nil } }

  // MARK: From any thread

  /// Sends it if there is room; else `waiter` will be told of room, once.
  func put(_ parcel: AnyParcel, waiter: RoomWaiter?) throws -> Bool {
    let answer: Sending = try state.withLock { state in
      if let end = state.end { throw end }
      if let waiter, waiter.hasRoom {
        waiter.hasRoom = false
      } else {
        if let capacity, state.count >= capacity {
          if let waiter { state.waiters.append(waiter) }
          return .full
        }
        state.count += 1
      }
      state.sent.append(parcel)
      hasNews.store(true, ordering: .releasing)
      if state.isOnTheWay { return .sent }
      state.isOnTheWay = true
      return .sentFirst
    }
    switch answer {
    case .full: return false
    case .sent: return true
    case .sentFirst:
      if tellHub() { return true }
      close(with: HubEnded())
      throw HubEnded()
    }
  }

  private func tellHub() -> Bool { door.post { [self] in moveAll() } }

  func shutDown() {
    let waiters: [RoomWaiter] = state.withLock { state in
      if state.end == nil { state.end = QueueShutDown() }
      hasNews.store(true, ordering: .releasing)
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.wake() }
    _ = tellHub()
  }

  /// Nobody will receive any more.
  func close(with error: any Error) {
    let (waiters, parcels) = state.withLock { state in
      if state.end == nil || error is HubEnded { state.end = error }
      defer { (state.waiters, state.sent) = ([], []) }
      return (state.waiters, state.sent)
    }
    for waiter in waiters { waiter.wake() }
    _ = parcels  // go now, outside the lock
  }

  /// Waits as a greenlet.
  func wait(on hub: Hub, _ timeout: Duration?, _ parcel: AnyParcel) throws -> Bool {
    let deadline = Deadline(after: timeout, on: hub)
    let waiter = RoomWaiter(door: hub.backDoor)
    hub.externalWakers += 1
    defer { hub.externalWakers -= 1 }
    if try put(parcel, waiter: waiter) { return true }
    do {
      _ = try hub.wait(WaitReason("room in an Inbox"), until: deadline, in: waiter)
    } catch {
      if (try? leave(waiter)) == true { passOn(waiter) }
      throw error
    }
    return try leave(waiter) && put(parcel, waiter: waiter)
  }

  /// Blocks the thread.
  func waitOnThread(_ timeout: Duration?, _ parcel: AnyParcel) throws -> Bool {
    let end = timeout.map { ContinuousClock.now.advanced(by: $0) }
    let waiter = RoomWaiter(door: nil)
    let seen = waiter.signal!.generation
    if try put(parcel, waiter: waiter) { return true }
    while true {
      let rest = end.map { ContinuousClock.now.duration(to: $0) } ?? .seconds(3600)
      if waiter.signal!.wait(since: seen, atMost: rest) || end != nil { break }
    }
    return try leave(waiter) && put(parcel, waiter: waiter)
  }

  /// Waits no more.
  ///
  /// - Returns: Whether room has been kept for it.
  /// - Throws: Why nothing can be sent any more.
  private func leave(_ waiter: RoomWaiter) throws -> Bool {
    try state.withLock { state in
      if let end = state.end { throw end }
      if waiter.hasRoom { return true }
      state.waiters.removeAll { $0 === waiter }
      if state.kept == 0 { return false }
      state.kept -= 1
      waiter.hasRoom = true
      return true
    }
  }

  /// Its room is somebody else's.
  private func passOn(_ waiter: RoomWaiter) {
    waiter.hasRoom = false
    noteTaken()
  }

  // MARK: On the hub

  func moveAll() {
    guard hasNews.load(ordering: .acquiring), let queue else { return }
    let (parcels, isAtEnd) = state.withLock { state in
      hasNews.store(false, ordering: .relaxed)
      state.isOnTheWay = false
      defer { state.sent = [] }
      return (state.sent, state.end != nil)
    }
    for parcel in parcels { _ = try? queue.tryPut(parcel) }
    if isAtEnd, !queue.isShutDown { queue.shutDown() }
  }

  /// There is room for one more.
  func noteTaken() {
    guard let capacity else { return }
    let kept = state.withLock { state in
      if state.waiters.isEmpty { state.count -= 1 } else { state.kept += 1 }
      return state.kept
    }
    if kept >= max(1, capacity / 2) {
      handOutRoom()
    } else if kept == 1 {
      door.post { [self] in handOutRoom() }
    }
  }

  private func handOutRoom() {
    let lucky = state.withLock { state in
      let lucky = state.waiters.prefix(state.kept)
      for waiter in lucky { waiter.hasRoom = true }
      state.waiters.removeFirst(lucky.count)
      state.count -= state.kept - lucky.count
      state.kept = 0
      return lucky
    }
    for waiter in lucky { waiter.wake() }
  }
}
