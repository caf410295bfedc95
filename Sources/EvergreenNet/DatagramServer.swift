// Evergreen: a server for datagrams.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import Greenlets

/// Receives datagrams and calls a handler with each.
///
/// ```swift
/// let server = try DatagramServer("127.0.0.1:7777") { server, bytes, sender in
///   try server.send(bytes, to: sender)
/// }
/// try server.serveForever()
/// ```
///
/// Each datagram is handled in a greenlet of its own. When as many are at work as there may be, the
/// others wait in the kernel, which drops what it has no room for. Datagrams of more than 64 KiB,
/// which Unix sockets can carry, are cut to that.
///
/// That a client has gone when its answer is sent, or has no address to be sent one, is no error.
///
/// > gevent: `gevent.server.DatagramServer`.
public final class DatagramServer {
  public typealias Handler = (
    _ server: DatagramServer, _ bytes: [UInt8], _ sender: SocketAddress
  ) throws -> Void

  /// The socket. It is the server that receives from it.
  public let socket: Socket
  /// Where it receives, with the port that the system picked if it was asked for port 0.
  public let address: SocketAddress
  package let life: ServerLife
  private let handler: Handler
  private let file: SocketFile?
  private let isSocketGiven: Bool
  /// It was given to the server, and somebody else receives from it.
  private var isSocketShared = false
  private let sending = Semaphore(value: 1)
  private var receiver: AnyGreenlet?
  private var isStopped = false

  /// Binds to `address`; datagrams wait in the kernel until the server is started.
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:53`, `[::1]:53`, `:53` for all interfaces, `unix:/run/x.sock`.
  ///   - maxHandlers: How many datagrams may be at work at a time, 1 or more; `nil` for no limit.
  ///   - reusePort: Whether others may bind there too, each with its share.
  ///   - handler: Called with each datagram; it may block.
  /// - Throws: ``SocketAddressError`` or ``SocketError`` that names the address.
  public convenience init(
    _ address: String, maxHandlers: Int? = 1000, reusePort: Bool = false,
    _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress(parsing: address), maxHandlers: maxHandlers, reusePort: reusePort, handler)
  }

  /// Binds to a host, which may be a name.
  ///
  /// A name may have several addresses, `localhost` one of each family: the server binds to that
  /// which the resolver gives first, and ``address`` says which it is.
  ///
  /// - Parameters:
  ///   - host: A name or a numeric address, IPv4 or IPv6; empty or `*` for all interfaces.
  ///   - port: The port; 0 picks a free one.
  ///   - maxHandlers: How many datagrams may be at work at a time, 1 or more; `nil` for no limit.
  ///   - reusePort: Whether others may bind there too, each with its share.
  ///   - handler: Called with each datagram; it may block.
  /// - Throws: ``ResolverError``; ``SocketError`` that names the address; what is thrown into the
  ///   caller while it waits for the resolver.
  ///
  /// > Switch point: Yes, unless `host` is numeric.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    host: String, port: UInt16, maxHandlers: Int? = 1000, reusePort: Bool = false,
    _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress.whereToListen(host, port), maxHandlers: maxHandlers, reusePort: reusePort,
      handler)
  }

  /// Binds to `address`; see the other initialisers.
  public convenience init(
    _ address: SocketAddress, maxHandlers: Int? = 1000, reusePort: Bool = false,
    _ handler: @escaping Handler
  ) throws {
    checkLimit(maxHandlers, of: "a server", "handlers")
    let socket = try Socket(address.family, .datagram)
    if reusePort { try socket.set(.reusePort, true) }
    try socket.bind(to: address)
    try self.init(
      socket, file: SocketFile(at: address), isGiven: false, maxHandlers: maxHandlers, handler)
  }

  /// Serves a datagram socket that is bound already. The server closes it when it stops; a Unix
  /// socket's path is left to whoever made it.
  public convenience init(
    socket: Socket, maxHandlers: Int? = 1000, _ handler: @escaping Handler
  ) throws {
    checkLimit(maxHandlers, of: "a server", "handlers")
    try self.init(socket, file: nil, isGiven: true, maxHandlers: maxHandlers, handler)
  }

  private init(
    _ socket: Socket, file: SocketFile?, isGiven: Bool, maxHandlers: Int?,
    _ handler: @escaping Handler
  ) throws {
    self.socket = socket
    self.file = file
    isSocketGiven = isGiven
    self.handler = handler
    address = try socket.localAddress
    life = ServerLife(.receive, at: address, size: maxHandlers)
  }

  deinit { if !socket.isClosed { file?.remove() } }

  /// Begins to receive.
  ///
  /// - Throws: ``SocketError``, if it has been stopped, or what has ended it.
  ///
  /// > Switch point: No.
  public func start() throws {
    if receiver?.isReady == false { return }
    if let failure = life.failure { throw failure }
    if isStopped || socket.isClosed { throw SocketError.closed(.receive, address) }
    let receiver = spawn { [self] in try receiveForever() }
    receiver.name = "receiver at \(address)"
    self.receiver = receiver
    // It never runs if it is killed at once, or gets no stack. In the child of a fork it has ended,
    // and may be started anew.
    _ = receiver.rawLink { [self, unowned receiver] in
      let error = receiver.error ?? GreenletExit()
      guard self.receiver === receiver, !(error is LostInFork) else { return }
      close()
      life.noteFailure(error)
    }
  }

  /// Sends a datagram from the server's address. Handlers may send at once: they take turns.
  ///
  /// A Unix socket whose owner does not read takes no more when its queue is full. Who waits for it
  /// does not keep others from sending to their clients.
  ///
  /// - Parameters:
  ///   - bytes: The datagram.
  ///   - address: To whom.
  ///   - timeout: The longest wait for room, `nil` for the socket's ``Socket/timeout``. Ten seconds
  ///     unless it is said otherwise, lest clients that do not read keep all handlers waiting.
  /// - Throws: ``SocketError``; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless the kernel has room and nobody else is sending.
  public func send(
    _ bytes: [UInt8], to address: SocketAddress, timeout: Duration? = .seconds(10)
  ) throws {
    if sending.tryAcquire() {
      defer { sending.release() }
      do {
        return try socket.send(bytes, to: address, until: .now)
      } catch let error as SocketError where error.isTimeout {}
    }
    try sendWhenThereIsRoom(bytes, to: address, until: socket.deadline(timeout))
  }

  private func sendWhenThereIsRoom(
    _ bytes: [UInt8], to address: SocketAddress, until deadline: Deadline
  ) throws {
    let hub = socket.descriptor.hub
    let late = SocketError(.send, .timedOut, address)
    var pause = Duration.milliseconds(1)
    while true {
      guard try sending.acquire(timeout: deadline.remaining(on: hub)) else { throw late }
      do {
        defer { sending.release() }
        // What is full may be the queue of this one client, and then the others go first.
        return try socket.send(bytes, to: address, until: address.isUnix ? .now : deadline)
      } catch let error as SocketError where error.isTimeout && address.isUnix {}
      let left = deadline.remaining(on: hub) ?? pause
      if left <= .zero { throw late }
      try sleep(for: min(pause, left))
      pause = min(pause * 2, .milliseconds(32))
    }
  }

  /// Receives no more, waits for the handlers, then kills them, and closes the socket. They have
  /// five seconds to clean up; whoever takes longer is reported and left.
  ///
  /// May be called again, by others at the same time too, each with a time of its own. A handler may
  /// stop its own server: it is not waited for, nor killed, and goes on. The socket stays open for
  /// it, and ``serveForever()`` waits for it as long as `timeout` says, once more.
  ///
  /// - Parameter timeout: How long handlers may take to end by themselves; `nil` for ever, `.zero`
  ///   kills them at once.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if handlers are at work.
  public func stop(timeout: Duration? = .seconds(1)) throws {
    stopReceiving()
    try life.stop(timeout: timeout, closing: closeSocket)
  }

  /// Starts if need be and waits until ``stop(timeout:)`` has been called and has done its work.
  ///
  /// When what is thrown into the caller ends the wait, the server is stopped first.
  ///
  /// - Throws: What has ended the server of itself: ``SocketError`` if the socket has become useless,
  ///   ``ConcurrentUse`` if somebody else receives from it.
  ///
  /// > Switch point: Yes.
  public func serveForever() throws {
    try life.serveForever(self, stoppingOn: [], timeout: nil) {}
  }

  /// Serves until one of `signals` comes, then stops gracefully; see
  /// ``StreamServer/serveForever(stoppingOn:timeout:)``.
  ///
  /// - Parameters:
  ///   - signals: Which, as in `SIGTERM`.
  ///   - timeout: How long handlers may take to end by themselves; `nil` for ever.
  ///   - whenReady: Called when the server has started and the signals are heard: the moment to tell
  ///     a supervisor. If it throws, the server is stopped.
  /// - Throws: As ``serveForever()``; ``LoopError`` if another hub answers one of the signals, or if
  ///   it cannot be caught; then the server was not started.
  ///
  /// > Switch point: Yes.
  public func serveForever(
    stoppingOn signals: [Int32], timeout: Duration? = .seconds(10),
    whenReady: () throws -> Void = {}
  ) throws {
    try life.serveForever(self, stoppingOn: signals, timeout: timeout, whenReady: whenReady)
  }

  package func close() {
    stopReceiving()
    closeSocket()
  }

  private func stopReceiving() {
    let receiver = receiver
    self.receiver = nil
    isStopped = true
    _ = try? receiver?.kill(waiting: false)
  }

  private func closeSocket() {
    if isSocketShared || socket.isClosed { return }
    file?.remove()
    socket.close()
  }

  private func receiveForever() throws {
    do {
      // What has come already when the server is stopped is not handled any more.
      try life.takeForever(budget: { 64 }) {
        let (bytes, sender) = try socket.receiveFrom(upTo: 65_536, until: .never)
        if isStopped { throw GreenletExit() }
        serve(bytes, sender)
      }
    } catch {
      if isStopped { return }
      isSocketShared = isSocketGiven && error is ConcurrentUse
      receiver = nil
      close()
      try life.fail(with: error)
    }
  }

  private func serve(_ bytes: [UInt8], _ sender: SocketAddress) {
    _ = life.pool.trySpawn { [self] in
      do { try handler(self, bytes, sender) } catch let error as SocketError
        where error.concerns(sender) && Self.isLost(error, sender)
      {}
    }
  }

  /// Whether an answer could not be delivered because nobody is there to have it.
  private static func isLost(_ error: SocketError, _ sender: SocketAddress) -> Bool {
    switch error.errno {
    case .connectionRefused: true
    case .noSuchFileOrDirectory: sender.isUnix  // it has removed its path
    case .invalidArgument: sender == .unnamedUnix  // it has no address
    default: error.isPeerGone
    }
  }
}

extension DatagramServer: LivingServer {}
