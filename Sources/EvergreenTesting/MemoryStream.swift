// Evergreen: a connection in memory.
// SPDX-License-Identifier: MIT
//
// A connection is two pipes, one for each direction. What is sent is on its way for a time that the
// conditions say, in order, and takes up room from the moment when it is sent; who receives makes
// room again. An end, and a loss, travel like bytes, behind those that were sent before.

import CLibev
import EventLoop
import EvergreenBase
import EvergreenHub
public import EvergreenNet

/// One end of a connection in memory: a ``ByteStream`` that needs no descriptor.
///
/// ```swift
/// let (client, server) = MemoryStream.pair()
/// spawn { try serve(server) }
/// try client.sendAll("hello\n")
/// ```
///
/// It behaves like a socket of a pair, or, if a ``SimulatedNetwork`` has made it, like one of TCP:
/// bytes come in order, one at a time may receive and one send, a full buffer makes the sender wait,
/// and what was closed, shut down or lost is told by the same errors. Other than with sockets
///
/// - nothing comes from outside of the hub, so virtual time is exact and a seed decides all;
/// - there are no options, no descriptor, no urgent data and no lingering;
/// - the buffer has exactly its capacity, which bytes that are under way fill, too;
/// - TCP's repetitions and its control of congestion take no time of their own.
///
/// It belongs to the hub on which it was made. When its last reference goes, it is closed.
public final class MemoryStream: ByteStream {
  let hub = Hub.current
  private let incoming: MemoryPipe
  private let outgoing: MemoryPipe
  private let conditions: NetworkConditions
  private let local: SocketAddress
  private let remote: SocketAddress

  /// The longest an operation may take that is given no time of its own; `nil` is for ever.
  public var timeout: Duration?

  /// Whether ``close()`` was called.
  public private(set) var isClosed = false

  fileprivate init(
    _ incoming: MemoryPipe, _ outgoing: MemoryPipe, _ conditions: NetworkConditions,
    _ local: SocketAddress, _ remote: SocketAddress
  ) {
    self.incoming = incoming
    self.outgoing = outgoing
    self.conditions = conditions
    self.local = local
    self.remote = remote
  }

  deinit { if hub.isCurrent { close() } }

  /// Two ends of one connection.
  ///
  /// - Parameters:
  ///   - capacity: How many bytes there may be on the way to each end, 1 or more.
  ///   - seed: Decides how many of the bytes that could be are taken by each send and receive, and
  ///     when others get a turn; `nil`: all of them, and as with sockets.
  /// - Returns: The two ends.
  public static func pair(
    capacity: Int = 64 * 1024, seed: UInt64? = nil
  ) -> (MemoryStream, MemoryStream) {
    let conditions = NetworkConditions(random: seed.map { SeededRandom(seed: $0) })
    return pair(capacity, conditions, .unnamedUnix, .unnamedUnix)
  }

  static func pair(
    _ capacity: Int, _ conditions: NetworkConditions, _ one: SocketAddress, _ other: SocketAddress
  ) -> (MemoryStream, MemoryStream) {
    require(capacity > 0, "a MemoryStream cannot have room for \(capacity) bytes")
    let there = MemoryPipe(capacity, conditions)
    let back = MemoryPipe(capacity, conditions)
    there.back = back
    back.back = there
    return (
      MemoryStream(back, there, conditions, one, other),
      MemoryStream(there, back, conditions, other, one)
    )
  }

  var pipes: [MemoryPipe] { [outgoing, incoming] }

  public var localAddress: SocketAddress { local }
  public var peerAddress: SocketAddress { remote }

  /// Bytes that can be received now.
  public var availableCount: Int { incoming.count }

  // MARK: Receiving

  /// Waits for data and takes what is there; see ``ByteStream/receive(upTo:timeout:)``.
  ///
  /// > Switch point: Yes, unless data is there.
  public func receive(upTo count: Int, timeout: Duration? = nil) throws -> [UInt8]? {
    require(count > 0, "cannot receive up to \(count) bytes")
    var bytes: [UInt8] = []
    let received = try receive(count, timeout) { bytes = Array($0) }
    return received == 0 ? nil : bytes
  }

  /// Waits for data and writes it to `buffer`; see ``ByteStream/receive(into:timeout:)``.
  ///
  /// > Switch point: Yes, unless data is there.
  public func receive(
    into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil
  ) throws -> Int {
    try receive(buffer.count, timeout) { buffer.copyBytes(from: $0) }
  }

  private func receive(
    _ most: Int, _ timeout: Duration?, _ take: (ArraySlice<UInt8>) -> Void
  ) throws -> Int {
    hub.checkIsCurrent()
    let deadline = Deadline(after: timeout ?? self.timeout, on: hub)
    try incoming.readers.enter("receive from")
    defer { incoming.readers.leave() }
    try giveTurnIfDue()
    while true {
      if isClosed { throw SocketError.closed(.receive, remote) }
      if incoming.isDeaf { return 0 }
      if incoming.count > 0 {
        let count = conditions.part(of: min(most, incoming.count))
        take(incoming.first(count))
        incoming.drop(count)
        return count
      }
      if let failure = incoming.failure.take() { throw SocketError(.receive, failure, remote) }
      if incoming.hasEnded { return 0 }
      guard
        try incoming.readers.wait(WaitReason("data of a MemoryStream"), until: deadline, on: hub)
      else { throw SocketError(.receive, .timedOut, remote) }
    }
  }

  /// Others get a turn after many operations that need not wait, and whenever the seed says.
  private func giveTurnIfDue() throws {
    if hub.chargeIO() || conditions.givesTurn() { try hub.giveTurn() }
  }

  // MARK: Sending

  /// Sends as much as there is room for; see ``ByteStream/send(_:timeout:)``.
  ///
  /// > Switch point: Yes, unless there is room.
  public func send(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws -> Int {
    hub.checkIsCurrent()
    let deadline = Deadline(after: timeout ?? self.timeout, on: hub)
    try outgoing.writers.enter("send to")
    defer { outgoing.writers.leave() }
    return try sendSome(bytes, deadline)
  }

  /// Sends all of it; see ``ByteStream/sendAll(_:timeout:)``.
  ///
  /// > Switch point: Yes, unless there is room for all.
  public func sendAll(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws {
    hub.checkIsCurrent()
    let deadline = Deadline(after: timeout ?? self.timeout, on: hub)
    try outgoing.writers.enter("send to")
    defer { outgoing.writers.leave() }
    var sent = 0
    repeat {
      do { sent += try sendSome(UnsafeRawBufferPointer(rebasing: bytes[sent...]), deadline) } catch
      {
        throw error.after(sending: sent)
      }
    } while sent < bytes.count
  }

  private func sendSome(_ bytes: UnsafeRawBufferPointer, _ deadline: Deadline) throws -> Int {
    try giveTurnIfDue()
    while true {
      if isClosed { throw SocketError.closed(.send, remote) }
      if outgoing.isShut { throw SocketError(.send, .brokenPipe, remote) }
      if let refusal = outgoing.refusal {
        outgoing.refusal = .brokenPipe  // from the second time on
        throw SocketError(.send, refusal, remote)
      }
      if bytes.isEmpty { return 0 }
      if outgoing.room > 0 {
        let count = conditions.part(of: min(bytes.count, outgoing.room))
        outgoing.send([UInt8](UnsafeRawBufferPointer(rebasing: bytes[..<count])))
        return count
      }
      guard
        try outgoing.writers.wait(WaitReason("room in a MemoryStream"), until: deadline, on: hub)
      else { throw SocketError(.send, .timedOut, remote) }
    }
  }

  // MARK: Ending

  /// Ends one or both directions; the other goes on.
  ///
  /// To read no more means that the peer can send no more, if this is a pair; over a network it can,
  /// and what it sends is lost.
  ///
  /// > Switch point: No.
  public func shutdown(_ direction: Socket.Direction = .both) throws {
    hub.checkIsCurrent()
    if isClosed { throw SocketError.closed(.shutdown, remote) }
    if direction != .write { incoming.turnDeaf() }
    if direction != .read { outgoing.shut(with: .end) }
  }

  /// Closes it. The peer gets the end of the stream, or, if there was something to receive yet, a
  /// reset: it has been lost.
  ///
  /// > Switch point: No.
  public func close() {
    hub.checkIsCurrent()
    if isClosed { return }
    isClosed = true
    let isLossy = incoming.count > 0
    incoming.isReaderGone = true
    incoming.turnDeaf()
    outgoing.writers.wake()
    outgoing.shut(with: isLossy ? .loss : .end)
  }

  /// Loses the connection at once, as if both ends had been told so by the network: what was under
  /// way is lost, what has arrived can be received, and then there is ``EventLoop/Errno/connectionReset``.
  ///
  /// > Switch point: No.
  public func reset() {
    hub.checkIsCurrent()
    for pipe in pipes { pipe.lose() }
  }
}

/// How connections fare.
final class NetworkConditions {
  var random: SeededRandom?
  /// Whether there is a network between the two ends, and not only memory.
  var isNetwork = false
  var delay: ClosedRange<Duration> = .zero ... .zero
  var isPartial = true
  var lossProbability = 0.0

  init(random: SeededRandom?) { self.random = random }

  func part(of count: Int) -> Int {
    guard isPartial, count > 1, random != nil, !random!.oneIn(3) else { return count }
    return random!.next(below: count) + 1
  }

  func givesTurn() -> Bool { random?.oneIn(8) ?? false }

  func nextDelay() -> Duration {
    delay.lowerBound == delay.upperBound ? delay.lowerBound : random!.duration(in: delay)
  }

  func loses() -> Bool { lossProbability > 0 && random!.chance(lossProbability) }
}

/// Who waits at one end of a pipe: one at a time.
final class PipeEnd: WaitListOwner {
  var waiters = WaitList()
  private var user: AnyGreenlet?

  func enter(_ verb: String) throws {
    if let user, !user.isReady {
      throw ConcurrentUse(of: "a MemoryStream to \(verb)", by: Greenlet.current, while: user)
    }
    user = Greenlet.current
  }

  func leave() { user = nil }

  func wait(_ reason: WaitReason, until deadline: Deadline, on hub: Hub) throws -> Bool {
    try hub.wait(reason, until: deadline, in: self)
  }

  func wake() { waiters.signalAll() }
}

/// One direction of a connection.
final class MemoryPipe {
  enum Packet {
    case bytes([UInt8])
    /// Nothing will come after this.
    case end
    /// The connection is lost.
    case loss
  }

  private let hub = Hub.current
  private let conditions: NetworkConditions
  private let capacity: Int
  /// The other direction, which lives as long.
  unowned var back: MemoryPipe!
  let readers = PipeEnd()
  let writers = PipeEnd()

  private var arrived: [UInt8] = []
  private var start = 0
  private var underWay: [(packet: Packet, at: UInt64)] = []
  private var bytesUnderWay = 0
  private var timer: UnsafeMutablePointer<evg_timer>?
  /// The network is cut: nothing arrives until it is healed.
  var isHeld = false {
    didSet { if isHeld != oldValue { isHeld ? hold() : release() } }
  }

  // Of the one that sends.
  private(set) var isShut = false
  var refusal: Errno?
  // Of the one that receives.
  private(set) var hasEnded = false
  private(set) var isDeaf = false
  var isReaderGone = false
  var failure: Errno?

  init(_ capacity: Int, _ conditions: NetworkConditions) {
    self.capacity = capacity
    self.conditions = conditions
  }

  deinit {
    guard let timer else { return }
    if timer.pointee.armed, hub.isCurrent { hub.loop.stop(timer) }
    timer.deallocate()
  }

  // MARK: The one that receives

  var count: Int { arrived.count - start }

  func first(_ count: Int) -> ArraySlice<UInt8> { arrived[start..<start + count] }

  func drop(_ count: Int) {
    start += count
    if start >= arrived.count / 2 {
      arrived.removeFirst(start)
      start = 0
    }
    writers.wake()
  }

  /// Nobody receives any more: what comes is lost.
  func turnDeaf() {
    isDeaf = true
    arrived = []
    start = 0
    readers.wake()
    // Where there is no network the sender knows at once that nobody receives.
    if !conditions.isNetwork, refusal == nil { refusal = .brokenPipe }
    writers.wake()
  }

  // MARK: The one that sends

  var room: Int { isDeaf && conditions.isNetwork ? capacity : capacity - count - bytesUnderWay }

  func send(_ bytes: [UInt8]) {
    if conditions.loses() {
      lose()
      back.lose()
      return
    }
    bytesUnderWay += bytes.count
    put(.bytes(bytes))
  }

  /// Nothing more is sent.
  func shut(with last: Packet) {
    if isShut, case .end = last { return }
    isShut = true
    writers.wake()
    put(last)
  }

  // MARK: On the way

  private func put(_ packet: Packet) {
    let earliest = Deadline(after: conditions.nextDelay(), on: hub)
    if underWay.isEmpty, !isHeld, earliest.isNow { return deliver(packet) }
    let due = earliest.isNow ? hub.readClock() : earliest.nanoseconds
    underWay.append((packet, max(due, underWay.last?.at ?? 0)))
    if underWay.count == 1 { schedule() }
  }

  private func schedule() {
    guard !isHeld, let first = underWay.first else { return }
    if timer == nil {
      timer = .allocate(capacity: 1)
      evg_timer_init(
        timer!,
        { timer in
          Unmanaged<MemoryPipe>.fromOpaque(timer.pointee.context!).takeUnretainedValue().arrive()
        }, Unmanaged.passUnretained(self).toOpaque())
    }
    hub.loop.start(timer!, at: first.at)
  }

  /// Called by the loop.
  private func arrive() {
    let now = hub.readClock()
    while !isHeld, let first = underWay.first, first.at <= now {
      underWay.removeFirst()
      deliver(first.packet)
    }
    schedule()
  }

  private func deliver(_ packet: Packet) {
    switch packet {
    case .bytes(let bytes):
      bytesUnderWay -= bytes.count
      if isReaderGone {
        // Nobody is there: the sender is told, and whoever waits for an answer.
        back.put(.loss)
      } else if !isDeaf {
        arrived.append(contentsOf: bytes)
        readers.wake()
      }
      if isDeaf { writers.wake() }
    case .end:
      hasEnded = true
      readers.wake()
    case .loss:
      lose()
      back.lose()
    }
  }

  /// The connection is lost, as both ends see at once.
  func lose() {
    stopTimer()
    underWay = []
    bytesUnderWay = 0
    if !hasEnded { failure = .connectionReset }
    hasEnded = true
    if refusal == nil { refusal = .connectionReset }
    readers.wake()
    writers.wake()
  }

  private func stopTimer() {
    if let timer, timer.pointee.armed { hub.loop.stop(timer) }
  }

  private func hold() { stopTimer() }

  /// What could not arrive is sent again.
  private func release() {
    let soon = Deadline(after: conditions.nextDelay(), on: hub)
    let due = soon.isNow ? hub.readClock() : soon.nanoseconds
    for index in underWay.indices { underWay[index].at = max(underWay[index].at, due) }
    schedule()
  }
}
