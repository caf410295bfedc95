// Evergreen: sending and receiving.
// SPDX-License-Identifier: MIT
//
// `receive(upTo:)` returns an array of the right size. Where the sizes are not known to be large, it
// lets the kernel write into a buffer of the hub and copies: a 64 KiB array for 64 bytes costs more
// than the copy. Where they are, the array is made for the system call and dropped again if there is
// nothing yet: of the thousands that wait for the next request none holds room for it.

import CSockets
import EventLoop
package import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Socket {
  // MARK: Receiving

  /// Waits for data and takes what is there.
  ///
  /// - Parameters:
  ///   - count: At most so many bytes, 1 or more.
  ///   - timeout: The longest wait; `nil` for the socket's ``timeout``.
  /// - Returns: One byte or more; for a datagram socket one datagram, perhaps empty. `nil` when the
  ///   peer has ended its direction of the stream, or of a connection of packets.
  /// - Throws: ``SocketError``; ``ConcurrentUse``; what is thrown into the caller while it waits,
  ///   and then nothing was taken.
  ///
  /// > Switch point: Yes, unless data is there. The C function is `recv(2)`.
  public func receive(upTo count: Int, timeout: Duration? = nil) throws -> [UInt8]? {
    checkCount(count, atLeast: 1, "receive up to")
    let deadline = deadline(timeout)
    let room = descriptor.hub.scratch
    if count <= room.count, count <= 1024 || lastReceived < count / 2 {
      let received = try receiveRaw(
        UnsafeMutableRawBufferPointer(rebasing: room[..<count]), deadline)
      lastReceived = received
      if received == 0, isAtEnd() { return nil }
      return [UInt8](UnsafeRawBufferPointer(rebasing: room[..<received]))
    }
    let bytes = try receiveArray(of: count, deadline, waitsFirst: descriptor.isDrained) {
      recv($0, $1.baseAddress, $1.count, 0)
    }
    noteReceived(bytes.count, of: count)
    lastReceived = bytes.count
    return bytes.isEmpty && isAtEnd() ? nil : bytes
  }

  /// Receives into an array that is made for each attempt: whoever waits holds none.
  @inline(__always)
  func receiveArray(
    of count: Int, _ deadline: Deadline, waitsFirst: Bool = false,
    _ call: (_ number: Int32, _ room: UnsafeMutableRawBufferPointer) -> Int
  ) throws -> [UInt8] {
    var bytes: [UInt8] = []
    _ = try descriptor.perform(
      .receive, .read, until: deadline, waitsFirst: waitsFirst, about: peerIfKnown
    ) { number in
      var result = 0
      var error: Int32 = 0
      bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        result = call(number, UnsafeMutableRawBufferPointer(buffer))
        error = errno
        filled = max(0, result)
      }
      if result < 0 {
        bytes = []
        errno = error
      }
      return result
    }
    // Room that has hardly been used is not worth keeping.
    return count > 1024 && bytes.count < count / 2 ? bytes.withUnsafeBytes { [UInt8]($0) } : bytes
  }

  /// Waits for data and writes it to `buffer`.
  ///
  /// - Returns: How many bytes; 0 at the end of the stream, and also if the buffer has no room: do
  ///   not take that for the end. An empty datagram is 0, too.
  ///
  /// > Switch point: Yes, unless data is there. The C function is `recv(2)`.
  public func receive(
    into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil
  ) throws -> Int {
    try receiveRaw(buffer, deadline(timeout))
  }

  /// Waits for data and writes it to the beginning of `span`.
  ///
  /// - Returns: How many bytes; 0 as in ``receive(into:timeout:)-(UnsafeMutableRawBufferPointer,_)``.
  ///
  /// > Switch point: Yes, unless data is there. The C function is `recv(2)`.
  public func receive(into span: inout MutableRawSpan, timeout: Duration? = nil) throws -> Int {
    let deadline = deadline(timeout)
    return try span.withUnsafeMutableBytes { try receiveRaw($0, deadline) }
  }

  /// Receives exactly so many bytes.
  ///
  /// Room for more than 128 KiB is made as the data comes: a length that a peer has sent costs nothing
  /// before.
  ///
  /// - Throws: ``EndOfStream`` if the stream ends before; ``SocketError``, if time runs out for
  ///   instance; what is thrown into the caller while it waits. What was received until then is lost:
  ///   where that matters, ``BufferedStream/read(exactly:timeout:)`` keeps it.
  ///
  /// > Switch point: Yes, unless the data is there.
  public func receive(exactly count: Int, timeout: Duration? = nil) throws -> [UInt8] {
    checkCount(count, atLeast: 0, "receive")
    let deadline = deadline(timeout)
    var bytes = try receive([], in: min(count, Self.firstRoom), wanted: count, until: deadline)
    while bytes.count < count {
      bytes = try receive(
        bytes, in: min(count, 2 * bytes.count), wanted: count, until: deadline)
    }
    return bytes
  }

  private static var firstRoom: Int { 128 * 1024 }

  /// Receives until there are `room` bytes, `start` the first of them.
  @inline(__always)
  private func receive(
    _ start: consuming [UInt8], in room: Int, wanted: Int, until deadline: Deadline
  ) throws -> [UInt8] {
    var start = start
    return try [UInt8](unsafeUninitializedCapacity: room) { buffer, filled in
      let buffer = UnsafeMutableRawBufferPointer(buffer)
      if !start.isEmpty {
        buffer.copyBytes(from: start)
        filled = start.count
        start = []
      }
      while filled < room {
        let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<room])
        let received = try receiveRaw(rest, deadline, midway: filled > 0)
        if received == 0 {
          throw EndOfStream(wanted: wanted, received: filled, from: peerIfKnown)
        }
        filled += received
      }
    }
  }

  /// Waits for data and returns it without taking it.
  ///
  /// > Switch point: Yes, unless data is there. The C function is `recv(2)` with `MSG_PEEK`.
  public func peek(upTo count: Int, timeout: Duration? = nil) throws -> [UInt8]? {
    checkCount(count, atLeast: 1, "look at up to")
    let deadline = deadline(timeout)
    let bytes = try receiveArray(of: count, deadline) {
      recv($0, $1.baseAddress, $1.count, Int32(MSG_PEEK))
    }
    return bytes.isEmpty && isAtEnd() ? nil : bytes
  }

  @inline(__always)
  func receiveRaw(
    _ buffer: UnsafeMutableRawBufferPointer, _ deadline: Deadline, midway: Bool = false
  ) throws -> Int {
    let received = try descriptor.perform(
      .receive, .read, until: deadline, waitsFirst: descriptor.isDrained, midway: midway,
      about: peerIfKnown
    ) { recv($0, buffer.baseAddress, buffer.count, 0) }
    noteReceived(received, of: buffer.count)
    return received
  }

  @inline(__always)
  private func noteReceived(_ received: Int, of count: Int) {
    // The end of the stream stays readable: the next receive need not wait for it.
    descriptor.isDrained = shortReadsDrain && received < count && received > 0
    descriptor.hub.chargeIO(bytes: received)
  }

  // MARK: Sending

  /// Sends as much as the kernel takes, after waiting until it takes something.
  ///
  /// - Returns: How many bytes it has taken, 1 or more unless `bytes` is empty.
  ///
  /// > Switch point: Yes, unless the kernel has room. The C function is `send(2)`.
  public func send(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws -> Int {
    try sendRaw(bytes, deadline(timeout))
  }

  /// Sends as much as the kernel takes; see ``send(_:timeout:)-(UnsafeRawBufferPointer,_)``.
  public func send(_ bytes: [UInt8], timeout: Duration? = nil) throws -> Int {
    try bytes.withUnsafeBytes { try send($0, timeout: timeout) }
  }

  /// Sends all of it.
  ///
  /// - Parameters:
  ///   - bytes: What to send.
  ///   - timeout: For the whole of it; `nil` for the socket's ``timeout``.
  /// - Throws: ``SocketError``, which says how many bytes have gone (``SocketError/bytesSent``); what
  ///   is thrown into the caller while it waits. Then a part may have been sent, too, and the stream
  ///   is of no use to a protocol that counts bytes.
  ///
  /// > Switch point: Yes, unless the kernel has room for all. The C function is `send(2)`.
  public func sendAll(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws {
    let deadline = deadline(timeout)
    var sent = try sendRaw(bytes, deadline)
    while sent < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[sent...])
      do { sent += try sendRaw(rest, deadline, midway: true) } catch {
        throw error.after(sending: sent)
      }
    }
  }

  /// Sends all of it; see ``sendAll(_:timeout:)-(UnsafeRawBufferPointer,_)``.
  ///
  /// > Switch point: Yes, unless the kernel has room for all.
  public func sendAll(_ bytes: [UInt8], timeout: Duration? = nil) throws {
    try bytes.withUnsafeBytes { try sendAll($0, timeout: timeout) }
  }

  /// Sends all of a slice.
  ///
  /// > Switch point: Yes, unless the kernel has room for all.
  public func sendAll(_ bytes: ArraySlice<UInt8>, timeout: Duration? = nil) throws {
    try bytes.withUnsafeBytes { try sendAll($0, timeout: timeout) }
  }

  /// Sends all of a span.
  ///
  /// > Switch point: Yes, unless the kernel has room for all.
  public func sendAll(_ span: RawSpan, timeout: Duration? = nil) throws {
    try span.withUnsafeBytes { try sendAll($0, timeout: timeout) }
  }

  /// Sends a text as UTF-8.
  ///
  /// > Switch point: Yes, unless the kernel has room for all.
  public func sendAll(_ text: String, timeout: Duration? = nil) throws {
    var text = text
    try text.withUTF8 { try sendAll(UnsafeRawBufferPointer($0), timeout: timeout) }
  }

  /// Sends several pieces as if they were one, with as few system calls as possible.
  ///
  /// > Switch point: Yes, unless the kernel has room for all. The C function is `sendmsg(2)`.
  public func sendAll(pieces: [[UInt8]], timeout: Duration? = nil) throws {
    let deadline = deadline(timeout)
    var first = 0
    var offset = 0
    var total = 0
    while first < pieces.count {
      let sent = try withVectors(pieces, from: first, offset) { vectors in
        var message = msghdr()
        message.msg_iov = vectors.baseAddress
        message.msg_iovlen = .init(vectors.count)
        do {
          return try descriptor.perform(
            .send, .write, until: deadline, midway: first > 0 || offset > 0, about: peerIfKnown
          ) {
            sendmsg($0, &message, noSignal)
          }
        } catch {
          throw error.after(sending: total)
        }
      }
      descriptor.hub.chargeIO(bytes: sent)
      total += sent
      offset += sent
      while first < pieces.count, offset >= pieces[first].count {
        offset -= pieces[first].count
        first += 1
      }
    }
  }

  @inline(__always)
  func sendRaw(
    _ bytes: UnsafeRawBufferPointer, _ deadline: Deadline, midway: Bool = false
  ) throws -> Int {
    let sent = try descriptor.perform(
      .send, .write, until: deadline, midway: midway, about: peerIfKnown
    ) {
      systemSend($0, bytes.baseAddress, bytes.count, noSignal)
    }
    descriptor.hub.chargeIO(bytes: sent)
    return sent
  }

  // MARK: Datagrams

  /// Waits for a datagram and says who sent it. What does not fit into `count` bytes is lost.
  ///
  /// > Switch point: Yes, unless one is there. The C function is `recvfrom(2)`.
  public func receiveFrom(
    upTo count: Int = 65_536, timeout: Duration? = nil
  ) throws -> (bytes: [UInt8], sender: SocketAddress) {
    try receiveFrom(upTo: count, until: deadline(timeout))
  }

  package func receiveFrom(
    upTo count: Int, until deadline: Deadline
  ) throws -> (bytes: [UInt8], sender: SocketAddress) {
    checkCount(count, atLeast: 0, "receive up to")
    var sender: SocketAddress?
    func receive(_ number: Int32, _ buffer: UnsafeMutableRawBufferPointer) -> Int {
      let found = SocketAddress.capture { address, length in
        recvfrom(number, buffer.baseAddress, buffer.count, 0, address, length)
      }
      sender = found.address
      return found.result
    }
    let room = descriptor.hub.scratch
    let bytes: [UInt8]
    if count <= room.count {
      let part = UnsafeMutableRawBufferPointer(rebasing: room[..<count])
      let received = try descriptor.perform(.receive, .read, until: deadline, about: peerIfKnown) {
        receive($0, part)
      }
      bytes = [UInt8](UnsafeRawBufferPointer(rebasing: room[..<received]))
    } else {
      // A Unix socket's datagrams may be larger than any of the network.
      bytes = try receiveArray(of: count, deadline, receive)
    }
    return (bytes, sender ?? .unnamedUnix)
  }

  /// Sends a datagram.
  ///
  /// > Switch point: Yes, unless the kernel has room. The C function is `sendto(2)`.
  public func send(
    _ bytes: [UInt8], to address: SocketAddress, timeout: Duration? = nil
  ) throws {
    try send(bytes, to: address, until: deadline(timeout))
  }

  func send(_ bytes: [UInt8], to address: SocketAddress, until deadline: Deadline) throws {
    _ = try descriptor.perform(.send, .write, until: deadline, about: address) { number in
      address.withSockaddr { pointer, length in
        sendto(number, bytes, bytes.count, noSignal, pointer, length)
      }
    }
  }

  // MARK: Files

  /// Sends a part of an open file without copying it through the program.
  ///
  /// - Parameters:
  ///   - file: A descriptor of a regular file. Its own offset does not move.
  ///   - offset: Where to begin.
  ///   - count: How many bytes; `nil` until the end of the file.
  ///   - timeout: For the whole of it; `nil` for the socket's ``timeout``.
  /// - Returns: How many bytes were sent; fewer than `count` if the file is shorter.
  /// - Throws: ``SocketError``, which says how many bytes have gone, and names `file` if that and not
  ///   the socket was at fault; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes. Reading from the disk blocks the thread. The C function is `sendfile(2)`.
  @discardableResult
  public func sendFile(
    _ file: Int32, offset: Int = 0, count: Int? = nil, timeout: Duration? = nil
  ) throws -> Int {
    checkCount(offset, atLeast: 0, "send a file from byte", "on")
    checkCount(count ?? 0, atLeast: 0, "send")
    let deadline = deadline(timeout)
    var sent = 0
    while sent < count ?? .max {
      let most = min((count ?? .max) - sent, 1 << 30)
      let step: Int
      do {
        step = try descriptor.perform(
          .sendFile, .write, until: deadline, midway: sent > 0, about: peerIfKnown
        ) {
          evg_send_file($0, file, Int64(offset + sent), most)
        }
      } catch {
        throw blaming(file, for: error).after(sending: sent)
      }
      if step == 0 { break }
      descriptor.hub.chargeIO(bytes: step)
      sent += step
    }
    return sent
  }

  /// `sendfile` has the same error for a closed file and for a closed socket, and some that can only
  /// be the file's.
  private func blaming(_ file: Int32, for error: any Error) -> any Error {
    guard let error = error as? SocketError, fcntl(descriptor.number, F_GETFD) >= 0 else {
      return error
    }
    switch error.errno {
    case .badFileDescriptor, .invalidArgument, .illegalSeek, .isDirectory, .ioError, .overflow:
      return SocketError.about(file, .sendFile, error.errno, peerIfKnown)
    default: return error
    }
  }
}

/// The stream ended before as many bytes had come as were asked for.
public struct EndOfStream: Error, Hashable, Sendable, CustomStringConvertible {
  /// How many bytes were asked for; `nil` if it was a delimiter.
  public let wanted: Int?
  /// How many had come.
  public let received: Int
  /// Whose stream it was, if that is known.
  public let peer: SocketAddress?

  package init(wanted: Int?, received: Int, from peer: SocketAddress?) {
    self.wanted = wanted
    self.received = received
    self.peer = peer
  }

  public var description: String {
    wanted.map { "the stream ended after \(received) of \($0) bytes" }
      ?? "the stream ended after \(received) bytes, before the delimiter"
  }
}

#if os(Linux)
let noSignal = Int32(MSG_NOSIGNAL)
#else
let noSignal: Int32 = 0x80000  // MSG_NOSIGNAL, macOS 14
#endif

private func systemSend(_ s: Int32, _ p: UnsafeRawPointer?, _ n: Int, _ flags: Int32) -> Int {
  send(s, p, n, flags)
}

/// At most 64 of the pieces, from the `offset` of the one at `first` on, as the kernel takes them.
private func withVectors<R>(
  _ pieces: [[UInt8]], from first: Int, _ offset: Int,
  _ body: (UnsafeMutableBufferPointer<iovec>) throws -> R
) rethrows -> R {
  // The arrays keep their storage as long as `pieces` lives, which is longer than the call.
  try withExtendedLifetime(pieces) {
    let end = min(pieces.count, first + 64)
    return try withUnsafeTemporaryAllocation(of: iovec.self, capacity: end - first) { vectors in
      for index in first..<end {
        vectors[index - first] = pieces[index].withUnsafeBytes { bytes in
          let skip = index == first ? offset : 0
          return iovec(
            iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress.map { $0 + skip }),
            iov_len: bytes.count - skip)
        }
      }
      return try body(vectors)
    }
  }
}
