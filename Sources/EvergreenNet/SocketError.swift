// Evergreen: what went wrong with a socket: what was being done, to whom, and why.
// SPDX-License-Identifier: MIT

public import EventLoop

/// A socket operation that failed: `connect 127.0.0.1:80: Connection refused`.
public struct SocketError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was being done.
  public struct Operation: Hashable, Sendable, CustomStringConvertible {
    // A number, for it is handed through every call.
    private let place: UInt8

    private static let texts = [
      "open", "bind", "listen", "accept", "connect", "receive", "send", "send file", "shut down",
      "set option", "get option", "duplicate", "wait",
    ]

    public var description: String { Operation.texts[Int(place)] }

    public static var open: Operation { Operation(place: 0) }
    public static var bind: Operation { Operation(place: 1) }
    public static var listen: Operation { Operation(place: 2) }
    public static var accept: Operation { Operation(place: 3) }
    public static var connect: Operation { Operation(place: 4) }
    public static var receive: Operation { Operation(place: 5) }
    public static var send: Operation { Operation(place: 6) }
    public static var sendFile: Operation { Operation(place: 7) }
    public static var shutdown: Operation { Operation(place: 8) }
    public static var setOption: Operation { Operation(place: 9) }
    public static var getOption: Operation { Operation(place: 10) }
    public static var duplicate: Operation { Operation(place: 11) }
    public static var wait: Operation { Operation(place: 12) }
  }

  /// What was being done.
  public let operation: Operation
  /// The system's reason; ``Errno/timedOut`` also if a timeout of the call ran out, and
  /// ``Errno/badFileDescriptor`` if this program has closed the socket.
  public let errno: Errno
  /// The address that the operation concerned: the peer's, or the one to bind to.
  public let address: SocketAddress?
  private let explanation: String?

  package init(
    _ operation: Operation, _ errno: Errno, _ address: SocketAddress? = nil,
    explanation: String? = nil
  ) {
    self.operation = operation
    self.errno = errno
    self.address = address
    self.explanation = explanation
  }

  static func closed(_ operation: Operation, _ address: SocketAddress?) -> SocketError {
    SocketError(
      operation, .badFileDescriptor, address,
      explanation: "the socket has been closed by this program")
  }

  /// Time ran out, the call's own or the kernel's.
  public var isTimeout: Bool { errno == .timedOut }

  /// This program has closed the socket, before or during the operation.
  public var isClosed: Bool { errno == .badFileDescriptor }

  /// The peer has gone: it reset the connection, or reads no more.
  public var isPeerGone: Bool { errno == .connectionReset || errno == .brokenPipe }

  /// Worth another try later: the peer was too busy, or this process lacked descriptors or memory.
  public var isTransient: Bool {
    switch errno {
    case .timedOut, .connectionRefused, .connectionAbort, .tooManyOpenFiles,
      .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory, .resourceTemporarilyUnavailable:
      true
    default: false
    }
  }

  public var description: String {
    let what = address.map { "\(operation) \($0)" } ?? "\(operation)"
    return "\(what): \(explanation ?? errno.description)"
  }
}
