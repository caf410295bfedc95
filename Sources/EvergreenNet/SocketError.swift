// Evergreen: what went wrong with a socket: what was being done, to whom, and why.
// SPDX-License-Identifier: MIT

public import EventLoop
import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A socket operation that failed: `connect 127.0.0.1:80: Connection refused`.
public struct SocketError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was being done.
  public struct Operation: Hashable, Sendable, CustomStringConvertible {
    // A number, for it is handed through every call.
    private let place: UInt8

    private static let texts = [
      "open", "bind", "listen", "accept", "connect", "receive", "send", "send file", "shut down",
      "set option", "get option", "get local address", "get peer address", "duplicate", "detach",
      "wait",
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
    public static var getLocalAddress: Operation { Operation(place: 11) }
    public static var getPeerAddress: Operation { Operation(place: 12) }
    public static var duplicate: Operation { Operation(place: 13) }
    public static var detach: Operation { Operation(place: 14) }
    public static var wait: Operation { Operation(place: 15) }
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
  /// Not the socket is at fault, but a descriptor that the caller gave by its number.
  var isAboutNumber = false

  /// For what is used like a socket and is none: in tests, and around sockets.
  ///
  /// - Parameters:
  ///   - operation: What was being done.
  ///   - errno: The system's reason, which programs ask.
  ///   - address: Whom it concerned.
  ///   - host: Whom it concerned, where there is no address yet.
  ///   - explanation: Why it failed, for people; `nil` for the text of `errno`.
  public init(
    _ operation: Operation, _ errno: Errno, _ address: SocketAddress? = nil, host: String? = nil,
    explanation: String? = nil
  ) {
    self.operation = operation
    self.errno = errno
    self.address = address
    self.host = host
    self.explanation = explanation
  }

  /// A descriptor that the caller gave by its number is of no use.
  static func about(
    _ number: Int32, _ operation: Operation, _ errno: Errno, _ address: SocketAddress? = nil
  ) -> SocketError {
    var error = SocketError(
      operation, errno, address, explanation: "file descriptor \(number): \(errno)")
    error.isAboutNumber = true
    return error
  }

  /// A descriptor cannot be watched any more.
  init(_ operation: Operation, _ failure: WatchFailure) {
    if failure.errno == .noSpace {
      self.init(
        operation, failure.errno,
        explanation: "the kernel watches no more descriptors, or has no memory for it "
          + "(fs.epoll.max_user_watches)")
    } else {
      self = SocketError.about(failure.descriptor, operation, failure.errno)
    }
  }

  package static func closed(_ operation: Operation, _ address: SocketAddress?) -> SocketError {
    SocketError(
      operation, .badFileDescriptor, address,
      explanation: "the socket has been closed by this program")
  }

  /// Time ran out, the call's own or the kernel's.
  public var isTimeout: Bool { errno == .timedOut }

  /// This program has closed the socket, before or during the operation.
  public var isClosed: Bool { errno == .badFileDescriptor && !isAboutNumber }

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

  /// Whether it says that the other end of a connection has gone. After a reset there is nothing left
  /// to shut down.
  fileprivate var isDeparture: Bool {
    isPeerGone || operation == .shutdown && errno == .socketNotConnected
  }

  /// Whether no later call on this socket can succeed.
  package var isFatalForListener: Bool {
    switch errno {
    case .badFileDescriptor, .invalidArgument, .notSocket, .badAddress: true
    default: false
    }
  }
}

extension Error {
  /// Whether it says that `peer` has gone, as far as one can tell: nothing to report about a handler.
  func isDeparture(of peer: SocketAddress) -> Bool {
    switch self {
    case let error as SocketError: error.isDeparture && error.concerns(peer)
    case let error as EndOfStream: error.peer == nil || error.peer == peer
    default: false
    }
  }
}

// MARK: Of senders

extension Error {
  /// The same, which says how many bytes have gone, if it is a socket's.
  package func after(sending count: Int) -> any Error {
    guard var error = self as? SocketError else { return self }
    error.bytesSent = count
    return error
  }
}
