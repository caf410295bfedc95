// Evergreen: waiting for several descriptors at once.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What can be waited for, and what is answered; the bits are those of poll(2).
public struct PollEvents: OptionSet, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: Int16

  /// The set with poll(2)'s bits, also such as have no name here.
  public init(rawValue: Int16) { self.rawValue = rawValue }

  private init(_ bits: Int32) { rawValue = Int16(truncatingIfNeeded: bits) }

  /// There is something to read, a connection to accept, or the end of the stream. `POLLIN`.
  public static let read = PollEvents(POLLIN)
  /// There is room to write, or a connection was made. `POLLOUT`.
  public static let write = PollEvents(POLLOUT)
  /// There is urgent data; what `select(2)` calls exceptional. `POLLPRI`.
  public static let priority = PollEvents(POLLPRI)
  #if os(Linux)
  /// The peer sends no more. `POLLRDHUP`.
  public static let peerFinished = PollEvents(0x2000)  // <poll.h> has the name for GNU sources only
  #endif

  /// Answered unasked: an error is waiting, or a pipe has no reader any more. `POLLERR`.
  public static let error = PollEvents(POLLERR)
  /// Answered unasked: the other end has gone, or both directions have ended; there may be something
  /// left to read. `POLLHUP`.
  public static let hangUp = PollEvents(POLLHUP)
  /// Answered unasked: this is no open descriptor, or was closed meanwhile. `POLLNVAL`.
  public static let invalid = PollEvents(POLLNVAL)

  public var description: String {
    var names: [(PollEvents, String)] = [
      (.read, "read"), (.write, "write"), (.priority, "priority"), (.error, "error"),
      (.hangUp, "hangUp"), (.invalid, "invalid"),
    ]
    #if os(Linux)
    names.append((.peerFinished, "peerFinished"))
    #endif
    var rest = self
    var parts: [String] = []
    for (event, name) in names where contains(event) {
      parts.append(name)
      rest.remove(event)
    }
    if !rest.isEmpty { parts.append("0x" + String(UInt16(bitPattern: rest.rawValue), radix: 16)) }
    return "[" + parts.joined(separator: ", ") + "]"
  }
}

/// One of the descriptors for which ``poll(_:timeout:)`` waits, and what for.
public struct PollRequest {
  private let number: Int32
  /// Held, so that nobody else gets its number.
  fileprivate let socket: Socket?
  /// What to wait for. `.error`, `.hangUp` and `.invalid` are answered in any case; with an empty set,
  /// they alone.
  public var events: PollEvents

  public init(_ socket: Socket, _ events: PollEvents) {
    number = -1
    self.socket = socket
    self.events = events
  }

  /// - Parameters:
  ///   - descriptor: Of any kind; it need not be non-blocking.
  ///   - events: What to wait for.
  public init(_ descriptor: Int32, _ events: PollEvents) {
    number = descriptor
    socket = nil
    self.events = events
  }

  /// Its number; negative if the socket has been closed.
  public var descriptor: Int32 { socket?.fileDescriptor ?? number }
}

/// What there is to report of a descriptor.
public struct PollAnswer: Hashable, Sendable {
  /// The place of the request.
  public let index: Int
  /// The descriptor's number when the wait began; negative if it was none.
  public let descriptor: Int32
  /// Never empty.
  public let events: PollEvents
}

/// Waits until at least one of several descriptors is ready, or has an error or an end to report.
///
/// ```swift
/// let answers = try poll([.init(socket, .read), .init(pipe, [.read, .priority])], timeout: .seconds(5))
/// for answer in answers where answer.index == 0 { try take(socket.receive(upTo: 4096)) }
/// ```
///
/// Nothing is read or written, and the descriptors stay what they are. The same one may be asked for
/// several times, and by several greenlets; of those who are told that there is something to read, one
/// gets it. Files on disk are always ready. Where a stream of bytes is wrapped into a ``BufferedStream``,
/// look into that first: what it has read already, nobody is told of.
///
/// What is not open, a closed socket for instance, is answered at once, with `.invalid`. So is what the
/// object that owns it closes, or gives away, during the wait. If `close(2)` is called instead, the wait
/// may not learn of it.
///
/// - Parameters:
///   - requests: In any order; without any, only time passes.
///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
/// - Returns: For each request of which there is something to report, in their order, what that is; none
///   if the time ran out.
/// - Throws: ``SocketError`` if there are more requests than the process may have descriptors; what is
///   thrown into the caller while it waits.
///
/// > Switch point: Yes, unless something is ready already.
///
/// > gevent: `gevent.select.poll` and `gevent.select.select`. The C function is `poll(2)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func poll(_ requests: [PollRequest], timeout: Duration? = nil) throws -> [PollAnswer] {
  let hub = Hub.current
  // On the heap: a greenlet's stack is small, and there may be thousands.
  let descriptors = UnsafeMutableBufferPointer<pollfd>.allocate(capacity: requests.count)
  defer { descriptors.deallocate() }
  for (index, request) in requests.enumerated() {
    request.socket?.descriptor.hub.checkIsCurrent("a socket")
    let number = request.descriptor
    // poll(2) passes over negative ones; nobody has the highest of all.
    descriptors.initializeElement(
      at: index,
      to: pollfd(fd: number < 0 ? .max : number, events: request.events.rawValue, revents: 0))
  }
  let count: Int
  do {
    count = try hub.poll(descriptors, until: Deadline(after: timeout, on: hub))
  } catch let error as Errno {
    throw SocketError(.wait, error, explanation: "\(requests.count) descriptors: \(error)")
  }
  if count == 0 { return [] }
  return withExtendedLifetime(requests) {
    descriptors.enumerated().compactMap { index, descriptor in
      if descriptor.revents == 0 { return nil }
      return PollAnswer(
        index: index, descriptor: descriptor.fd == .max ? -1 : descriptor.fd,
        events: PollEvents(rawValue: descriptor.revents))
    }
  }
}
