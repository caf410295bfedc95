// Evergreen: tests of the server for datagrams.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite(.timeLimit(.minutes(5))) struct DatagramServerTests {
  static let echo: @Sendable (DatagramServer, [UInt8], SocketAddress) throws -> Void = {
    server, bytes, sender in
    try server.send(bytes, to: sender)
  }

  static func client() throws -> Socket {
    let socket = try Socket(.ipv4, .datagram)
    try socket.bind(to: .loopbackIPv4(port: 0))
    socket.timeout = .seconds(20)
    return socket
  }

  @Test func answersEachDatagram() async throws {
    try await runGreen {
      let server = try DatagramServer("127.0.0.1:0", Self.echo)
      try server.start()
      try server.start()
      let clients = try (0..<20).map { number in
        let socket = try Self.client()
        return spawn {
          for round in 0..<20 {
            try socket.send([UInt8(number), UInt8(round)], to: server.address)
            let (bytes, sender) = try socket.receiveFrom()
            #expect(bytes == [UInt8(number), UInt8(round)])
            #expect(sender == server.address)
          }
        }
      }
      try joinAll(clients, raisingErrors: true)
      try server.stop()
      #expect(server.socket.isClosed)
    }
  }

  @Test func servesUnixSocketsToo() async throws {
    try await runGreen {
      let path = temporaryPath()
      defer { removeFile(path) }
      let server = try DatagramServer("unix:\(path)", Self.echo)
      try server.start()
      let client = try Socket(.unix, .datagram)
      try client.bind(to: .unnamedUnix)
      try client.send([5], to: server.address)
      try #expect(client.receiveFrom(timeout: .seconds(10)).bytes == [5])
      try server.stop()
    }
  }

  @Test func aFailingHandlerDisturbsNobody() async throws {
    struct Failure: Error {}
    try await runGreen {
      var reported = 0
      Hub.current.onError = { _, error in
        #expect(error is Failure)
        reported += 1
      }
      let server = try DatagramServer("127.0.0.1:0") { server, bytes, sender in
        if bytes == [0] { throw Failure() }
        try server.send(bytes, to: sender)
      }
      try server.start()
      let client = try Self.client()
      try client.send([0], to: server.address)
      try client.send([1], to: server.address)
      try #expect(client.receiveFrom().bytes == [1])
      #expect(reported == 1)
      try server.stop()
    }
  }

  @Test func aClientThatHasGoneDisturbsNobody() async throws {
    try await runGreen {
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let server = try DatagramServer("127.0.0.1:0", Self.echo)
      try server.start()
      for _ in 0..<10 {
        let gone = try Self.client()
        try gone.send([1], to: server.address)
        gone.close()
        try idle()
      }
      let client = try Self.client()
      try client.send([2], to: server.address)
      try #expect(client.receiveFrom().bytes == [2])
      try server.stop()
    }
  }

  @Test func aClientWithoutAnAddressDisturbsNobody() async throws {
    try await runGreen {
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let path = temporaryPath()
      let server = try DatagramServer("unix:\(path)", Self.echo)
      try server.start()
      try Socket(.unix, .datagram).send([1], to: server.address)  // never had one
      let clientPath = temporaryPath()
      let gone = try Socket(.unix, .datagram)
      try gone.bind(to: .unix(path: clientPath))
      try gone.send([1], to: server.address)
      removeFile(clientPath)
      try idle()
      let client = try Socket(.unix, .datagram)
      try client.bind(to: .unnamedUnix)
      try client.send([2], to: server.address)
      try #expect(client.receiveFrom(timeout: .seconds(20)).bytes == [2])
      try server.stop()
    }
  }

  /// What a server sends to somebody else is another matter.
  @Test func aMissingThirdPartyIsReported() async throws {
    try await runGreen {
      var reported: [any Error] = []
      Hub.current.onError = { _, error in reported.append(error) }
      let nowhere = try SocketAddress.unix(path: temporaryPath())
      let server = try DatagramServer("unix:\(temporaryPath())") { server, bytes, _ in
        try server.send(bytes, to: nowhere)
      }
      try server.start()
      try Socket(.unix, .datagram).send([1], to: server.address)
      try wait { !reported.isEmpty }
      #expect((reported.first as? SocketError)?.errno == .noSuchFileOrDirectory)
      try server.stop()
    }
  }

  /// A client of a Unix server with a full queue, and the server's handlers that wait for it.
  static func stuckClient(of server: DatagramServer) throws -> Socket {
    let stuck = try Socket(.unix, .datagram)
    try stuck.bind(to: .unnamedUnix)
    while server.life.pool.count < 3 {
      try stuck.send([1], to: server.address)
      try idle()
    }
    return stuck
  }

  @Test func aClientThatDoesNotReadDisturbsNobody() async throws {
    try await runGreen {
      let server = try DatagramServer("unix:\(temporaryPath())", Self.echo)
      try server.start()
      let stuck = try Self.stuckClient(of: server)
      let client = try Socket(.unix, .datagram)
      try client.bind(to: .unnamedUnix)
      for number in 0..<20 as Range<UInt8> {
        try client.send([2, number], to: server.address)
        try #expect(client.receiveFrom(timeout: .seconds(20)).bytes == [2, number])
      }
      #expect(server.life.pool.count == 3)
      // When it reads again, it gets what it has asked for.
      while server.life.pool.count > 0 { _ = try stuck.receiveFrom(timeout: .seconds(20)) }
      try server.stop()
    }
  }

  @Test func sendingToOneWhoDoesNotReadTimesOut() async throws {
    try await runGreenInVirtualTime { clock in
      var errors: [SocketError] = []
      Hub.current.onError = { _, error in
        if let error = error as? SocketError { errors.append(error) }
      }
      let server = try DatagramServer("unix:\(temporaryPath())", Self.echo)
      try server.start()
      let begin = clock.elapsed
      let stuck = try Self.stuckClient(of: server)
      let address = try stuck.localAddress
      for timeout in [Duration.zero, .milliseconds(500)] {
        let begin = clock.elapsed
        let error = socketError { try server.send([1], to: address, timeout: timeout) }
        #expect(error?.isTimeout == true && error?.address == address)
        #expect(isAbout(clock.elapsed - begin, timeout))
      }
      let victim = spawn { try server.send([1], to: address, timeout: nil) }
      try sleep(for: .seconds(60))
      #expect(!victim.isReady)
      try victim.kill()
      // Handlers give up sooner.
      #expect(errors.count == 3 && errors.allSatisfy(\.isTimeout))
      #expect(server.life.pool.isEmpty && clock.elapsed - begin >= .seconds(10))
      try server.stop()
    }
  }

  @Test func noMoreHandlersThanAllowed() async throws {
    try await runGreen {
      var running = 0
      var most = 0
      let release = Event()
      let server = try DatagramServer("127.0.0.1:0", maxHandlers: 2) { server, bytes, sender in
        running += 1
        most = max(most, running)
        defer { running -= 1 }
        try release.wait()
        try server.send(bytes, to: sender)
      }
      try server.start()
      let client = try Self.client()
      for number in 0..<6 { try client.send([UInt8(number)], to: server.address) }
      try wait { running == 2 }
      try idle()
      release.set()
      var answers: Set<UInt8> = []
      while answers.count < 6 { answers.formUnion(try client.receiveFrom().bytes) }
      #expect(most == 2)
      try server.stop()
    }
  }

  @Test func stopWaitsThenKills() async throws {
    try await runGreen {
      var ended = 0
      let server = try DatagramServer("127.0.0.1:0") { _, bytes, _ in
        defer { ended += 1 }
        if bytes == [1] { try sleep(for: .seconds(60)) }
      }
      try server.start()
      let client = try Self.client()
      try client.send([1], to: server.address)
      try client.send([2], to: server.address)
      try wait { ended == 1 }
      let serving = spawn { try server.serveForever() }
      try idle()
      let late = spawn(after: .milliseconds(5)) { try server.start() }
      try server.stop(timeout: .milliseconds(20))
      #expect(ended == 2)
      #expect(socketError { try late.get() }?.isClosed == true)
      try serving.get(timeout: .seconds(10))
      let error = socketError { try server.start() }
      #expect(error?.isClosed == true)
    }
  }

  @Test func handlersMayStopTheServer() async throws {
    try await runGreen {
      let server = try DatagramServer("127.0.0.1:0") { server, _, _ in
        try server.stop(timeout: .milliseconds(10))
      }
      let serving = spawn { try server.serveForever() }
      try idle()
      try Self.client().send([1], to: server.address)
      try serving.get(timeout: .seconds(20))
      #expect(server.socket.isClosed)
    }
  }

  /// Not even if it waits for ever, and it can still answer.
  @Test func aHandlerThatStopsItsServerGoesOn() async throws {
    try await runGreen {
      let server = try DatagramServer("127.0.0.1:0") { server, _, sender in
        try server.stop(timeout: nil)
        try server.stop(timeout: .zero)
        try server.send([9], to: sender)
      }
      let serving = spawn { try server.serveForever() }
      try idle()
      let client = try Self.client()
      try client.send([1], to: server.address)
      try #expect(client.receiveFrom().bytes == [9])
      try serving.get(timeout: .seconds(20))
      #expect(server.socket.isClosed)
      // Without anybody who serves the socket is closed all the same.
      let other = try DatagramServer("127.0.0.1:0") { server, _, _ in try server.stop(timeout: nil)
      }
      try other.start()
      try client.send([1], to: other.address)
      try wait { other.socket.isClosed }
    }
  }

  @Test func whoKillsServeForeverStopsTheServer() async throws {
    try await runGreen {
      let server = try DatagramServer("127.0.0.1:0", Self.echo)
      let serving = spawn { try server.serveForever() }
      try idle()
      try serving.kill()
      #expect(server.socket.isClosed)
    }
  }

  @Test func aSocketThatIsClosedEndsTheServer() async throws {
    try await runGreen {
      var reported: [String] = []
      Hub.current.onError = { greenlet, _ in reported.append(greenlet.name) }
      let server = try DatagramServer("127.0.0.1:0", Self.echo)
      let serving = spawn { try server.serveForever() }
      serving.name = "serving"
      try idle()
      server.socket.close()
      let error = socketError { try serving.get(timeout: .seconds(20)) }
      #expect(error?.isClosed == true)
      #expect(reported == ["serving"])  // and not the receiver, too
      #expect(socketError { try server.start() } == error)
    }
  }

  /// A handler waits to receive where the server itself does.
  @Test func aHandlerThatReceivesInItsPlaceEndsTheServer() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let finish = Event()
      let server = try DatagramServer("127.0.0.1:0", maxHandlers: 2) { server, bytes, _ in
        if bytes == [1] { try finish.wait() } else { _ = try server.socket.receiveFrom() }
      }
      let serving = spawn { try server.serveForever() }
      try idle()
      let client = try Self.client()
      for kind in [1, 2] as [UInt8] { try client.send([kind], to: server.address) }
      try wait { server.life.pool.isFull }
      try idle()
      finish.set()
      #expect(throws: ConcurrentUse.self) { try serving.get(timeout: .seconds(30)) }
      #expect(server.socket.isClosed)
      #expect(throws: ConcurrentUse.self) { try server.start() }
    }
  }

  @Test func aSecondServerOfOneSocketEndsAndTheFirstGoesOn() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let socket = try Socket(.ipv4, .datagram)
      try socket.bind(to: .loopbackIPv4(port: 0))
      let first = try DatagramServer(socket: socket, Self.echo)
      try first.start()
      try idle()
      let second = try DatagramServer(socket: socket, Self.echo)
      let serving = spawn { try second.serveForever() }
      #expect(throws: ConcurrentUse.self) { try serving.get(timeout: .seconds(30)) }
      try second.stop()
      let client = try Self.client()
      try client.send([1], to: first.address)
      try #expect(client.receiveFrom().bytes == [1])
      try first.stop()
      #expect(socket.isClosed)
    }
  }

  @Test func theSocketsOwnTimeoutDoesNotEndTheServer() async throws {
    try await runGreenInVirtualTime { _ in
      let path = temporaryPath()
      let server = try DatagramServer("unix:\(path)", Self.echo)
      server.socket.timeout = .seconds(1)
      try server.start()
      try sleep(for: .seconds(60))
      let client = try Socket(.unix, .datagram)
      try client.bind(to: .unnamedUnix)
      try client.send([5], to: server.address)
      try #expect(client.receiveFrom(timeout: .seconds(10)).bytes == [5])
      try server.stop()
      #expect(!exists(path))
    }
  }

  @Test(arguments: possible(["127.0.0.1", "::1", "localhost"]))
  func bindsToAHost(host: String) async throws {
    try await runGreen {
      let first = try SocketAddress.resolve(host, port: 0)[0]
      let servers = [
        try DatagramServer(host: host, port: 0, Self.echo), try DatagramServer(first, Self.echo),
      ]
      for server in servers {
        #expect(server.address.with(port: 0) == first && server.address.port != 0)
        try server.start()
        let client = try Socket(first.family, .datagram)
        try client.send([1], to: server.address)
        try #expect(client.receiveFrom(timeout: .seconds(20)).bytes == [1])
        try server.stop()
      }
    }
  }

  @Test func servesASocketThatIsBound() async throws {
    try await runGreen {
      let path = temporaryPath()
      defer { removeFile(path) }
      let socket = try Socket(.unix, .datagram)
      try socket.bind(to: .unix(path: path))
      let server = try DatagramServer(socket: socket, maxHandlers: nil, Self.echo)
      try server.start()
      let client = try Socket(.unix, .datagram)
      try client.bind(to: .unnamedUnix)
      try client.send([5], to: server.address)
      try #expect(client.receiveFrom(timeout: .seconds(10)).bytes == [5])
      try server.stop()
      #expect(socket.isClosed && exists(path))
    }
  }

  @Test func aSignalStopsGracefully() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let finish = Event()
        var begun = 0
        let server = try DatagramServer("127.0.0.1:0") { server, bytes, sender in
          begun += 1
          try finish.wait()
          try server.send(bytes, to: sender)
        }
        let serving = spawn { try server.serveForever(stoppingOn: [SIGTERM], timeout: nil) }
        try idle()
        let client = try Self.client()
        try client.send([1], to: server.address)
        try wait { begun == 1 }
        kill(getpid(), SIGTERM)
        // The signal comes some time later. Whether it has come shows in what is taken no more.
        var taken = 1
        try wait {
          try client.send([2], to: server.address)
          try sleep(for: .milliseconds(5))
          defer { taken = begun }
          return begun == taken
        }
        try idle()
        try #require(!serving.isReady && begun == taken)
        finish.set()
        try serving.get(timeout: .seconds(30))
        try #require(client.receiveFrom().bytes == [1])
      }
    }
  }

  @Test func aServerThatNobodyHoldsServesOn() async throws {
    try await runGreen {
      func startOne() throws -> SocketAddress {
        let server = try DatagramServer("127.0.0.1:0", Self.echo)
        try server.start()
        return server.address
      }
      let client = try Self.client()
      try client.send([1], to: startOne())
      try #expect(client.receiveFrom().bytes == [1])
    }
  }

  @Test func anAddressInUseIsNamed() async throws {
    try await runGreen {
      let first = try DatagramServer("127.0.0.1:0", Self.echo)
      let error = socketError { _ = try DatagramServer("\(first.address)", Self.echo) }
      #expect(error?.description == "bind \(first.address): Address already in use")
    }
  }
}
