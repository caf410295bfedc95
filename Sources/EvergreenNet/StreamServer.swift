// Evergreen: a server that gives each connection a greenlet.
// SPDX-License-Identifier: MIT
//
// One greenlet accepts. It first makes sure that there is room for another connection, then takes
// one: when the server is full, connections wait in the kernel's backlog, where clients see them as
// slow and not as refused. It takes a limited number in a row before it lets others run. When the
// process is out of descriptors it pauses, longer each time, until accepting succeeds again.

import EventLoop
import EvergreenHub
import EvergreenSync
import Greenlets

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Accepts connections and runs a handler for each, in a greenlet of its own.
///
/// ```swift
/// let server = try StreamServer("127.0.0.1:7777") { socket, peer in
///   while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
/// }
/// try server.serveForever()
/// ```
///
/// The socket is closed when the handler returns or throws. That a peer goes away is no error; any
/// other error of a handler is reported as that of its greenlet (``Hub/onError``) and ends that
/// connection alone.
///
/// > gevent: `gevent.server.StreamServer`.
public final class StreamServer {
  public typealias Handler = (_ socket: Socket, _ peer: SocketAddress) throws -> Void

  /// Connections that may be taken in a row before others run; the rest wait for the next turn.
  public var acceptBudget = 100

  private let handler: Handler
  private let pool: Pool
  private let listener: Socket
  private var acceptor: AnyGreenlet?
  private let ended = Event()

  /// Where it listens, with the port that the system picked if it was asked for port 0.
  public let address: SocketAddress

  /// Listens at `address`; connections wait until the server is started.
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:80`, `[::1]:80`, `:80` for all interfaces, `unix:/run/x.sock`.
  ///   - maxConnections: How many may be open at a time; `nil` for no limit.
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

  /// Listens at `address`; see the other initialiser.
  public convenience init(
    _ address: SocketAddress, maxConnections: Int? = nil, backlog: Int = 1024,
    reusePort: Bool = false, _ handler: @escaping Handler
  ) throws {
    let listener = try Socket.listen(on: address, backlog: backlog, reusePort: reusePort)
    try self.init(listener: listener, maxConnections: maxConnections, handler)
    if reusePort { acceptBudget = 1 }  // leave the others their share
  }

  /// Serves a socket that listens already. The server closes it when it stops.
  public init(
    listener: Socket, maxConnections: Int? = nil, _ handler: @escaping Handler
  ) throws {
    self.listener = listener
    self.handler = handler
    pool = Pool(size: maxConnections)
    address = try listener.localAddress
  }

  // MARK: Life

  /// Whether it takes connections.
  public var isAccepting: Bool { acceptor != nil }

  /// Connections that are open.
  public var connectionCount: Int { pool.count }

  /// Begins to take connections.
  ///
  /// > Switch point: No.
  public func start() throws {
    if acceptor != nil { return }
    if listener.isClosed { throw SocketError.closed(.accept, address) }
    let acceptor = spawn { [self] in try acceptForever() }
    acceptor.name = "acceptor of \(address)"
    self.acceptor = acceptor
  }

  /// Takes no more connections and closes the listener. Those that are open go on.
  ///
  /// > Switch point: No.
  public func stopAccepting() {
    if let acceptor { _ = try? acceptor.kill(waiting: false) }
    acceptor = nil
    if !listener.isClosed, let path = address.unixPath { unlink(path) }
    listener.close()
  }

  /// Stops gracefully: takes no more connections, waits for the open ones, then kills them.
  ///
  /// - Parameter timeout: How long open connections may take to end by themselves; `nil` for ever.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if connections are open.
  ///
  /// > gevent: `BaseServer.stop(timeout)`, which waits a second unless it is told otherwise.
  public func stop(timeout: Duration? = .seconds(1)) throws {
    stopAccepting()
    defer { ended.set() }
    if try !pool.join(timeout: timeout) { try pool.kill() }
  }

  /// Starts if need be and waits until ``stop(timeout:)`` has been called and has done its work.
  ///
  /// When what is thrown into the caller ends the wait, the server is stopped first.
  ///
  /// > Switch point: Yes.
  public func serveForever() throws {
    try start()
    do { try ended.wait() } catch {
      stopAccepting()
      _ = try? pool.kill(waiting: false)
      throw error
    }
  }

  // MARK: Accepting

  private func acceptForever() throws {
    var pause = Duration.milliseconds(10)
    var inARow = 0
    while true {
      try pool.waitAvailable()
      do {
        let (socket, peer) = try listener.accept()
        pause = .milliseconds(10)
        serve(socket, peer)
      } catch let error as SocketError where error.isExhaustion {
        warn("cannot accept at \(address): \(error.errno); trying again in \(pause)")
        try sleep(for: pause)
        pause = min(pause * 2, .seconds(1))
      } catch let error as SocketError where error.isClosed {
        return
      }
      inARow += 1
      if inARow >= acceptBudget {
        inARow = 0
        try Greenlet.yield()
      }
    }
  }

  private func serve(_ socket: Socket, _ peer: SocketAddress) {
    if !peer.isUnix { try? socket.set(.noDelay, true) }
    let handler = handler
    _ = pool.trySpawn {
      defer { socket.close() }
      do { try handler(socket, peer) } catch let error as SocketError where error.isPeerGone {}
    }
  }
}

extension SocketError {
  /// The process or the system has run out of what a new connection needs.
  fileprivate var isExhaustion: Bool {
    switch errno {
    case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory: true
    default: false
    }
  }
}
