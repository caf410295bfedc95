// Evergreen: who a process is, as the kernel vouches for it
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A process with its user and group, as the kernel tells them about the peer of a Unix socket.
///
/// > Note: The members are those of the C structure `ucred`, in its order: the value is handed to
/// > the kernel as it is.
public struct ProcessCredentials: Hashable, Sendable, BitwiseCopyable {
  /// The process. 0 for one outside of this container (PID namespace).
  public var processID: Int32
  /// Its user.
  public var userID: UInt32
  /// Its group.
  public var groupID: UInt32

  /// The credentials made of these numbers.
  public init(processID: Int32, userID: UInt32, groupID: UInt32) {
    self.processID = processID
    self.userID = userID
    self.groupID = groupID
  }

  /// Those of this process, with its effective user and group.
  public static var current: ProcessCredentials {
    ProcessCredentials(processID: getpid(), userID: geteuid(), groupID: getegid())
  }
}
