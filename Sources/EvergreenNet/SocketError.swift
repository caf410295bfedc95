// Evergreen: what went wrong with a socket: what was being done, to whom, and why.
// SPDX-License-Identifier: MIT

public import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

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
    public static let getLocalAddress = Operation("get local address")
    public static let getPeerAddress = Operation("get peer address")
    public static let duplicate = Operation("duplicate")
    public static let detach = Operation("detach")
    public static let wait = Operation("wait")
  }

  /// What was being done.
  public let operation: Operation
  /// The system's reason; ``Errno/timedOut`` also if a timeout of the call ran out, and
  /// ``Errno/badFileDescriptor`` if this program has closed the socket.
  public let errno: Errno
  /// The address that the operation concerned: the peer's, or the one to bind to.
  public let address: SocketAddress?
  /// How many bytes of what a call was to send the kernel had taken when it failed: a timeout in the
  /// midst of ``Socket/sendAll(_:timeout:)-(UnsafeRawBufferPointer,_)`` for instance.
  public internal(set) var bytesSent = 0
  private let explanation: String?
  /// A host that had no address yet, or of which no address answered.
  private let host: String?
  private let isAboutFile: Bool

  package init(
    _ operation: Operation, _ errno: Errno, _ address: SocketAddress? = nil, host: String? = nil,
    explanation: String? = nil, isAboutFile: Bool = false
  ) {
    self.operation = operation
    self.errno = errno
    self.address = address
    self.host = host
    self.explanation = explanation
    self.isAboutFile = isAboutFile
  }

  static func closed(_ operation: Operation, _ address: SocketAddress?) -> SocketError {
    SocketError(
      operation, .badFileDescriptor, address,
      explanation: "the socket has been closed by this program")
  }

  /// Time ran out, the call's own or the kernel's.
  public var isTimeout: Bool { errno == .timedOut }

  /// This program has closed the socket, before or during the operation.
  public var isClosed: Bool { errno == .badFileDescriptor && !isAboutFile }

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

  /// Why it failed, without what was being done and to whom: `Connection refused`.
  public var reason: String { explanation ?? errno.description }

  public var description: String {
    let subject = address?.description ?? host
    let what = subject.map { "\(operation) \($0)" } ?? "\(operation)"
    return "\(what): \(reason)" + (bytesSent > 0 ? ", after \(bytesSent) bytes" : "")
  }
}

// MARK: Of listeners

extension SocketError {
  /// Whether the trouble belongs to one peer, and the socket that accepts or receives is well: what
  /// befell a connection before it was taken, or a datagram that met a closed port. To be treated
  /// like a call that would block; see `accept(2)`.
  package var concernsOnePeer: Bool {
    switch errno {
    case .connectionAbort, .connectionReset, .connectionRefused, .networkDown, .networkUnreachable,
      .networkReset, .hostIsDown, .noRouteToHost, .protocolError, .protocolNotAvailable:
      true
    #if os(Linux)
    case Errno(rawValue: ENONET): true
    #endif
    default: false
    }
  }

  /// Whether it is that of a connection to `peer`, as far as one can tell.
  func concerns(_ peer: SocketAddress) -> Bool { address == nil || address == peer }

  /// Whether no later call on this socket can succeed.
  package var isFatalForListener: Bool {
    switch errno {
    case .badFileDescriptor, .invalidArgument, .notSocket, .badAddress: true
    default: false
    }
  }
}

// MARK: Of senders

extension Error {
  /// The same, which says how many bytes have gone, if it is a socket's.
  func after(sending count: Int) -> any Error {
    guard var error = self as? SocketError else { return self }
    error.bytesSent = count
    return error
  }
}
