// Evergreen: a socket whose operations wait without blocking the others.
// SPDX-License-Identifier: MIT

import CSockets
import EventLoop
package import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A TCP, UDP or Unix socket.
///
/// ```swift
/// let socket = try Socket.connect(host: "example.com", port: 80, timeout: .seconds(5))
/// try socket.sendAll("GET / HTTP/1.0\r\n\r\n")
/// while let chunk = try socket.receive(upTo: 4096) { print(String(decoding: chunk, as: UTF8.self)) }
/// ```
///
/// Each operation is tried first; only when it would block its greenlet waits, and others run. One
/// greenlet may receive while another sends; a second one in the same direction gets
/// ``ConcurrentUse``. ``close()`` wakes both.
///
/// A `timeout:` of `nil` means the socket's own ``timeout``, and that is for ever unless it was
/// set. The time covers the whole call. When it runs out, the call throws a ``SocketError`` whose
/// `isTimeout` is true; `.zero` only looks.
///
/// A socket belongs to the hub on which it was made. When its last reference goes, it is closed.
///
/// > gevent: `gevent.socket.socket`.
public final class Socket {
  package let descriptor: GreenDescriptor
  private var knownPeer: SocketAddress?
  private let kind: Kind

  /// What a receive that brings less than was asked for, or nothing, may mean.
  enum Kind: UInt8 {
    /// The kernel has nothing left; the stream has ended.
    case stream
    /// A short message, an empty message or the end.
    case sequenced
    /// A short or empty message.
    case other

    init(_ type: SocketType) {
      self = type == .stream ? .stream : type == .sequencedPacket ? .sequenced : .other
    }
  }

  /// How much the last receive brought: a hint for the next.
  @exclusivity(unchecked) var lastReceived = 0

  /// The longest an operation may take that is given no `timeout:` of its own; `nil` is for ever.
  @exclusivity(unchecked) public var timeout: Duration?

  // MARK: Making

  /// Opens a socket.
  ///
  /// - Parameters:
  ///   - family: `.ipv4`, `.ipv6` or `.unix`.
  ///   - type: `.stream` for TCP, `.datagram` for UDP.
  ///   - protocolNumber: 0 for the usual one of family and type.
  /// - Throws: ``SocketError``, if the process is out of descriptors for instance.
  ///
  /// > Switch point: No. The C function is `socket(2)`.
  public init(
    _ family: SocketAddress.Family, _ type: SocketType = .stream, protocolNumber: Int32 = 0
  ) throws {
    do {
      #if os(Linux)
      let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
      let number = try checked {
        socket(family.rawValue, type.rawValue | flags, protocolNumber)
      }
      #else
      let number = try checked { socket(family.rawValue, type.rawValue, protocolNumber) }
      do { try makeNonBlocking(number) } catch {
        _ = systemClose(number)
        throw error
      }
      #endif
      descriptor = GreenDescriptor(number)
    } catch {
      throw SocketError(.open, error)
    }
    kind = Kind(type)
  }

  /// Takes over an open socket, makes it non-blocking, and closes it in the end.
  ///
  /// - Throws: ``SocketError`` if `descriptor` is no open descriptor; then it is not taken over.
  public init(adopting descriptor: Int32) throws {
    do { try makeNonBlocking(descriptor) } catch {
      throw SocketError.about(descriptor, .open, error)
    }
    let type = try? SocketOption<SocketType>.socketType.get(from: descriptor)
    kind = Kind(type ?? .stream)
    self.descriptor = GreenDescriptor(descriptor)
  }

  /// A socket that is known not to block.
  init(ready number: Int32, peer: SocketAddress?, _ kind: Kind) {
    descriptor = GreenDescriptor(number)
    knownPeer = peer
    self.kind = kind
  }

  /// Two sockets connected to each other.
  ///
  /// > Switch point: No. The C function is `socketpair(2)`.
  public static func pair(_ type: SocketType = .stream) throws -> (Socket, Socket) {
    var numbers: [Int32] = [-1, -1]
    do {
      #if os(Linux)
      let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
      _ = try checked { socketpair(AF_UNIX, type.rawValue | flags, 0, &numbers) }
      #else
      _ = try checked { socketpair(AF_UNIX, type.rawValue, 0, &numbers) }
      do { for number in numbers { try makeNonBlocking(number) } } catch {
        for number in numbers { _ = systemClose(number) }
        throw error
      }
      #endif
    } catch {
      throw SocketError(.open, error)
    }
    return (
      Socket(ready: numbers[0], peer: nil, Kind(type)),
      Socket(ready: numbers[1], peer: nil, Kind(type))
    )
  }

  // MARK: Facts

  /// The number of the descriptor, -1 once the socket has been closed. Do not close it.
  public var fileDescriptor: Int32 { descriptor.number }

  /// Whether ``close()`` or ``detach()`` was called.
  public var isClosed: Bool { !descriptor.isOpen }

  /// Where it is bound. The C function is `getsockname(2)`.
  public var localAddress: SocketAddress {
    get throws { try address(.getLocalAddress) { getsockname($0, $1, $2) } }
  }

  /// To whom it is connected. The C function is `getpeername(2)`.
  public var peerAddress: SocketAddress {
    get throws {
      if let knownPeer { return knownPeer }
      let peer = try address(.getPeerAddress) { getpeername($0, $1, $2) }
      knownPeer = peer
      return peer
    }
  }

  /// For texts of errors.
  var peerIfKnown: SocketAddress? { knownPeer }

  private func address(
    _ operation: SocketError.Operation,
    _ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) throws -> SocketAddress {
    let number = try openNumber(operation)
    do {
      let found = try SocketAddress.capture { address, length throws(Errno) in
        try checked { call(number, address, length) }
      }
      if let address = found.address { return address }
    } catch {
      throw SocketError(operation, error, knownPeer)
    }
    throw SocketError(operation, .addressFamilyNotSupported, knownPeer)  // netlink, vsock
  }

  func openNumber(_ operation: SocketError.Operation) throws -> Int32 {
    descriptor.hub.checkIsCurrent("a socket")
    guard descriptor.isOpen else { throw SocketError.closed(operation, knownPeer) }
    return descriptor.number
  }

  /// The end of a call that is given `timeout`.
  @inline(__always)
  func deadline(_ timeout: Duration?) -> Deadline {
    Deadline(after: timeout ?? self.timeout, on: descriptor.hub)
  }

  /// The value of an option. The C function is `getsockopt(2)`.
  public func get<Value>(_ option: SocketOption<Value>) throws -> Value {
    let number = try openNumber(.getOption)
    do { return try option.get(from: number) } catch {
      throw SocketError(.getOption, error, knownPeer, explanation: "\(option): \(error)")
    }
  }

  /// Gives an option a value. The C function is `setsockopt(2)`.
  public func set<Value>(_ option: SocketOption<Value>, _ value: Value) throws {
    let number = try openNumber(.setOption)
    do { try option.set(value, on: number) } catch {
      throw SocketError(.setOption, error, knownPeer, explanation: "\(option): \(error)")
    }
  }

  // MARK: Listening and connecting

  /// Gives the socket an address. Port 0 picks a free one. The C function is `bind(2)`.
  public func bind(to address: SocketAddress) throws {
    let number = try openNumber(.bind)
    try address.withSockaddr { pointer, length in
      do throws(Errno) { _ = try checked { systemBind(number, pointer, length) } } catch {
        throw SocketError(.bind, error, address)
      }
    }
  }

  /// Lets the kernel accept connections. The C function is `listen(2)`.
  ///
  /// - Parameter backlog: How many may wait to be taken; the system has a limit of its own.
  /// - Throws: ``SocketError``.
  public func listen(backlog: Int = 1024) throws {
    let number = try openNumber(.listen)
    do { _ = try checked { systemListen(number, Int32(clamping: backlog)) } } catch {
      throw SocketError(.listen, error, try? localAddress)
    }
  }

  /// A socket that listens at `address`.
  ///
  /// - Parameters:
  ///   - address: Where; port 0 picks a free one.
  ///   - backlog: How many connections may wait to be taken.
  ///   - reusePort: Whether several sockets may listen there, each with its share of connections.
  ///   - permissions: Who may connect to a Unix socket, as the modes of files (`0o600`: its owner); `nil`
  ///     leaves that to the process's mask.
  /// - Returns: The listening socket.
  /// - Throws: ``SocketError`` that names the address.
  public static func listen(
    on address: SocketAddress, backlog: Int = 1024, reusePort: Bool = false,
    permissions: UInt16? = nil
  ) throws -> Socket {
    let socket = try Socket(address.family)
    if !address.isUnix { try socket.set(.reuseAddress, true) }
    if reusePort { try socket.set(.reusePort, true) }
    try socket.bind(to: address)
    if let permissions, let path = address.unixPath {
      // Nobody can connect yet.
      do { _ = try checked { chmod(path, mode_t(permissions)) } } catch {
        throw SocketError(.bind, error, address)
      }
    }
    try socket.listen(backlog: backlog)
    return socket
  }

  /// Waits for a connection and takes it.
  ///
  /// What befell a connection while it waited to be taken is no error of the listener's: the next
  /// one is taken instead.
  ///
  /// - Throws: ``SocketError``; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless a connection is there. The C function is `accept(2)`.
  public func accept(timeout: Duration? = nil) throws -> (socket: Socket, peer: SocketAddress) {
    try accept(until: deadline(timeout))
  }

  package func accept(until deadline: Deadline) throws -> (socket: Socket, peer: SocketAddress) {
    var losses = 0
    while true {
      var peer: SocketAddress?
      do {
        let number = try descriptor.perform(
          .accept, .read, until: deadline, about: try? localAddress
        ) { listener in
          let accepted = SocketAddress.capture { address, length in
            evg_accept(listener, address, length)
          }
          peer = accepted.address
          return accepted.result
        }
        let address = peer ?? .unnamedUnix
        return (Socket(ready: number, peer: address, kind), address)
      } catch let error as SocketError where error.concernsOnePeer && losses < 100 {
        losses += 1  // so many in a row are not those of connections
      }
    }
  }

  /// Connects, and waits until that has succeeded or failed. After a failure the socket is of no
  /// further use; ``connect(to:timeout:)-swift.type.method`` closes it. With `.zero` it succeeds if
  /// the peer answers at once, as one on the same machine does. To connect is to write: meanwhile
  /// another greenlet that connects or sends gets ``ConcurrentUse``.
  ///
  /// For a datagram socket: sets the peer to whom it sends and from whom it receives.
  ///
  /// > Switch point: Yes, unless it succeeds at once. The C function is `connect(2)`.
  public func connect(to address: SocketAddress, timeout: Duration? = nil) throws {
    let deadline = deadline(timeout)
    try descriptor.hub.admitIO()
    try descriptor.checkUnused(.write, .connect)
    // Linux says yes to the second of two connects, whomever it is to.
    if kind != .other, knownPeer != nil, descriptor.isOpen {
      throw SocketError(.connect, .socketIsConnected, address)
    }
    var refusals = 1
    while true {
      let number = try openNumber(.connect)
      let result = address.withSockaddr { systemConnect(number, $0, $1) }
      if result == 0 { break }
      let error = Errno(rawValue: errno)
      switch error {
      case .interrupted, .nowInProgress:
        try finishConnecting(to: address, until: deadline)
      case .resourceTemporarilyUnavailable where address.isUnix:
        // The listener's backlog is full, and the kernel does not say when it no longer is.
        refusals += 1
        let isRepeated = try descriptor.pause(
          .write, for: .connect, until: deadline, after: refusals)
        if isRepeated { continue }
        throw SocketError(.connect, .timedOut, address)
      default: throw SocketError(.connect, error, address)
      }
      break
    }
    knownPeer = address
  }

  private func finishConnecting(to address: SocketAddress, until deadline: Deadline) throws {
    // Whoever only looks must look, and what has come by the deadline counts.
    let isReady =
      try descriptor.wait(.write, for: .connect, until: deadline) || isReady(Int16(POLLOUT))
    guard isReady else { throw SocketError(.connect, .timedOut, address) }
    guard descriptor.isOpen else { throw SocketError.closed(.connect, address) }
    if let error = try get(.error) { throw SocketError(.connect, error, address) }
  }

  /// A socket connected to `address`; closed again if that fails.
  ///
  /// > Switch point: Yes.
  public static func connect(to address: SocketAddress, timeout: Duration? = nil) throws -> Socket {
    let socket = try Socket(address.family)
    do {
      if !address.isUnix { try socket.set(.noDelay, true) }
      try socket.connect(to: address, timeout: timeout)
    } catch {
      socket.close()
      throw error
    }
    return socket
  }

  // MARK: Ending

  /// Directions to shut down.
  public enum Direction: Sendable { case read, write, both }

  /// Ends one or both directions; the other goes on. Who waits in that direction is woken: to read
  /// means the end of the stream, to write ``Errno/brokenPipe``.
  ///
  /// > Switch point: No. The C function is `shutdown(2)`.
  public func shutdown(_ direction: Direction = .both) throws {
    let number = try openNumber(.shutdown)
    let how =
      switch direction {
      case .read: SHUT_RD
      case .write: SHUT_WR
      case .both: SHUT_RDWR
      }
    do { _ = try checked { systemShutdown(number, Int32(how)) } } catch {
      throw SocketError(.shutdown, error, knownPeer)
    }
    descriptor.isDrained = false
    if direction != .write { descriptor.wake(.read) }
    if direction != .read { descriptor.wake(.write) }
  }

  /// Closes the socket. Who waits on it gets a ``SocketError`` whose `isClosed` is true, before the
  /// number of the descriptor can be used again. Nothing happens the second time.
  ///
  /// > Switch point: No. The C function is `close(2)`.
  public func close() { descriptor.close() }

  /// Gives the open descriptor away; the caller closes it. Who waits on it is woken as by
  /// ``close()``.
  ///
  /// - Returns: The descriptor, which is non-blocking.
  public func detach() throws -> Int32 {
    _ = try openNumber(.detach)
    return descriptor.release()!
  }

  /// Another socket for the same connection. The C function is `fcntl(2)` with `F_DUPFD_CLOEXEC`.
  public func duplicate() throws -> Socket {
    let number = try openNumber(.duplicate)
    do {
      let copy = try checked { fcntl(number, F_DUPFD_CLOEXEC, 0) }
      let socket = Socket(ready: copy, peer: knownPeer, kind)
      socket.timeout = timeout
      return socket
    } catch {
      throw SocketError(.duplicate, error, knownPeer)
    }
  }

  /// Waits until there is something to receive, or an end or an error to report.
  ///
  /// - Returns: Whether there is; `false` if `timeout` ran out first.
  ///
  /// > Switch point: Yes, unless there is already.
  public func waitReadable(timeout: Duration? = nil) throws -> Bool {
    try wait(.read, Int16(POLLIN), timeout)
  }

  /// Waits until something can be sent, or an error reported.
  ///
  /// > Switch point: Yes, unless it can be already.
  public func waitWritable(timeout: Duration? = nil) throws -> Bool {
    try wait(.write, Int16(POLLOUT), timeout)
  }

  private func wait(
    _ direction: GreenDescriptor.Direction, _ events: Int16, _ timeout: Duration?
  ) throws -> Bool {
    try descriptor.hub.admitIO()
    _ = try openNumber(.wait)
    if isReady(events) { return true }
    let isReady = try descriptor.wait(direction, for: .wait, until: deadline(timeout))
    if isReady, !descriptor.isOpen { throw SocketError.closed(.wait, knownPeer) }
    return isReady
  }

  private func isReady(_ events: Int16) -> Bool {
    var look = pollfd(fd: descriptor.number, events: events, revents: 0)
    return systemPoll(&look) > 0
  }

  /// Whether a read that returns less than was asked for has emptied the kernel's buffer.
  var shortReadsDrain: Bool { kind == .stream }

  /// Whether a receive of no bytes means the end, and not an empty message.
  @inline(never)
  func isAtEnd() -> Bool {
    if kind != .sequenced { return kind == .stream }
    // The kernel says of the end only that no more will come. Empty messages before it, which it
    // cannot be asked for either, are taken for it.
    var look = pollfd(fd: descriptor.number, events: endOfInput, revents: 0)
    var waiting: Int32 = 0
    return systemPoll(&look) > 0 && look.revents & (endOfInput | Int16(POLLHUP)) != 0
      && ioctl(descriptor.number, UInt(FIONREAD), &waiting) == 0 && waiting == 0
  }
}

#if os(Linux)
private let endOfInput = Int16(0x2000)  // POLLRDHUP, which glibc shows with _GNU_SOURCE only
#else
private let endOfInput = Int16(POLLHUP)
#endif

// Within the class the names of the C functions mean its methods.
private func systemBind(_ s: Int32, _ a: UnsafePointer<sockaddr>, _ n: socklen_t) -> Int32 {
  bind(s, a, n)
}
private func systemListen(_ s: Int32, _ n: Int32) -> Int32 { listen(s, n) }
private func systemConnect(_ s: Int32, _ a: UnsafePointer<sockaddr>, _ n: socklen_t) -> Int32 {
  connect(s, a, n)
}
private func systemShutdown(_ s: Int32, _ how: Int32) -> Int32 { shutdown(s, how) }
