// Evergreen: messages with control data: passed descriptors, credentials.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenBase
import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A message with what came beside its bytes.
public struct ReceivedMessage {
  /// The data; empty at the end of a stream.
  public let bytes: [UInt8]
  /// Who sent it; `nil` where the kernel does not say: on TCP, and if a Unix socket has no address.
  public let sender: SocketAddress?
  /// Descriptors and credentials. Descriptors that nobody takes are closed with it.
  public let control: ReceivedControl
  /// Whether a datagram was longer than there was room for.
  public let isTruncated: Bool
}

extension Socket {
  /// Sends bytes together with control data.
  ///
  /// The kernel delivers the control data with the first byte, so there must be one on a stream.
  ///
  /// - Returns: How many bytes the kernel has taken; the control data went along.
  ///
  /// > Switch point: Yes, unless the kernel has room. The C function is `sendmsg(2)`.
  @discardableResult
  public func sendMessage(
    _ bytes: [UInt8], control: [ControlMessage] = [], to address: SocketAddress? = nil,
    timeout: Duration? = nil
  ) throws -> Int {
    if bytes.isEmpty && !control.isEmpty && shortReadsDrain {
      fatal("on a stream control data needs a byte to travel with")
    }
    let deadline = deadline(timeout)
    return try ControlMessage.withEncoded(control) { encoded in
      try bytes.withUnsafeBytes { data in
        var vector = iovec(
          iov_base: UnsafeMutableRawPointer(mutating: data.baseAddress), iov_len: data.count)
        return try withUnsafeMutablePointer(to: &vector) { vector in
          var message = msghdr()
          message.msg_iov = vector
          message.msg_iovlen = 1
          if !encoded.isEmpty {
            message.msg_control = UnsafeMutableRawPointer(mutating: encoded.baseAddress)
            message.msg_controllen = .init(encoded.count)
          }
          return try descriptor.perform(
            .send, .write, until: deadline, about: address ?? peerIfKnown
          ) { number in
            guard let address else { return sendmsg(number, &message, noSignal) }
            return address.withSockaddr { pointer, length in
              message.msg_name = UnsafeMutableRawPointer(mutating: pointer)
              message.msg_namelen = length
              return sendmsg(number, &message, noSignal)
            }
          }
        }
      }
    }
  }

  /// Waits for a message and takes it with its control data.
  ///
  /// - Parameters:
  ///   - count: At most so many bytes.
  ///   - descriptors: Room for so many descriptors; more are closed by the kernel.
  ///   - timeout: The longest wait; `nil` for the socket's ``timeout``.
  /// - Returns: The message; its bytes are empty at the end of a stream.
  /// - Throws: ``SocketError``; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless one is there. The C function is `recvmsg(2)`.
  public func receiveMessage(
    upTo count: Int, descriptors: Int = ControlMessage.maximumDescriptors,
    timeout: Duration? = nil
  ) throws -> ReceivedMessage {
    checkCount(count, atLeast: 0, "receive up to")
    let deadline = deadline(timeout)
    let space = ControlMessage.space(descriptors: descriptors, credentials: true)
    return try withUnsafeTemporaryAllocation(byteCount: space, alignment: 16) { control in
      var flags: Int32 = 0
      var controlLength = 0
      var sender: SocketAddress?
      let bytes = try receiveArray(of: count, deadline) { number, room in
        var vector = iovec(iov_base: room.baseAddress, iov_len: room.count)
        return withUnsafeMutablePointer(to: &vector) { vector in
          var message = msghdr()
          message.msg_iov = vector
          message.msg_iovlen = 1
          message.msg_control = control.baseAddress
          message.msg_controllen = .init(space)
          let found = SocketAddress.capture { address, length in
            message.msg_name = UnsafeMutableRawPointer(address)
            message.msg_namelen = length.pointee
            let received = recvmsg(number, &message, closeOnExec)
            length.pointee = message.msg_namelen
            return received
          }
          flags = message.msg_flags
          controlLength = Int(message.msg_controllen)
          sender = found.address
          return found.result
        }
      }
      descriptor.isDrained = false
      let received = ReceivedControl(
        UnsafeRawBufferPointer(rebasing: control[..<controlLength]),
        isTruncated: flags & Int32(MSG_CTRUNC) != 0)
      return ReceivedMessage(
        bytes: bytes, sender: sender, control: received,
        isTruncated: flags & Int32(MSG_TRUNC) != 0)
    }
  }
}

#if os(Linux)
private let closeOnExec = Int32(MSG_CMSG_CLOEXEC)
#else
private let closeOnExec: Int32 = 0
#endif
