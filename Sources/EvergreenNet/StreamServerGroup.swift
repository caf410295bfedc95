// Evergreen: a server on the hubs of a group.
// SPDX-License-Identifier: MIT
//
// Each hub has a server of its own, whose listener shares the port with the others (SO_REUSEPORT): the
// kernel spreads the connections, and nothing is shared between the threads. The first to listen picks the
// port. A server stays with its hub, among the attachments, so that it goes there.

import EventLoop
import EvergreenBase
public import EvergreenConcurrency
import EvergreenHub
import EvergreenSync
import Greenlets

/// Accepts connections on several hubs at one address, and runs a handler for each in a greenlet of the hub
/// that took it: a ``StreamServer`` for each core.
///
/// ```swift
/// let server = try StreamServerGroup("127.0.0.1:7777", hubs: 4) { socket, peer in
///   while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
/// }
/// try server.serveForever(stoppingOn: [SIGINT, SIGTERM])
/// ```
///
/// Belongs to the hub on which it was made, which need not be one of those.
///
/// > gevent: has none; there one starts processes that share the port.
public final class StreamServerGroup {
  public typealias Handler =
    @Sendable (_ socket: Socket, _ peer: SocketAddress) throws -> Void

  private let hub = Hub.current
  private let group: HubGroup
  private let ownsGroup: Bool
  private let key = Key()
  private let news = Event()
  private var signals = 0

  /// By which each hub finds its server.
  private final class Key: Sendable {
    var server: StreamServer? {
      Hub.currentIfAny?.attachments[ObjectIdentifier(self)] as? StreamServer
    }

    func keep(_ server: StreamServer?) {
      Hub.currentIfAny?.attachments[ObjectIdentifier(self)] = server
    }
  }

  /// Where all of them listen, with the port that the system picked if it was asked for port 0.
  public let address: SocketAddress

  /// Starts hubs, which listen at `address`; connections wait until the server is started.
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:80`, `[::1]:80`, `:80` for all interfaces.
  ///   - hubs: How many, 1 or more; `nil` for as many as there are cores.
  ///   - maxConnections: How many each hub may have at a time, 1 or more; `nil` for no limit.
  ///   - backlog: How many may wait to be taken, on each hub.
  ///   - handler: Called with each connection, on the hub that took it; it may block.
  /// - Throws: ``SocketAddressError``; ``SocketError`` that names the address; ``ThreadUnavailable``.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    _ address: String, hubs: Int? = nil, maxConnections: Int? = nil, backlog: Int = 1024,
    _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress(parsing: address), hubs: hubs, maxConnections: maxConnections,
      backlog: backlog, handler)
  }

  /// Starts hubs, which listen at a host that may be a name; see ``StreamServer``.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    host: String, port: UInt16, hubs: Int? = nil, maxConnections: Int? = nil,
    backlog: Int = 1024, _ handler: @escaping Handler
  ) throws {
    try self.init(
      SocketAddress.whereToListen(host, port), hubs: hubs, maxConnections: maxConnections,
      backlog: backlog, handler)
  }

  /// Starts hubs, which listen at `address`; see the other initialisers.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    _ address: SocketAddress, hubs: Int? = nil, maxConnections: Int? = nil, backlog: Int = 1024,
    _ handler: @escaping Handler
  ) throws {
    let group = try HubGroup(hubs: hubs, name: "server")
    do {
      try self.init(
        address, on: group, ownsGroup: true, maxConnections: maxConnections, backlog: backlog,
        handler)
    } catch {
      try? group.stop(timeout: .zero)
      throw error
    }
  }

  /// Listens on the hubs of a group, which goes on when the server stops.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(
    _ address: SocketAddress, on group: HubGroup, maxConnections: Int? = nil, backlog: Int = 1024,
    _ handler: @escaping Handler
  ) throws {
    try self.init(
      address, on: group, ownsGroup: false, maxConnections: maxConnections, backlog: backlog,
      handler)
  }

  private init(
    _ address: SocketAddress, on group: HubGroup, ownsGroup: Bool, maxConnections: Int?,
    backlog: Int, _ handler: @escaping Handler
  ) throws {
    checkLimit(maxConnections, of: "a server", "connections")
    require(
      group.count == 1 || !address.isUnix,
      "hubs cannot share a Unix socket, for SO_REUSEPORT is of ports; use one hub, or a port")
    self.group = group
    self.ownsGroup = ownsGroup
    let isShared = group.count > 1
    let key = key
    var place = address
    for number in 0..<group.count {
      let wanted = place
      place = try group.run(on: number) {
        let server = try StreamServer(
          wanted, maxConnections: maxConnections, backlog: backlog, reusePort: isShared, handler)
        key.keep(server)
        return server.address
      }
    }
    self.address = place
  }

  deinit {
    let key = key
    for number in 0..<group.count {
      _ = try? group.spawn(on: number) {
        key.server?.stopAccepting()
        key.keep(nil)
      }
    }
  }

  // MARK: Life

  /// Connections that are open, on all hubs together.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func connectionCount() throws -> Int {
    try onEach { $0?.connectionCount ?? 0 }.reduce(0, +)
  }

  /// Begins to take connections on all hubs.
  ///
  /// - Throws: ``SocketError``, if it has been stopped, or what has ended one of them.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func start() throws {
    let address = address
    _ = try onEach { server in
      guard let server else { throw SocketError.closed(.accept, address) }
      try server.start()
    }
  }

  /// Stops gracefully, all hubs at the same time: takes no more connections, waits for the open ones, then
  /// kills them; see ``StreamServer/stop(timeout:)``. The threads end, unless the group was given.
  ///
  /// May be called again, also meanwhile, with a time of its own.
  ///
  /// - Parameter timeout: How long open connections may take to end by themselves; `nil` for ever, `.zero`
  ///   kills them at once.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func stop(timeout: Duration? = .seconds(1)) throws {
    let key = key
    do {
      _ = try onEach { server in
        try server?.stop(timeout: timeout)
        key.keep(nil)
      }
    } catch {
      if !(error is HubEnded) { throw error }  // somebody else was faster
    }
    if ownsGroup { try group.stop(timeout: .zero) }
  }

  /// Starts if need be and serves until one of `signals` comes or ``stop(timeout:)`` has been called and has
  /// done its work; see ``StreamServer/serveForever(stoppingOn:timeout:whenReady:)``.
  ///
  /// - Parameters:
  ///   - signals: Which, as in `SIGTERM`; the caller's hub answers them. A second one kills at once.
  ///   - timeout: How long open connections may take to end by themselves; `nil` for ever.
  ///   - whenReady: Called when all have started and the signals are heard. If it throws, the server is
  ///     stopped.
  /// - Throws: What has ended one of the servers of itself; ``LoopError`` if a signal cannot be had; what
  ///   is thrown into the caller, and then the server is stopped at once.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func serveForever(
    stoppingOn signals: [Int32] = [], timeout: Duration? = .seconds(10),
    whenReady: () throws -> Void = {}
  ) throws {
    var handlers: [SignalHandler] = []
    self.signals = 0
    defer { for handler in handlers { handler.cancel() } }
    for signal in Set(signals).sorted() {
      let handler = try hub.onSignal(signal) { [self] in
        self.signals += 1
        news.set()
      }
      handlers.append(handler)
    }
    try start()
    var failure: (any Error)?
    var ended = 0
    let serving = (0..<group.count).map { number in
      spawn { [self, key] in
        do {
          try group.run(on: number) { try key.server?.serveForever() }
        } catch {
          if failure == nil, !(error is GreenletExit) { failure = error }
        }
        ended += 1
        news.set()
      }
    }
    do {
      try whenReady()
      var stoppers: [Greenlet<Void>] = []
      while ended < serving.count {
        news.clear()
        let isToStop = self.signals > stoppers.count || failure != nil && stoppers.isEmpty
        if isToStop, stoppers.count < 2 {
          let patience = failure != nil ? .seconds(1) : stoppers.isEmpty ? timeout : .zero
          stoppers.append(spawn { [self] in try stop(timeout: patience) })
          continue
        }
        if stoppers.count == 2 {
          // A third signal does what it did before.
          for handler in handlers { handler.cancel() }
        }
        try news.wait()
      }
      try joinAll(stoppers)
      // Those who called `stop` wait for the threads; so does this.
      if ownsGroup { try group.stop(timeout: .zero) }
    } catch {
      spawn { [self] in try stop(timeout: .zero) }
      throw error
    }
    if let failure, !(failure is HubEnded) { throw failure }
  }

  /// Asks all hubs at the same time.
  private func onEach<R: Sendable>(
    _ body: @escaping @Sendable (StreamServer?) throws -> R
  ) throws -> [R] {
    let answers = (0..<group.count).map { number in
      spawn { [group, key] in
        Result { try group.run(on: number) { try body(key.server) } }
      }
    }
    do {
      return try answers.map { try $0.get().get() }
    } catch {
      for answer in answers { _ = try? answer.kill(waiting: false) }
      throw error
    }
  }
}

extension HubGroup {
  /// Serves connections on several hubs at one address, until one of `signals` comes; see
  /// ``StreamServerGroup``.
  ///
  /// ```swift
  /// try HubGroup.serve("127.0.0.1:7777", hubs: 4, stoppingOn: [SIGINT, SIGTERM]) { socket, peer in
  ///   while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
  /// }
  /// ```
  ///
  /// - Parameters:
  ///   - address: `127.0.0.1:80`, `[::1]:80`, `:80` for all interfaces; port 0 picks a free one for all.
  ///   - hubs: How many, 1 or more; `nil` for as many as there are cores.
  ///   - maxConnections: How many each hub may have at a time, 1 or more; `nil` for no limit.
  ///   - signals: Which, as in `SIGTERM`; a second one kills at once.
  ///   - timeout: How long open connections may take to end by themselves; `nil` for ever.
  ///   - whenReady: Called with the address when all have started.
  ///   - handler: Called with each connection, on the hub that took it; it may block.
  /// - Throws: As ``StreamServerGroup/serveForever(stoppingOn:timeout:whenReady:)``, and as its
  ///   initialiser.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func serve(
    _ address: String, hubs: Int? = nil, maxConnections: Int? = nil,
    stoppingOn signals: [Int32] = [], timeout: Duration? = .seconds(10),
    whenReady: (SocketAddress) throws -> Void = { _ in },
    _ handler: @escaping StreamServerGroup.Handler
  ) throws {
    let server = try StreamServerGroup(
      address, hubs: hubs, maxConnections: maxConnections, handler)
    try server.serveForever(stoppingOn: signals, timeout: timeout) { try whenReady(server.address) }
  }
}
