// Evergreen: a server that gives each connection a greenlet.
// SPDX-License-Identifier: MIT
//
// One greenlet accepts. It first makes sure that there is room for another connection, then takes
// one: when the server is full, connections wait in the kernel's backlog, where clients see them as
// slow and not as refused. It takes a limited number in a row before it lets others run. When the
// process is out of descriptors it pauses, longer each time, until accepting succeeds again. Only
// what says that the listener itself is of no use any more ends it.

import EventLoop
import EvergreenHub
import EvergreenSync
import Greenlets

/// Accepts connections and runs a handler for each, in a greenlet of its own.
///
/// ```swift
/// let server = try StreamServer("127.0.0.1:7777") { socket, peer in
///   while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
/// }
/// try server.serveForever()
/// ```
///
/// The socket is closed when the handler returns or throws. That its peer goes away, with a reset or
/// with the end of the stream where a handler wanted more (``EndOfStream``), is no error; any other
/// error of a handler is reported as that of its greenlet (``Hub/onError``) and ends that connection
/// alone.
///
/// A Unix socket's path is removed when the server stops, by the process that made it alone. After a
/// crash it stays, and the next start fails with ``Errno/addressInUse``: where no other server can be
/// there, remove the file before.
///
/// > gevent: `gevent.server.StreamServer`.
public final class StreamServer {
  public typealias Handler = (_ socket: Socket, _ peer: SocketAddress) throws -> Void

  /// Connections that may be taken in a row before others run; the rest wait for the next turn.
  public var acceptBudget = 100

  private let handler: Handler
  private let listener: Socket
  private let file: SocketFile?
  /// It was given to the server, and somebody else accepts from it.
  private var isListenerShared = false
  package let life: ServerLife
  private var acceptor: AnyGreenlet?
  /// Takes a connection; for tests of what the kernel may answer.
  package var accept: () throws -> (socket: Socket, peer: SocketAddress)

  /// Where it listens, with the port that the system picked if it was asked for port 0.
  public let address: SocketAddress

  /// Listens at `address`; connections wait until the server is started.
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:80`, `[::1]:80`, `:80` for all interfaces, `unix:/run/x.sock`.
  ///   - maxConnections: How many may be open at a time, 1 or more; `nil` for no limit.
  ///   - backlog: How many may wait to be taken.
  ///   - reusePort: Whether other processes and threads may listen there too, each with its share.
  ///   - handler: Called with each connection; it may block.
  /// - Throws: ``SocketAddressError`` or ``SocketError`` that names the address.
  public convenience init(
    _ address: String, maxConnections: Int? = nil, backlog: Int = 1024, reusePort: Bool = false,
    _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress(parsing: address), maxConnections: maxConnections, backlog: backlog,
      reusePort: reusePort, handler)
  }

  /// Listens at a host, which may be a name.
  ///
  /// A name may have several addresses, `localhost` one of each family: the server listens at that
  /// which the resolver gives first, and ``address`` says which it is. To serve them all, make a
  /// server for each of ``SocketAddress/resolve(_:port:family:timeout:)``.
  ///
  /// - Parameters:
  ///   - host: A name or a numeric address, IPv4 or IPv6; empty or `*` for all interfaces.
  ///   - port: The port; 0 picks a free one.
  ///   - maxConnections: How many may be open at a time, 1 or more; `nil` for no limit.
  ///   - backlog: How many may wait to be taken.
  ///   - reusePort: Whether other processes and threads may listen there too, each with its share.
  ///   - handler: Called with each connection; it may block.
  /// - Throws: ``ResolverError``; ``SocketError`` that names the address; what is thrown into the
  ///   caller while it waits for the resolver.
  ///
  /// > Switch point: Yes, unless `host` is numeric.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    host: String, port: UInt16, maxConnections: Int? = nil, backlog: Int = 1024,
    reusePort: Bool = false, _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress.whereToListen(host, port), maxConnections: maxConnections, backlog: backlog,
      reusePort: reusePort, handler)
  }

  /// Listens at `address`; see the other initialisers.
  public convenience init(
    _ address: SocketAddress, maxConnections: Int? = nil, backlog: Int = 1024,
    reusePort: Bool = false, _ handler: @escaping Handler
  ) throws {
    checkLimit(maxConnections, of: "a server", "connections")
    let listener = try Socket.listen(on: address, backlog: backlog, reusePort: reusePort)
    try self.init(
      listener, file: SocketFile(at: address), maxConnections: maxConnections, handler)
    if reusePort { acceptBudget = 1 }  // leave the others their share
  }

  /// Serves a socket that listens already. The server closes it when it stops; a Unix socket's path
  /// is left to whoever made it.
  ///
  /// - Throws: ``SocketError`` if it does not listen.
  public convenience init(
    listener: Socket, maxConnections: Int? = nil, _ handler: @escaping Handler
  ) throws {
    checkLimit(maxConnections, of: "a server", "connections")
    guard try listener.get(.acceptsConnections) else {
      throw SocketError(
        .accept, .invalidArgument, try? listener.localAddress,
        explanation: "the socket does not listen")
    }
    try self.init(listener, file: nil, maxConnections: maxConnections, handler)
  }

  init(
    _ listener: Socket, file: SocketFile?, maxConnections: Int?, _ handler: @escaping Handler
  ) throws {
    self.listener = listener
    self.file = file
    self.handler = handler
    address = try listener.localAddress
    life = ServerLife(.accept, at: address, size: maxConnections)
    accept = { try listener.accept(until: .never) }
  }

  deinit { if !listener.isClosed { file?.remove() } }

  // MARK: Life

  /// Whether it takes connections.
  public var isAccepting: Bool { acceptor?.isReady == false }

  /// Connections that are open.
  public var connectionCount: Int { life.pool.count }

  /// Begins to take connections.
  ///
  /// - Throws: ``SocketError``, if it has been stopped, or what has ended it.
  ///
  /// > Switch point: No.
  public func start() throws {
    if isAccepting { return }
    if let failure = life.failure { throw failure }
    if listener.isClosed { throw SocketError.closed(.accept, address) }
    let acceptor = spawn { [self] in try acceptForever() }
    acceptor.name = "acceptor of \(address)"
    self.acceptor = acceptor
    // It never runs if it is killed at once, or gets no stack. In the child of a fork it has ended,
    // and may be started anew.
    _ = acceptor.rawLink { [self, unowned acceptor] in
      let error = acceptor.error ?? GreenletExit()
      guard self.acceptor === acceptor, !(error is LostInFork) else { return }
      stopAccepting()
      life.noteFailure(error)
    }
  }

  /// Takes no more connections and closes the listener. Those that are open go on, and so does
  /// ``serveForever()``, until ``stop(timeout:)`` is called.
  ///
  /// > Switch point: No.
  public func stopAccepting() {
    let acceptor = acceptor
    self.acceptor = nil
    _ = try? acceptor?.kill(waiting: false)
    closeListener()
  }

  private func closeListener() {
    if isListenerShared || listener.isClosed { return }
    file?.remove()
    listener.close()
  }

  package func close() { stopAccepting() }

  /// Stops gracefully: takes no more connections, waits for the open ones, then kills them. They
  /// have five seconds to clean up; whoever takes longer is reported and left.
  ///
  /// May be called again, by others at the same time too, each with a time of its own. A handler may
  /// stop its own server: it is not waited for, nor killed, and goes on; ``serveForever()`` then
  /// waits for it as long as `timeout` says, once more.
  ///
  /// - Parameter timeout: How long open connections may take to end by themselves; `nil` for ever,
  ///   `.zero` kills them at once.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if connections are open.
  ///
  /// > gevent: `BaseServer.stop(timeout)`, which waits a second unless it is told otherwise.
  public func stop(timeout: Duration? = .seconds(1)) throws {
    stopAccepting()
    try life.stop(timeout: timeout)
  }

  /// Starts if need be and waits until ``stop(timeout:)`` has been called and has done its work.
  ///
  /// When what is thrown into the caller ends the wait, the server is stopped first.
  ///
  /// - Throws: What has ended the server of itself: ``SocketError`` if the listener has become useless,
  ///   ``ConcurrentUse`` if somebody else accepts from the listener that it was given, and then that
  ///   stays open.
  ///
  /// > Switch point: Yes.
  public func serveForever() throws {
    try life.serveForever(self, stoppingOn: [], timeout: nil) {}
  }

  /// Serves until one of `signals` comes, then stops gracefully: takes no more connections, waits
  /// for the open ones, and kills those that take longer than `timeout`. A second signal ends the
  /// wait: the connections are killed at once. From then on the signals do what they did before, so
  /// that a third one ends the process.
  ///
  /// ```swift
  /// import Glibc  // for the names of signals
  ///
  /// try server.serveForever(stoppingOn: [SIGINT, SIGTERM])
  /// ```
  ///
  /// - Parameters:
  ///   - signals: Which, as in `SIGTERM`.
  ///   - timeout: How long open connections may take to end by themselves; `nil` for ever.
  ///   - whenReady: Called when the server has started and the signals are heard: the moment to tell
  ///     a supervisor. If it throws, the server is stopped.
  /// - Throws: As ``serveForever()``; ``LoopError`` if another hub answers one of the signals, or if
  ///   it cannot be caught; then the server was not started.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `gevent.signal_handler(signal.SIGTERM, server.stop)`, then `serve_forever()`.
  public func serveForever(
    stoppingOn signals: [Int32], timeout: Duration? = .seconds(10),
    whenReady: () throws -> Void = {}
  ) throws {
    try life.serveForever(self, stoppingOn: signals, timeout: timeout, whenReady: whenReady)
  }

  // MARK: Accepting

  private func acceptForever() throws {
    do {
      try life.takeForever(budget: { acceptBudget }) {
        let (socket, peer) = try accept()
        serve(socket, peer)
      }
    } catch {
      if acceptor == nil { return }  // it was stopped
      isListenerShared = error is ConcurrentUse
      acceptor = nil
      stopAccepting()
      try life.fail(with: error)
    }
  }

  private func serve(_ socket: Socket, _ peer: SocketAddress) {
    if !peer.isUnix { try? socket.set(.noDelay, true) }
    let handler = handler
    _ = life.pool.trySpawn {
      defer { socket.close() }
      do { try handler(socket, peer) } catch {
        if !error.isDeparture(of: peer) { throw error }
      }
    }
  }
}

extension StreamServer: LivingServer {}
