// Evergreen: control data that was received, and the descriptors in it
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The control data that came with a message. It owns the descriptors in it.
///
/// ```swift
/// let message = try socket.receiveMessage(upTo: 1024, descriptors: 1)
/// if let file = message.control.takeDescriptor() {
///   defer { close(file) }
///   ...
/// }
/// ```
///
/// A descriptor that came is open from then on, asked for or not; anybody who can send to a Unix
/// socket could fill the process with them. So whatever has not been taken when the last reference
/// to this object goes is closed. Whoever takes a descriptor must close it.
///
/// With ``isTruncated`` some of what was sent did not fit. The descriptors that did are here, and
/// the kernel has closed the others.
///
/// Descriptors inside a ``ControlMessage/raw(level:type:bytes:)``, such as Linux's `SCM_PIDFD`, are
/// not known to be descriptors, and not closed.
public final class ReceivedControl {
  /// Whether control data was lost because there was too little room for it (`MSG_CTRUNC`).
  public let isTruncated: Bool
  /// The control data in its order, but for the descriptors.
  public let messages: [ControlMessage]

  /// Those that came and are still owned by this object.
  private var descriptors: [Int32] = []

  /// What `recvmsg(2)` wrote, and the owner of it. Receive with `MSG_CMSG_CLOEXEC`, where there is
  /// one, lest a child process inherit what has just come.
  ///
  /// - Parameters:
  ///   - bytes: As much of the control buffer as `msg_controllen` says was written. To be given
  ///     once: a second object made of it would close the descriptors a second time.
  ///   - isTruncated: Whether `msg_flags` has `MSG_CTRUNC`.
  package init(_ bytes: UnsafeRawBufferPointer, isTruncated: Bool) {
    self.isTruncated = isTruncated
    var messages: [ControlMessage] = []
    for message in ControlMessage.decode(bytes) {
      if case .descriptors(let received) = message {
        descriptors += received
      } else {
        messages.append(message)
      }
    }
    self.messages = messages
  }

  deinit {
    let saved = errno
    for descriptor in descriptors { _ = close(descriptor) }
    errno = saved
  }

  /// How many descriptors have come and have not been taken.
  public var descriptorCount: Int { descriptors.count }

  /// Hands over the next descriptor, in the order in which they were sent; `nil` if there are no
  /// more. It is the caller's to close.
  public func takeDescriptor() -> Int32? {
    descriptors.isEmpty ? nil : descriptors.removeFirst()
  }

  /// Hands over all remaining descriptors, in the order in which they were sent. They are the
  /// caller's to close.
  public func takeDescriptors() -> [Int32] {
    defer { descriptors = [] }
    return descriptors
  }

  #if os(Linux)
  /// Who sent the message, if ``SocketOption/passCredentials`` was set when it was sent.
  public var credentials: ProcessCredentials? {
    for case .credentials(let credentials) in messages { return credentials }
    return nil
  }
  #endif
}
