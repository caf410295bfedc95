// Evergreen: reading a stream by lines, delimiters and counts, and writing it in few calls.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub

/// A socket, or another stream, with buffers in front of it.
///
/// ```swift
/// let stream = BufferedStream(socket)
/// while let line = try stream.readLine() { try stream.writeAll("\(line)\n"); try stream.flush() }
/// ```
///
/// One greenlet may read while another writes. What the stream has read ahead is its own: do not
/// read from the socket beside it.
///
/// > gevent: `socket.makefile()`.
public final class BufferedStream {
  /// What is read from and written to.
  public let base: any ByteStream
  /// The same if it is a socket, whose calls are made directly.
  private let socket: Socket?
  private let hub: Hub
  /// Who is reading from, and writing to, what is no socket.
  private var reader: AnyGreenlet?
  private var writer: AnyGreenlet?
  private let chunk: Int
  @exclusivity(unchecked) private var input: [UInt8] = []
  @exclusivity(unchecked) private var start = 0
  @exclusivity(unchecked) private var isAtEnd = false
  @exclusivity(unchecked) private var output: [UInt8] = []

  /// - Parameters:
  ///   - socket: A connected stream.
  ///   - bufferSize: How many bytes are asked for at a time, and kept before they are sent.
  public init(_ socket: Socket, bufferSize: Int = 16 * 1024) {
    checkCount(bufferSize, atLeast: 1, "make a buffer of")
    base = socket
    self.socket = socket
    hub = socket.descriptor.hub
    chunk = bufferSize
  }

  /// - Parameters:
  ///   - base: What is used like a socket.
  ///   - bufferSize: How many bytes are asked for at a time, and kept before they are sent.
  public init(_ base: any ByteStream, bufferSize: Int = 16 * 1024) {
    checkCount(bufferSize, atLeast: 1, "make a buffer of")
    self.base = base
    socket = base as? Socket
    hub = socket?.descriptor.hub ?? Hub.current
    chunk = bufferSize
  }

  /// Bytes that were received and not read yet.
  public var bufferedCount: Int { input.count - start }

  // MARK: Reading

  /// What is there, at most `count` bytes; `nil` at the end of the stream.
  ///
  /// > Switch point: Yes, unless there is something in the buffer.
  public func read(upTo count: Int, timeout: Duration? = nil) throws -> [UInt8]? {
    checkCount(count, atLeast: 1, "read up to")
    try checkUnread()
    let deadline = deadline(timeout)
    if bufferedCount == 0, try !fill(until: deadline) { return nil }
    return take(min(count, bufferedCount))
  }

  /// Exactly so many bytes.
  ///
  /// - Throws: ``EndOfStream`` if the stream ends before; what has come stays in the buffer.
  ///
  /// > Switch point: Yes, unless they are in the buffer.
  public func read(exactly count: Int, timeout: Duration? = nil) throws -> [UInt8] {
    checkCount(count, atLeast: 0, "read")
    try checkUnread()
    let deadline = deadline(timeout)
    while bufferedCount < count {
      guard try fill(until: deadline) else {
        throw EndOfStream(wanted: count, received: bufferedCount, from: peerIfKnown)
      }
    }
    return take(count)
  }

  /// All bytes until `delimiter`, which is read as well but not returned.
  ///
  /// - Parameters:
  ///   - delimiter: One byte or more.
  ///   - limit: How many bytes there may be before the delimiter; 0 or more.
  ///   - timeout: For the whole of it; `nil` for the socket's ``Socket/timeout``.
  /// - Returns: The bytes; `nil` if the stream has ended and nothing was left.
  /// - Throws: ``LimitExceeded``; ``EndOfStream`` if the stream ends between. In both cases what
  ///   has come stays in the buffer.
  ///
  /// > Switch point: Yes, unless the delimiter is in the buffer.
  public func read(
    until delimiter: [UInt8], limit: Int = 64 * 1024, timeout: Duration? = nil
  ) throws -> [UInt8]? {
    if delimiter.isEmpty { fatal("an empty delimiter delimits nothing") }
    return try read(until: delimiter, limit: limit, uncounted: nil, until: deadline(timeout))
  }

  /// The same; the byte `uncounted` does not count if it is the last one before the delimiter.
  private func read(
    until delimiter: [UInt8], limit: Int, uncounted: UInt8?, until deadline: Deadline
  ) throws -> [UInt8]? {
    checkCount(limit, atLeast: 0, "read a line of up to")
    try checkUnread()
    func check(_ count: Int) throws {
      if count <= limit { return }
      let isSpared = uncounted != nil && input[start + count - 1] == uncounted
      if count - (isSpared ? 1 : 0) > limit { throw LimitExceeded(limit: limit) }
    }
    var searched = 0  // bytes behind `start` at which no delimiter begins
    while true {
      if let found = find(delimiter, from: searched) {
        try check(found)
        let bytes = take(found)
        skip(delimiter.count)
        return bytes
      }
      searched = max(0, bufferedCount - delimiter.count + 1)
      try check(searched)
      guard try fill(until: deadline) else {
        if bufferedCount == 0 { return nil }
        throw EndOfStream(wanted: nil, received: bufferedCount, from: peerIfKnown)
      }
    }
  }

  /// The next line, without its `\n` or `\r\n`. The last one may lack it.
  ///
  /// - Parameters:
  ///   - limit: How many bytes a line may have, its end not counted; 0 or more.
  ///   - timeout: For the whole of it; `nil` for the socket's ``Socket/timeout``.
  /// - Returns: The line, as UTF-8 with repairs; `nil` at the end of the stream.
  /// - Throws: ``LimitExceeded``; then what has come stays in the buffer.
  ///
  /// > Switch point: Yes, unless a line is in the buffer.
  public func readLine(limit: Int = 64 * 1024, timeout: Duration? = nil) throws -> String? {
    var bytes: [UInt8]
    do {
      guard
        let line = try read(
          until: [UInt8(ascii: "\n")], limit: limit, uncounted: UInt8(ascii: "\r"),
          until: deadline(timeout))
      else { return nil }
      bytes = line
    } catch is EndOfStream {
      bytes = take(bufferedCount)
    }
    if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// What another greenlet waits to see the end of must not be taken from under it.
  private func checkUnread() throws {
    if let socket { return try socket.descriptor.checkUnused(.read, .receive) }
    try refuse("read", while: reader)
  }

  private func take(_ count: Int) -> [UInt8] {
    defer { skip(count) }
    return [UInt8](input[start..<start + count])
  }

  private func skip(_ count: Int) {
    start += count
    if start == input.count {
      input.removeAll(keepingCapacity: input.capacity <= 4 * chunk)
      start = 0
    }
  }

  private func find(_ delimiter: [UInt8], from searched: Int) -> Int? {
    let bytes = input[start...]
    guard bytes.count >= delimiter.count else { return nil }
    let last = bytes.endIndex - delimiter.count
    var index = bytes.startIndex + searched
    while index <= last {
      guard let hit = bytes[index...last].firstIndex(of: delimiter[0]) else { return nil }
      if bytes[hit..<hit + delimiter.count].elementsEqual(delimiter) { return hit - start }
      index = hit + 1
    }
    return nil
  }

  /// Receives more. False at the end of the stream.
  private func fill(until deadline: Deadline) throws -> Bool {
    if isAtEnd { return false }
    if start > 0, start >= input.count / 2 {
      input.removeFirst(start)
      start = 0
    }
    guard let socket else { return try fillFromBase(until: deadline) }
    let room = hub.scratch
    let size = min(chunk, room.count)
    let received = try socket.receiveRaw(
      UnsafeMutableRawBufferPointer(rebasing: room[..<size]), deadline, midway: true)
    if received == 0 {
      isAtEnd = true
      return false
    }
    input.append(contentsOf: room[..<received])
    return true
  }

  // MARK: What is no socket

  @inline(__always)
  private func deadline(_ timeout: Duration?) -> Deadline {
    if let socket { return socket.deadline(timeout) }
    return Deadline(after: timeout ?? base.timeout, on: hub)
  }

  private var peerIfKnown: SocketAddress? {
    if let socket { return socket.peerIfKnown }
    return try? base.peerAddress
  }

  private func refuse(_ verb: String, while first: AnyGreenlet?) throws {
    guard let first, !first.isReady else { return }
    throw ConcurrentUse(of: "a stream to \(verb)", by: Greenlet.current, while: first)
  }

  @inline(never)
  private func fillFromBase(until deadline: Deadline) throws -> Bool {
    reader = Greenlet.current
    defer { reader = nil }
    guard let bytes = try base.receive(upTo: chunk, timeout: deadline.remaining(on: hub)) else {
      isAtEnd = true
      return false
    }
    input.append(contentsOf: bytes)
    return true
  }

  @inline(never)
  private func sendToBase(_ bytes: UnsafeRawBufferPointer, until deadline: Deadline) throws -> Int {
    try refuse("flush", while: writer)
    writer = Greenlet.current
    defer { writer = nil }
    return try base.send(bytes, timeout: deadline.remaining(on: hub))
  }

  // MARK: Writing

  /// Keeps bytes to be sent, and sends when there are enough of them.
  ///
  /// - Throws: As ``flush(timeout:)``. The bytes are kept all the same: do not write them again.
  ///
  /// > Switch point: Yes, if the buffer is full.
  public func writeAll(_ bytes: [UInt8], timeout: Duration? = nil) throws {
    output.append(contentsOf: bytes)
    if output.count >= chunk { try flush(timeout: timeout) }
  }

  /// Keeps a text to be sent as UTF-8; see ``writeAll(_:timeout:)-([UInt8],_)``.
  ///
  /// > Switch point: Yes, if the buffer is full.
  public func writeAll(_ text: String, timeout: Duration? = nil) throws {
    output.append(contentsOf: text.utf8)
    if output.count >= chunk { try flush(timeout: timeout) }
  }

  /// Bytes that were written and not sent yet.
  public var unsentCount: Int { output.count }

  /// Sends what is kept.
  ///
  /// When time runs out, or the caller is interrupted, what the kernel has not taken is kept, and the
  /// next flush sends it. When the connection is broken, it is dropped.
  ///
  /// - Throws: ``SocketError``; ``ConcurrentUse`` while another greenlet flushes; what is thrown into
  ///   the caller while it waits.
  ///
  /// > Switch point: Yes, unless the kernel has room for all.
  public func flush(timeout: Duration? = nil) throws {
    if output.isEmpty { return }
    let deadline = deadline(timeout)
    // Others may write meanwhile; that comes behind.
    var bytes: [UInt8] = []
    swap(&bytes, &output)
    var sent = 0
    do {
      while sent < bytes.count {
        sent += try bytes[sent...].withUnsafeBytes {
          // Midway from the beginning: what another greenlet writes must not overtake.
          if let socket { return try socket.sendRaw($0, deadline, midway: true) }
          return try sendToBase($0, until: deadline)
        }
      }
    } catch {
      let isBroken = (error as? SocketError).map { !$0.isTimeout } ?? false
      if !isBroken { output.insert(contentsOf: bytes[sent...], at: 0) }
      throw error.after(sending: sent)
    }
    if output.isEmpty {
      bytes.removeAll(keepingCapacity: bytes.capacity <= 4 * chunk)
      swap(&bytes, &output)
    }
  }

  /// Closes the stream. What was not flushed is lost.
  public func close() { base.close() }
}

/// A line or a message was longer than the reader allows.
public struct LimitExceeded: Error, Hashable, Sendable, CustomStringConvertible {
  /// How many bytes were allowed.
  public let limit: Int

  public var description: String {
    "more than the allowed \(limit) bytes came before the delimiter"
  }
}
