// Evergreen: what travels beside the bytes of a message: descriptors, credentials
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

// The C macros CMSG_ALIGN, CMSG_LEN, CMSG_SPACE, CMSG_FIRSTHDR and CMSG_NXTHDR are not imported,
// so their arithmetic is here:
//
//     |<--------------- space(n) --------------->|
//     |<--------- length(n) --------->|          |
//     +------------------+------------+----------+------------------+---
//     | cmsghdr, aligned | n bytes    | padding  | cmsghdr ...
//     +------------------+------------+----------+------------------+---
//
// cmsg_len is length(n), without the padding. The last message need not be padded: the kernel may
// report a length in which its padding is missing.

/// Data that travels beside the bytes of a message, and that the kernel understands.
///
/// ```swift
/// try socket.sendMessage(Array("file".utf8), control: [.descriptors([file])])
/// ```
///
/// Control data needs at least one byte of ordinary data to travel with. What was received is a
/// ``ReceivedControl``, which owns the descriptors that came.
///
/// > gevent: The `ancdata` of `socket.sendmsg` and `socket.recvmsg`.
public enum ControlMessage: Hashable, Sendable {
  /// Open descriptors, over a Unix socket; at most ``maximumDescriptors`` in one message. The
  /// receiver gets duplicates; the sender keeps, and may close, its own. The C constant is
  /// `SCM_RIGHTS`.
  case descriptors([Int32])

  #if os(Linux)
  /// Who the sender is, over a Unix socket. The kernel refuses a lie, unless it is root's. The
  /// receiver must have set ``SocketOption/passCredentials``. The C constant is
  /// `SCM_CREDENTIALS`.
  case credentials(ProcessCredentials)
  #endif

  /// Any other control data, by its C constants and its bytes in C's form.
  case raw(level: Int32, type: Int32, bytes: [UInt8])

  /// The most descriptors that one message can carry: 253 on Linux (`SCM_MAX_FD`), and assumed to
  /// be no more elsewhere.
  public static let maximumDescriptors = 253
}

// MARK: Layout

extension ControlMessage {
  /// `CMSG_ALIGN`: `count`, rounded up to where a header may begin.
  package static func aligned(_ count: Int) -> Int {
    #if os(Linux)
    let alignment = MemoryLayout<Int>.size
    #else
    let alignment = MemoryLayout<UInt32>.size
    #endif
    return (count + alignment - 1) & ~(alignment - 1)
  }

  /// `CMSG_LEN`: the length of a message with `count` bytes of data.
  package static func length(_ count: Int) -> Int {
    aligned(MemoryLayout<cmsghdr>.size) + count
  }

  /// `CMSG_SPACE`: the room that a message with `count` bytes of data takes among others.
  package static func space(_ count: Int) -> Int {
    aligned(MemoryLayout<cmsghdr>.size) + aligned(count)
  }

  /// The room needed to receive this many descriptors, and credentials if
  /// ``SocketOption/passCredentials`` is set.
  ///
  /// - Parameters:
  ///   - descriptors: How many descriptors may come; 0 for none.
  ///   - credentials: Whether credentials may come.
  /// - Returns: A number of bytes, for `msg_controllen`.
  package static func space(descriptors: Int, credentials: Bool = false) -> Int {
    (descriptors > 0 ? space(descriptors * MemoryLayout<Int32>.size) : 0)
      + (credentials ? space(MemoryLayout<ProcessCredentials>.size) : 0)
  }

  /// The size of this message's data.
  private var dataCount: Int {
    switch self {
    case .descriptors(let descriptors): descriptors.count * MemoryLayout<Int32>.size
    #if os(Linux)
    case .credentials: MemoryLayout<ProcessCredentials>.size
    #endif
    case .raw(_, _, let bytes): bytes.count
    }
  }

  /// Whether there is nothing to send: no descriptors.
  private var isVoid: Bool {
    if case .descriptors(let descriptors) = self { descriptors.isEmpty } else { false }
  }
}

// MARK: Encoding

extension ControlMessage {
  /// Calls `body` with `messages` in the form that `sendmsg(2)` takes, aligned and valid during
  /// the call only; an empty buffer without an address if there is nothing to send.
  ///
  /// - Parameters:
  ///   - messages: What to send.
  ///   - body: Gets the buffer, for `msg_control` and `msg_controllen`.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws.
  package static func withEncoded<R, E: Error>(
    _ messages: [ControlMessage],
    _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    let count = messages.reduce(0) { $1.isVoid ? $0 : $0 + space($1.dataCount) }
    guard count > 0 else { return try body(UnsafeMutableRawBufferPointer(start: nil, count: 0)) }
    return try withUnsafeTemporaryAllocation(
      byteCount: count, alignment: MemoryLayout<cmsghdr>.alignment
    ) { (buffer) throws(E) -> R in
      buffer.initializeMemory(as: UInt8.self, repeating: 0)
      var rest = buffer[...]
      for message in messages where !message.isVoid {
        message.encode(into: UnsafeMutableRawBufferPointer(rebasing: rest))
        rest = rest.dropFirst(space(message.dataCount))
      }
      return try body(buffer)
    }
  }

  private func encode(into buffer: UnsafeMutableRawBufferPointer) {
    var header = cmsghdr()
    header.cmsg_len = numericCast(Self.length(dataCount))
    let data = UnsafeMutableRawBufferPointer(rebasing: buffer[Self.length(0)...])
    switch self {
    case .descriptors(let descriptors):
      header.cmsg_level = SOL_SOCKET
      header.cmsg_type = Int32(SCM_RIGHTS)
      descriptors.withUnsafeBytes { data.copyMemory(from: $0) }
    #if os(Linux)
    case .credentials(let credentials):
      header.cmsg_level = SOL_SOCKET
      header.cmsg_type = Self.credentialsType
      withUnsafeBytes(of: credentials) { data.copyMemory(from: $0) }
    #endif
    case .raw(let level, let type, let bytes):
      header.cmsg_level = level
      header.cmsg_type = type
      data.copyBytes(from: bytes)
    }
    buffer.storeBytes(of: header, as: cmsghdr.self)
  }

  #if os(Linux)
  /// `SCM_CREDENTIALS`, which glibc shows with `_GNU_SOURCE` only.
  static let credentialsType: Int32 = 2
  #endif
}

// MARK: Decoding

extension ControlMessage {
  /// The messages in `bytes`, as `recvmsg(2)` wrote them. Nothing is owned: see
  /// ``ReceivedControl``, which is what should be used.
  ///
  /// Garbage is survived: a length that is too small ends the list, one that is too large is cut.
  ///
  /// - Parameter bytes: As much of the control buffer as `msg_controllen` says was written.
  /// - Returns: The messages, in their order.
  package static func decode(_ bytes: UnsafeRawBufferPointer) -> [ControlMessage] {
    var messages: [ControlMessage] = []
    var offset = 0
    while bytes.count - offset >= MemoryLayout<cmsghdr>.size {
      let header = bytes.loadUnaligned(fromByteOffset: offset, as: cmsghdr.self)
      guard let length = Int(exactly: header.cmsg_len), length >= Self.length(0) else { break }
      let end = offset + min(length, bytes.count - offset)
      let data = UnsafeRawBufferPointer(rebasing: bytes[min(offset + Self.length(0), end)..<end])
      messages.append(ControlMessage(level: header.cmsg_level, type: header.cmsg_type, data: data))
      // Not aligned(length): that of a huge length overflows.
      offset += aligned(min(length, bytes.count - offset))
    }
    return messages
  }

  private init(level: Int32, type: Int32, data: UnsafeRawBufferPointer) {
    if level == SOL_SOCKET, type == Int32(SCM_RIGHTS) {
      let size = MemoryLayout<Int32>.size
      self = .descriptors(
        (0..<data.count / size).map {
          data.loadUnaligned(fromByteOffset: $0 * size, as: Int32.self)
        })
      return
    }
    #if os(Linux)
    if level == SOL_SOCKET, type == Self.credentialsType,
      data.count >= MemoryLayout<ProcessCredentials>.size
    {
      self = .credentials(data.loadUnaligned(as: ProcessCredentials.self))
      return
    }
    #endif
    self = .raw(level: level, type: type, bytes: Array(data))
  }
}
