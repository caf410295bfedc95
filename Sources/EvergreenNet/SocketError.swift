// Evergreen: what went wrong with a socket: what was being done, to whom, and why.
// SPDX-License-Identifier: MIT

public import EventLoop

/// A socket operation that failed: `connect 127.0.0.1:80: Connection refused`.
public struct SocketError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was being done.
  public struct Operation: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    package init(_ description: String) { self.description = description }

    public static let open = Operation("open")
    public static let bind = Operation("bind")
    public static let listen = Operation("listen")
    public static let accept = Operation("accept")
    public static let connect = Operation("connect")
    public static let receive = Operation("receive")
    public static let send = Operation("send")
    public static let sendFile = Operation("send file")
    public static let shutdown = Operation("shut down")
    public static let setOption = Operation("set option")
    public static let getOption = Operation("get option")
    public static let duplicate = Operation("duplicate")
    public static let wait = Operation("wait")
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
