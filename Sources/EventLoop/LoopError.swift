// Evergreen: what can go wrong with a loop
// SPDX-License-Identifier: MIT

/// Why a ``Loop`` or a watcher could not be made or started.
public struct LoopError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What kind of trouble it is.
  public struct Kind: Hashable, Sendable {
    private let number: Int

    /// No backend has this name.
    public static let unknownBackend = Kind(number: 1)
    /// The backend exists, but not in this libev or not on this machine.
    public static let unavailableBackend = Kind(number: 2)
    /// The kernel refused what a loop needs; ``LoopError/errno`` says why.
    public static let cannotCreate = Kind(number: 3)
    /// The signal is watched by another loop; the kernel's signals are one set per process.
    public static let signalTaken = Kind(number: 4)
    /// The number is no signal, or one that no process can catch.
    public static let invalidSignal = Kind(number: 5)
    /// Children are watched by the default loop only.
    public static let needsDefaultLoop = Kind(number: 6)
    /// The process has one default loop, and it is in use.
    public static let defaultLoopTaken = Kind(number: 7)
  }

  /// What kind of trouble it is.
  public let kind: Kind

  /// The error of the system call behind it, if there was one.
  public let errno: Errno?

  /// A sentence for people.
  public let description: String

  init(_ kind: Kind, _ description: String, errno: Errno? = nil) {
    self.kind = kind
    self.errno = errno
    self.description = description
  }

  func prefixed(_ prefix: String) -> LoopError {
    LoopError(kind, prefix + description, errno: errno)
  }
}
