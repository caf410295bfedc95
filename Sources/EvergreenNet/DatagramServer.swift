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
/// others wait in the kernel, which drops what it has no room for.
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
  private let handler: Handler
  private let pool: Pool
  private let sending = Semaphore(value: 1)
  private var receiver: AnyGreenlet?
  private let ended = Event()
  private var isStopped = false

  /// Binds to `address`; datagrams wait in the kernel until the server is started.
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:53`, `[::1]:53`, `:53` for all interfaces, `unix:/run/x.sock`.
  ///   - maxHandlers: How many datagrams may be at work at a time.
  ///   - reusePort: Whether others may bind there too, each with its share.
  ///   - handler: Called with each datagram; it may block.
  /// - Throws: ``SocketAddressError`` or ``SocketError`` that names the address.
  public init(
    _ address: String, maxHandlers: Int = 1000, reusePort: Bool = false,
    _ handler: @escaping Handler
  ) throws {
    let parsed = try SocketAddress(parsing: address)
    socket = try Socket(parsed.family, .datagram)
    if reusePort { try socket.set(.reusePort, true) }
    try socket.bind(to: parsed)
    self.address = try socket.localAddress
    self.handler = handler
    pool = Pool(size: maxHandlers)
  }

  /// Begins to receive.
  ///
  /// > Switch point: No.
  public func start() throws {
    if receiver != nil { return }
    if isStopped || socket.isClosed { throw SocketError.closed(.receive, address) }
    let receiver = spawn { [self] in try receiveForever() }
    receiver.name = "receiver at \(address)"
    self.receiver = receiver
  }

  /// Sends a datagram from the server's address. Handlers may send at once: they take turns.
  ///
  /// > Switch point: Yes, unless the kernel has room and nobody else is sending.
  public func send(_ bytes: [UInt8], to address: SocketAddress) throws {
    try sending.withPermit { try socket.send(bytes, to: address) }
  }

  /// Receives no more, waits for the handlers, then kills them and closes the socket.
  ///
  /// - Parameter timeout: How long handlers may take to end by themselves; `nil` for ever.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, if handlers are at work.
  public func stop(timeout: Duration? = .seconds(1)) throws {
    if let receiver { _ = try? receiver.kill(waiting: false) }
    receiver = nil
    isStopped = true
    defer {
      socket.close()
      ended.set()
    }
    if try !pool.join(timeout: timeout) { try pool.kill() }
  }

  /// Starts if need be and waits until ``stop(timeout:)`` has been called and has done its work.
  ///
  /// > Switch point: Yes.
  public func serveForever() throws {
    try start()
    try ended.wait()
  }

  private func receiveForever() throws {
    while true {
      try pool.waitAvailable()
      do {
        let (bytes, sender) = try socket.receiveFrom()
        _ = pool.trySpawn { [self] in
          do { try handler(self, bytes, sender) } catch let error as SocketError
            where error.isPeerGone || error.errno == .connectionRefused
          {}
        }
      } catch let error as SocketError where error.errno == .connectionRefused {
        continue  // an earlier datagram met a closed port; the kernel tells us here
      } catch let error as SocketError where error.isClosed {
        return
      }
    }
  }
}
