// Evergreen: a network in memory.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenBase
import EvergreenHub
public import EvergreenNet
import EvergreenSync

/// Hosts that connect to each other in memory, over a network as slow and as bad as the test wants.
///
/// ```swift
/// try await forSeeds(200) { simulation in
///   let network = simulation.network
///   network.delay = .milliseconds(1) ... .milliseconds(50)
///   let (server, client) = (network.host("server"), network.host("client"))
///   let listener = try server.listen(port: 80)
///   spawn { while true { let peer = try listener.accept(); spawn { try serve(peer) } } }
///   let connection = try client.connect(to: server, port: 80)
///   network.cut(client, server)
///   #expect(throws: SocketError.self) { try ask(connection, timeout: .seconds(5)) }
///   network.heal(client, server)
/// }
/// ```
///
/// The seed decides how long each piece is under way, how many bytes a send or a receive takes, and
/// when connections are lost. Pieces of one connection arrive in their order, as TCP sees to it; see
/// ``MemoryStream`` for what else is like it and what is not. Best used in virtual time.
///
/// It belongs to the hub on which it was made.
public final class SimulatedNetwork {
  let conditions: NetworkConditions
  private let hub = Hub.current
  private var hosts: [String: Host] = [:]
  private var cuts: Set<Pair> = []
  private let healed = Healed()
  private var connections: [Connection] = []

  private final class Healed: WaitListOwner { var waiters = WaitList() }

  private struct Pair: Hashable {
    let low: Int
    let high: Int
    init(_ one: Host, _ other: Host) {
      (low, high) = (min(one.number, other.number), max(one.number, other.number))
    }
  }

  private struct Connection {
    let hosts: Pair
    weak var stream: MemoryStream?
    weak var peer: MemoryStream?
    var end: MemoryStream? { stream ?? peer }
  }

  /// - Parameter seed: What decides all that happens by chance.
  public init(seed: UInt64) {
    conditions = NetworkConditions(random: SeededRandom(seed: seed))
    conditions.isNetwork = true
  }

  // MARK: Conditions

  /// How long a piece is under way from now on, one way; the seed decides for each.
  public var delay: ClosedRange<Duration> {
    get { conditions.delay }
    set {
      require(newValue.lowerBound >= .zero, "a network cannot be faster than time")
      conditions.delay = newValue
    }
  }

  /// Whether sends and receives may take fewer bytes than they could, and give others a turn.
  public var isPartial: Bool {
    get { conditions.isPartial }
    set { conditions.isPartial = newValue }
  }

  /// How likely each send loses its connection, which then is reset at both ends; 0 at first.
  public var lossProbability: Double {
    get { conditions.lossProbability }
    set { conditions.lossProbability = newValue }
  }

  /// How many bytes may be on the way to each end of connections that are made from now on.
  public var capacity = 64 * 1024

  // MARK: Hosts

  /// The host of this name, which is there from its first mention.
  public func host(_ name: String) -> Host {
    if let host = hosts[name] { return host }
    let host = Host(name, hosts.count + 1, self)
    hosts[name] = host
    return host
  }

  /// Cuts two hosts off from each other. Their connections stay, but nothing arrives, nor is
  /// anybody told; who connects waits.
  public func cut(_ one: Host, _ other: Host) { setCut(one, other, true) }

  /// Ends a ``cut(_:_:)``: what was sent meanwhile arrives after the usual delay.
  public func heal(_ one: Host, _ other: Host) { setCut(one, other, false) }

  private func setCut(_ one: Host, _ other: Host, _ isCut: Bool) {
    hub.checkIsCurrent()
    let pair = Pair(one, other)
    if isCut { cuts.insert(pair) } else { cuts.remove(pair) }
    for pipe in pipes(between: pair) { pipe.isHeld = isCut }
    if !isCut { healed.waiters.signalAll() }
  }

  /// Loses all connections between two hosts; see ``MemoryStream/reset()``.
  public func reset(_ one: Host, _ other: Host) {
    hub.checkIsCurrent()
    for pipe in pipes(between: Pair(one, other)) { pipe.lose() }
  }

  private func pipes(between pair: Pair) -> [MemoryPipe] {
    connections.removeAll { $0.end == nil }
    return connections.filter { $0.hosts == pair }.flatMap { $0.end?.pipes ?? [] }
  }

  // MARK: Connecting

  fileprivate func connect(
    _ client: Host, _ server: Host, _ port: UInt16, _ timeout: Duration?
  ) throws -> MemoryStream {
    hub.checkIsCurrent()
    let deadline = Deadline(after: timeout, on: hub)
    let address = server.address(port)
    let pair = Pair(client, server)
    try pass(pair, address, deadline)
    guard let listener = server.listeners[port]?.takeUnretainedValue() else {
      try pass(pair, address, deadline)
      throw SocketError(.connect, .connectionRefused, address)
    }
    let (mine, other) = MemoryStream.pair(
      capacity, conditions, client.address(client.nextPort()), address)
    if cuts.contains(pair) { for pipe in mine.pipes { pipe.isHeld = true } }
    connections.removeAll { $0.end == nil }
    connections.append(Connection(hosts: pair, stream: mine, peer: other))
    do {
      if try !listener.queue.put(other, timeout: deadline.remaining(on: hub)) {
        throw SocketError(.connect, .timedOut, address)
      }
    } catch is QueueShutDown {
      throw SocketError(.connect, .connectionRefused, address)
    }
    try pass(pair, address, deadline)
    return mine
  }

  /// Waits as long as something takes from one host to the other.
  private func pass(_ pair: Pair, _ address: SocketAddress, _ deadline: Deadline) throws {
    let late = SocketError(.connect, .timedOut, address)
    let delay = conditions.nextDelay()
    if delay > .zero {
      if let rest = deadline.remaining(on: hub), rest < delay {
        try sleep(for: rest)
        throw late
      }
      try sleep(for: delay)
    }
    while cuts.contains(pair) {
      let isHealed = try hub.wait(
        WaitReason("a simulated network to be healed"), until: deadline, in: healed)
      if !isHealed { throw late }
    }
  }

  // MARK: -

  /// A machine in the network.
  public final class Host {
    /// By which ``SimulatedNetwork/host(_:)`` finds it.
    public let name: String
    let number: Int
    // Weak: a network that nobody holds is gone.
    private weak var network: SimulatedNetwork?
    /// Not kept: one that goes takes itself out.
    fileprivate var listeners: [UInt16: Unmanaged<Listener>] = [:]
    private var lastPort: UInt16 = 49_151

    fileprivate init(_ name: String, _ number: Int, _ network: SimulatedNetwork) {
      self.name = name
      self.number = number
      self.network = network
    }

    func address(_ port: UInt16) -> SocketAddress {
      // 10.0.0.0/8 has room for more hosts than any test.
      let text = "10.\(number >> 16 & 0xff).\(number >> 8 & 0xff).\(number & 0xff)"
      guard let address = try? SocketAddress.ipv4(text, port: port) else { fatal("\(text)?") }
      return address
    }

    fileprivate func nextPort() -> UInt16 {
      lastPort = lastPort == .max ? 49_152 : lastPort + 1
      return lastPort
    }

    private var living: SimulatedNetwork {
      guard let network else { fatal("the network of host \(name) is gone; keep it") }
      return network
    }

    /// Takes connections to a port.
    ///
    /// - Parameters:
    ///   - port: 0 picks a free one.
    ///   - backlog: How many connections may wait to be taken; who comes then waits.
    /// - Returns: What accepts them.
    /// - Throws: ``SocketError`` if somebody listens there already.
    public func listen(port: UInt16 = 0, backlog: Int = 128) throws -> Listener {
      living.hub.checkIsCurrent()
      var chosen = port
      if port == 0 {
        repeat { chosen = nextPort() } while listeners[chosen] != nil
      }
      if listeners[chosen] != nil { throw SocketError(.bind, .addressInUse, address(chosen)) }
      let listener = Listener(self, chosen, backlog)
      listeners[chosen] = .passUnretained(listener)
      return listener
    }

    /// Connects to a host.
    ///
    /// - Parameters:
    ///   - host: Where.
    ///   - port: Where somebody ``listen(port:backlog:)``s.
    ///   - timeout: The longest wait; `nil` waits for ever.
    /// - Returns: The connection.
    /// - Throws: ``SocketError``; what is thrown into the caller while it waits.
    ///
    /// > Switch point: Yes.
    public func connect(
      to host: Host, port: UInt16, timeout: Duration? = nil
    ) throws -> MemoryStream {
      try living.connect(self, host, port, timeout)
    }
  }

  /// Where connections are taken, until it is closed or nobody holds it.
  public final class Listener {
    private let host: Host
    fileprivate let queue: Queue<MemoryStream>
    /// Where it listens.
    public let address: SocketAddress
    public let port: UInt16

    fileprivate init(_ host: Host, _ port: UInt16, _ backlog: Int) {
      self.host = host
      self.port = port
      address = host.address(port)
      queue = Queue(capacity: backlog)
    }

    /// Waits for a connection and takes it.
    ///
    /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
    /// - Returns: This end of it.
    /// - Throws: ``SocketError``; what is thrown into the caller while it waits.
    ///
    /// > Switch point: Yes, unless a connection is there.
    public func accept(timeout: Duration? = nil) throws -> MemoryStream {
      do {
        guard let timeout else { return try queue.get() }
        if let stream = try queue.get(timeout: timeout) { return stream }
      } catch is QueueShutDown {
        throw SocketError.closed(.accept, address)
      }
      throw SocketError(.accept, .timedOut, address)
    }

    /// Takes no more connections: those that nobody has taken are reset, and who waits in
    /// ``accept(timeout:)`` is told.
    ///
    /// > Switch point: No.
    public func close() {
      leaveHost()
      queue.shutDown()
      while let stream = queue.tryGet() { stream.reset() }
    }

    private func leaveHost() {
      let me = Unmanaged.passUnretained(self).toOpaque()
      if host.listeners[port]?.toOpaque() == me { host.listeners[port] = nil }
    }

    deinit {
      leaveHost()
      while !queue.isEmpty, let stream = queue.tryGet() { stream.reset() }
    }
  }
}
