// Evergreen: tests of the server that gives each connection a greenlet.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(5))) struct StreamServerTests {
  static let echo: @Sendable (Socket, SocketAddress) throws -> Void = { socket, _ in
    while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
  }

  static func ask(_ server: StreamServer, _ text: String) throws {
    let client = try Socket.connect(to: server.address, timeout: .seconds(30))
    defer { client.close() }
    client.timeout = .seconds(30)
    try client.sendAll(text)
    try #expect(client.receive(exactly: text.utf8.count) == Array(text.utf8))
  }

  @Test func servesManyConnections() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      #expect(server.address.port != 0 && !server.isAccepting)
      try server.start()
      try server.start()  // nothing happens
      #expect(server.isAccepting)
      let clients = (0..<300).map { number in spawn { try Self.ask(server, "client \(number)") } }
      try joinAll(clients, raisingErrors: true)
      try server.stop()
      #expect(!server.isAccepting && server.connectionCount == 0)
    }
  }

  @Test func theHandlerKnowsItsPeer() async throws {
    try await runGreen {
      var peers: [SocketAddress] = []
      let server = try StreamServer("[::1]:0") { socket, peer in
        peers.append(peer)
        try #expect(socket.get(.noDelay))
      }
      try server.start()
      let client = try Socket.connect(to: server.address)
      try #expect(receiveAll(client).isEmpty)
      try #expect(peers == [client.localAddress])
      try server.stop()
    }
  }

  @Test func aFullServerLeavesClientsInTheBacklogAndResumes() async throws {
    try await runGreen {
      var open = 0
      var most = 0
      let release = Event()
      let server = try StreamServer("127.0.0.1:0", maxConnections: 2) { socket, _ in
        open += 1
        most = max(most, open)
        defer { open -= 1 }
        try release.wait()
        try socket.sendAll("done")
      }
      try server.start()
      let clients = try (0..<6).map { _ in try Socket.connect(to: server.address) }
      try wait { open == 2 }
      try idle()
      #expect(server.connectionCount == 2)
      release.set()
      for client in clients {
        client.timeout = .seconds(30)
        try #expect(receiveAll(client) == Array("done".utf8))
      }
      #expect(most == 2)
      try server.stop()
    }
  }

  @Test func aPeersPlaceIsFreedHoweverItsHandlerEnds() async throws {
    try await runGreen {
      struct Failure: Error {}
      var reported: [any Error] = []
      Hub.current.onError = { _, error in reported.append(error) }
      var number = 0
      let server = try StreamServer("127.0.0.1:0", maxConnections: 1) { socket, _ in
        number += 1
        if number == 1 { throw Failure() }
        if number == 2 { throw GreenletExit() }
        try Self.echo(socket, .loopbackIPv4(port: 0))
      }
      try server.start()
      for _ in 0..<2 {
        let client = try Socket.connect(to: server.address)
        client.timeout = .seconds(30)
        try #expect(receiveAll(client).isEmpty)  // closed, whatever happened
      }
      try Self.ask(server, "hello")
      #expect(reported.count == 1 && reported.first is Failure)
      try server.stop()
    }
  }

  @Test func aPeerThatResetsIsNoError() async throws {
    try await runGreen {
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      try server.start()
      for number in 0..<20 {
        let client = try Socket.connect(to: server.address)
        try client.sendAll(pattern(100_000))
        if number % 2 == 0 { try idle() }
        try client.set(.linger, .zero)
        client.close()
      }
      try wait { server.connectionCount == 0 }
      try Self.ask(server, "still there")
      try server.stop()
    }
  }

  // MARK: Stopping

  @Test func stopWaitsForOpenConnections() async throws {
    try await runGreen {
      let release = Event()
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        try release.wait()
        try socket.sendAll("the end")
      }
      try server.start()
      let client = try Socket.connect(to: server.address)
      try wait { server.connectionCount == 1 }
      let stopping = spawn { try server.stop(timeout: nil) }
      try idle()
      #expect(!stopping.isReady && !server.isAccepting)
      try waitUntilRefused(at: server.address)
      release.set()
      try stopping.get()
      try #expect(receiveAll(client) == Array("the end".utf8))
    }
  }

  @Test func stopKillsThoseThatTakeTooLong() async throws {
    try await runGreen {
      var cleaned = 0
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        defer { cleaned += 1 }
        _ = try socket.receive(upTo: 1)
      }
      try server.start()
      let clients = try (0..<5).map { _ in try Socket.connect(to: server.address) }
      try wait { server.connectionCount == 5 }
      let begin = ContinuousClock.now
      try server.stop(timeout: .milliseconds(30))
      #expect(ContinuousClock.now - begin >= .milliseconds(30))
      #expect(cleaned == 5 && server.connectionCount == 0)
      for client in clients { try #expect(client.receive(upTo: 1) == nil) }
    }
  }

  @Test func stopAcceptingLetsConnectionsGoOn() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      try server.start()
      let client = try Socket.connect(to: server.address)
      try client.sendAll([1])
      try #expect(client.receive(upTo: 10) == [1])
      server.stopAccepting()
      server.stopAccepting()
      try client.sendAll([2])
      try #expect(client.receive(upTo: 10) == [2])
      client.close()
      try server.stop()
    }
  }

  @Test func aStoppedServerCannotBeStartedAgain() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      try server.start()
      try server.stop()
      let error = socketError { try server.start() }
      #expect(error?.isClosed == true)
      #expect(error?.address == server.address)
      #expect(socketError { try server.serveForever() }?.isClosed == true)
      try server.stop()
    }
  }

  @Test func serveForeverEndsWithStop() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      let serving = spawn { try server.serveForever() }
      try Greenlet.yield()
      try Self.ask(server, "hello")
      #expect(!serving.isReady)
      try server.stop()
      try serving.get(timeout: .seconds(10))
    }
  }

  @Test func whoKillsServeForeverStopsTheServer() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      let serving = spawn { try server.serveForever() }
      try idle()
      let client = try Socket.connect(to: server.address)
      try client.sendAll([1])
      try #expect(client.receive(upTo: 10) == [1])
      try serving.kill()
      #expect(!server.isAccepting)
      client.timeout = .seconds(10)
      try #expect(client.receive(upTo: 10) == nil)
    }
  }

  /// As a command "shutdown" does.
  @Test func aHandlerMayStopItsServer() async throws {
    for others in [0, 3] {
      try await runGreen {
        let held = Held()
        let server = try StreamServer("127.0.0.1:0") { socket, _ in
          let command = try #require(try socket.receive(upTo: 1))
          if command == [1] { try #require(held.server).stop(timeout: .milliseconds(20)) }
          try socket.sendAll("not reached")
        }
        held.server = server
        defer { held.server = nil }
        let serving = spawn { try server.serveForever() }
        try idle()
        let clients = try (0..<others).map { _ in try Socket.connect(to: server.address) }
        try wait { server.connectionCount == others }
        let client = try Socket.connect(to: server.address)
        try client.sendAll([1])
        client.timeout = .seconds(30)
        try #expect(receiveAll(client).isEmpty)
        try serving.get(timeout: .seconds(30))
        try wait { server.connectionCount == 0 }
        withExtendedLifetime(clients) {}
      }
    }
  }

  private final class Held { var server: StreamServer? }

  @Test func aServerThatNobodyHoldsServesOn() async throws {
    try await runGreen {
      func startOne() throws -> SocketAddress {
        let server = try StreamServer("127.0.0.1:0", Self.echo)
        try server.start()
        return server.address
      }
      let client = try Socket.connect(to: startOne())
      try client.sendAll([1])
      try #expect(client.receive(upTo: 10, timeout: .seconds(10)) == [1])
    }
  }

  @Test func aServerThatWasNeverStartedClosesItsListener() async throws {
    try await runGreen {
      let address: SocketAddress
      do { address = try StreamServer("127.0.0.1:0", Self.echo).address }
      try waitUntilRefused(at: address)
    }
  }

  // MARK: Addresses

  @Test func anAddressInUseIsNamed() async throws {
    try await runGreen {
      let first = try StreamServer("127.0.0.1:0", Self.echo)
      let error = socketError { _ = try StreamServer(first.address, Self.echo) }
      #expect(error?.errno == .addressInUse)
      #expect(error?.description == "bind \(first.address): Address already in use")
      #expect(throws: SocketAddressError.self) { _ = try StreamServer("nonsense", Self.echo) }
    }
  }

  @Test func aStoppedServersPortIsFreeAtOnce() async throws {
    try await runGreen {
      let first = try StreamServer("127.0.0.1:0", Self.echo)
      try first.start()
      try Self.ask(first, "hello")
      try first.stop()
      let second = try StreamServer(first.address, Self.echo)
      try second.start()
      try Self.ask(second, "again")
      try second.stop()
    }
  }

  @Test func aUnixServerRemovesItsPath() async throws {
    try await runGreen {
      let path = temporaryPath()
      let server = try StreamServer("unix:\(path)", Self.echo)
      try server.start()
      #expect(exists(path))
      try Self.ask(server, "hello")
      #expect(
        socketError { _ = try StreamServer("unix:\(path)", Self.echo) }?.errno == .addressInUse)
      #expect(exists(path))
      try server.stop()
      #expect(!exists(path))
    }
  }

  @Test func serversMayShareAPort() async throws {
    try await runGreen {
      var served = [0, 0]
      let first = try StreamServer("127.0.0.1:0", reusePort: true) { _, _ in served[0] += 1 }
      let second = try StreamServer(first.address, reusePort: true) { _, _ in served[1] += 1 }
      try first.start()
      try second.start()
      for _ in 0..<200 {
        let client = try Socket.connect(to: first.address)
        try #expect(receiveAll(client).isEmpty)
      }
      #expect(served[0] + served[1] == 200)
      #expect(served[0] > 0 && served[1] > 0)
      try first.stop()
      let before = served[1]
      while served[1] < before + 20 {
        // A process that is being spawned may hold the first listener open for a moment.
        do { _ = try receiveAll(Socket.connect(to: second.address)) } catch let error
          as SocketError
          where error.isPeerGone
        {}
      }
      #expect(served[0] + before == 200)
      try second.stop()
    }
  }

  @Test func serversOfSeveralThreadsShareAPort() async throws {
    let finished = Atomic(0)
    try await runGreen {
      let placeholder = try Socket(.ipv4)
      try placeholder.set(.reusePort, true)
      try placeholder.bind(to: .loopbackIPv4(port: 0))
      let address = try placeholder.localAddress
      let threads = ThreadPool(maxThreads: 2)
      defer { threads.shutDown() }
      let hosts = (0..<2).map { _ in
        spawn {
          try threads.run {
            try Hub.withHub { _ in
              let server = try StreamServer(address, reusePort: true, Self.echo)
              try server.start()
              for number in 0..<50 { try Self.ask(server, "number \(number)") }
              // Connections of the other thread come here, too.
              finished.add(1, ordering: .relaxed)
              try wait { finished.load(ordering: .relaxed) == 2 }
              try server.stop(timeout: .seconds(30))
            }
          }
        }
      }
      try joinAll(hosts, raisingErrors: true)
    }
  }

  @Test func aFloodOfConnectionsStarvesNobody() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0") { _, _ in }
      server.acceptBudget = 10
      try server.start()
      var turns = 0
      let other = spawn {
        while true {
          turns += 1
          try Greenlet.yield()
        }
      }
      let clients = try (0..<500).map { _ in try Socket.connect(to: server.address) }
      for client in clients { try #expect(receiveAll(client).isEmpty) }
      #expect(turns > 20)
      try other.kill()
      try server.stop()
    }
  }

  /// What the example's user does: stopping lets the relay under way finish.
  @Test func aRelayGoesOnAfterItsListenerHasClosed() async throws {
    try await runGreen {
      let target = try StreamServer("127.0.0.1:0", Self.echo)
      try target.start()
      let relay = try StreamServer("127.0.0.1:0") { near, _ in
        let far = try Socket.connect(to: target.address)
        defer { far.close() }
        func pump(from source: Socket, to sink: Socket) throws {
          while let chunk = try source.receive(upTo: 4096) { try sink.sendAll(chunk) }
          try sink.shutdown(.write)
        }
        let back = spawn { try pump(from: far, to: near) }
        try pump(from: near, to: far)
        try back.get()
      }
      try relay.start()
      let client = try Socket.connect(to: relay.address)
      try client.sendAll("one")
      try #expect(client.receive(exactly: 3) == Array("one".utf8))
      let stopping = spawn { try relay.stop(timeout: nil) }
      try idle()
      try client.sendAll("two")
      try client.shutdown(.write)
      try #expect(receiveAll(client) == Array("two".utf8))
      try stopping.get(timeout: .seconds(10))
      try target.stop()
    }
  }
}
