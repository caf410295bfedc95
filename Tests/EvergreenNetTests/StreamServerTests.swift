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

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

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
      let server = try StreamServer(hasIPv6 ? "[::1]:0" : "127.0.0.1:0") { socket, peer in
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

  /// It may go in the midst of a message, too.
  @Test func aPeerThatHangsUpIsNoError() async throws {
    try await runGreen {
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        if try socket.receive(exactly: 1) == [1] {
          while true { try socket.sendAll(socket.receive(exactly: 4)) }
        }
        let stream = BufferedStream(socket)
        while true { try socket.sendAll(stream.read(exactly: 4)) }
      }
      try server.start()
      for kind in [1, 2] as [UInt8] {
        for message in [[], [7]] as [[UInt8]] {
          let client = try Socket.connect(to: server.address)
          try client.sendAll([kind, 1, 2, 3, 4] + message)
          try #expect(client.receive(exactly: 4, timeout: .seconds(30)) == [1, 2, 3, 4])
          client.close()
        }
      }
      try wait { server.connectionCount == 0 }
      try server.stop()
    }
  }

  @Test func shuttingDownAfterAResetIsNoError() async throws {
    try await runGreen {
      var errors: [Errno?] = []
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        _ = try? socket.receive(upTo: 1)
        do { try socket.shutdown(.write) } catch {
          errors.append((error as? SocketError)?.errno)
          throw error
        }
      }
      try server.start()
      let client = try Socket.connect(to: server.address)
      try wait { server.connectionCount == 1 }
      try client.set(.linger, .zero)
      client.close()
      try wait { server.connectionCount == 0 }
      #expect(errors == [.socketNotConnected])
      try server.stop()
    }
  }

  /// That the client goes away is no error, but the end of somebody else's stream is, and a broken
  /// connection to somebody else.
  @Test(arguments: [false, true])
  func anotherPeersEndIsReported(isReset: Bool) async throws {
    try await runGreen {
      var reported: [any Error] = []
      Hub.current.onError = { _, error in reported.append(error) }
      let upstream = try Socket.listen(on: .loopbackIPv4(port: 0))
      let server = try StreamServer("127.0.0.1:0") { _, _ in
        _ = try Socket.connect(to: upstream.localAddress).receive(exactly: 4)
      }
      try server.start()
      let client = try Socket.connect(to: server.address)
      let (far, _) = try upstream.accept(timeout: .seconds(30))
      if isReset { try far.set(.linger, .zero) }
      far.close()
      try #expect(client.receive(upTo: 1, timeout: .seconds(30)) == nil)
      #expect(reported.count == 1)
      if isReset {
        #expect((reported.first as? SocketError)?.errno == .connectionReset)
      } else {
        let error = try #require(reported.first as? EndOfStream)
        #expect(error.received == 0)
        try #expect(error.peer == upstream.localAddress)
      }
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

  @Test func whoKillsOneOfTwoThatServeStopsTheServerForBoth() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      let first = spawn { try server.serveForever() }
      let second = spawn { try server.serveForever() }
      try idle()
      #expect(!first.isReady && !second.isReady)
      try first.kill()
      try second.get(timeout: .seconds(30))
      #expect(!server.isAccepting)
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
          try socket.sendAll("stopped")
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
        try #expect(receiveAll(client) == Array("stopped".utf8))
        try serving.get(timeout: .seconds(30))
        #expect(server.connectionCount == 0)
        for client in clients { try #expect(receiveAll(client).isEmpty) }
      }
    }
  }

  private final class Held { var server: StreamServer? }

  /// Not even if it waits for ever: the calling handler is not waited for.
  @Test(arguments: [1, 2, 3])
  func handlersThatStopTheirServerDoNotWaitForThemselves(stoppers: Int) async throws {
    try await runGreen {
      let held = Held()
      let finish = Event()
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        if try socket.receive(upTo: 1) == [1] {
          try #require(held.server).stop(timeout: nil)
        } else {
          try finish.wait()
        }
        try socket.sendAll("bye")
      }
      held.server = server
      defer { held.server = nil }
      let serving = spawn { try server.serveForever() }
      try idle()
      let other = try Socket.connect(to: server.address)
      let clients = try (0..<stoppers).map { _ in try Socket.connect(to: server.address) }
      try wait { server.connectionCount == stoppers + 1 }
      try other.sendAll([2])
      for client in clients { try client.sendAll([1]) }
      try wait { !server.isAccepting }
      try idle()
      #expect(!serving.isReady && server.connectionCount == stoppers + 1)
      finish.set()
      for client in clients + [other] {
        client.timeout = .seconds(30)
        try #expect(receiveAll(client) == Array("bye".utf8))
      }
      try serving.get(timeout: .seconds(30))
      #expect(server.connectionCount == 0)
    }
  }

  @Test func serveForeverWaitsForTheHandlerThatStopsAsLongAsItSaid() async throws {
    try await runGreenInVirtualTime { clock in
      for takesLong in [false, true] {
        let held = Held()
        var wasKilled = false
        let server = try StreamServer("unix:\(temporaryPath())") { socket, _ in
          try #require(held.server).stop(timeout: .seconds(20))
          do { try sleep(for: .seconds(takesLong ? 60 : 10)) } catch {
            wasKilled = true
            throw error
          }
        }
        held.server = server
        defer { held.server = nil }
        let client = try Socket.connect(to: server.address)
        let begin = clock.elapsed
        try server.serveForever()
        let time = clock.elapsed - begin
        #expect(wasKilled == takesLong)
        #expect(isAbout(time, .seconds(takesLong ? 20 : 10)))
        #expect(server.connectionCount == 0)
        withExtendedLifetime(client) {}
      }
    }
  }

  @Test func severalMayStopTheServerEachInItsTime() async throws {
    try await runGreenInVirtualTime { clock in
      let server = try StreamServer("unix:\(temporaryPath())") { _, _ in
        try sleep(for: .seconds(3600))
      }
      try server.start()
      let client = try Socket.connect(to: server.address)
      try wait { server.connectionCount == 1 }
      let patient = spawn { try server.stop(timeout: nil) }
      let hasty = spawn { try server.stop(timeout: .seconds(5)) }
      let lateOne = spawn(after: .seconds(2)) { try server.stop(timeout: .seconds(60)) }
      let serving = spawn { try? server.serveForever() }
      let begin = clock.elapsed
      for stopper in [patient, hasty, lateOne] { try stopper.get() }
      #expect(isAbout(clock.elapsed - begin, .seconds(5)))
      #expect(server.connectionCount == 0)
      try #expect(serving.join(timeout: .seconds(1)))
      try server.stop(timeout: nil)
      withExtendedLifetime(client) {}
    }
  }

  /// Who is to stop it and is killed meanwhile has begun the stop all the same.
  @Test func aStopThatIsInterruptedIsFinishedByServeForever() async throws {
    try await runGreenInVirtualTime { clock in
      let server = try StreamServer("unix:\(temporaryPath())") { _, _ in
        try sleep(for: .seconds(3600))
      }
      let serving = spawn { try server.serveForever() }
      try idle()
      let client = try Socket.connect(to: server.address)
      try wait { server.connectionCount == 1 }
      let begin = clock.elapsed
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) { try server.stop(timeout: .seconds(10)) }
      }
      try serving.get()
      #expect(isAbout(clock.elapsed - begin, .seconds(11)))
      #expect(server.connectionCount == 0)
      withExtendedLifetime(client) {}
    }
  }

  @Test func aServerIsStoppedBeforeItHasBegun() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      try server.start()
      try server.stop(timeout: nil)  // before the acceptor has run
      try waitUntilRefused(at: server.address)
      let never = try StreamServer("127.0.0.1:0", Self.echo)
      try never.stop(timeout: nil)
      #expect(socketError { try never.start() }?.isClosed == true)
      try never.stop(timeout: nil)
    }
  }

  @Test func aHandlerThatRefusesToEndIsReportedAndLeft() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      unsetenv("EVERGREEN_SERIAL_TESTS")
      try await runGreenInVirtualTime { _ in
        let release = Event()
        let server = try StreamServer("unix:\(temporaryPath())") { _, _ in
          do { try sleep(for: .seconds(3600)) } catch { try release.wait() }
        }
        try server.start()
        let client = try Socket.connect(to: server.address)
        try wait { server.connectionCount == 1 }
        try server.stop(timeout: .zero)
        #expect(server.connectionCount == 1)
        release.set()
        try wait { server.connectionCount == 0 }
        withExtendedLifetime(client) {}
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("the server at unix:/tmp/"))
    #expect(text.contains("has stopped, but these handlers were killed and go on: "))
    #expect(text.split(separator: "\n").count == 1)
  }

  // MARK: Failures

  static func failure(_ errno: Errno) -> SocketError { SocketError(.accept, errno) }

  /// See accept(2).
  @Test(arguments: [
    Errno.connectionAbort, .protocolError, .networkDown, .networkUnreachable, .hostIsDown,
    .noRouteToHost, .protocolNotAvailable,
  ])
  func whatBefallsAConnectionDoesNotEndTheAcceptor(errno: Errno) async throws {
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { _, error in Issue.record("reported: \(error)") }
      let server = try StreamServer("unix:\(temporaryPath())", Self.echo)
      let accept = server.accept
      var failures = 0
      server.accept = {
        if failures < 50 {
          failures += 1
          throw Self.failure(errno)
        }
        return try accept()
      }
      try server.start()
      try Self.ask(server, "hello")
      #expect(failures == 50 && server.isAccepting)
      #expect(clock.elapsed == .zero)  // no pause
      try server.stop()
    }
  }

  /// A firewall's, and what no manual tells.
  @Test func whatItDoesNotKnowTheAcceptorTriesAgainLater() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      unsetenv("EVERGREEN_SERIAL_TESTS")
      try await runGreenInVirtualTime { clock in
        let server = try StreamServer("unix:\(temporaryPath())", Self.echo)
        let accept = server.accept
        var failures = 0
        server.accept = {
          failures += 1
          if failures <= 10 { throw Self.failure([.notPermitted, .timedOut][failures % 2]) }
          return try accept()
        }
        try server.start()
        try Self.ask(server, "hello")
        // 10 ms, 20, 40 ... 640, then a second each.
        #expect(isAbout(clock.elapsed, .milliseconds(4270)))
        try server.stop()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("cannot accept at unix:/tmp/"))
    #expect(text.contains(": Connection timed out; trying again in 0.01 seconds"))
    #expect(text.contains(": Operation not permitted; trying again in 1.0 seconds"))
    // At 0, 1.27, 2.27 and 3.27 seconds.
    #expect(text.split(separator: "\n").count == 4)
  }

  /// At its limit of descriptors a server fails again and again, with successes between.
  @Test func itWarnsOnceASecondAtMost() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      unsetenv("EVERGREEN_SERIAL_TESTS")
      try await runGreenInVirtualTime { clock in
        let server = try StreamServer("unix:\(temporaryPath())", Self.echo)
        let accept = server.accept
        var isFailing = false
        server.accept = {
          isFailing.toggle()
          if isFailing { throw Self.failure(.tooManyOpenFiles) }
          return try accept()
        }
        try server.start()
        for _ in 0..<150 { try Self.ask(server, "hello") }
        #expect(clock.elapsed >= .milliseconds(1500) && clock.elapsed < .seconds(2))
        try server.stop()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains(": Too many open files; trying again in 0.01 seconds"))
    #expect(text.split(separator: "\n").count == 2)
  }

  @Test func aSecondServerOfOneListenerEndsAndTheFirstGoesOn() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let first = try StreamServer(listener: listener, Self.echo)
      try first.start()
      try idle()
      for _ in 0..<2 {
        let second = try StreamServer(listener: listener, Self.echo)
        let serving = spawn { try second.serveForever() }
        #expect(throws: ConcurrentUse.self) { try serving.get(timeout: .seconds(30)) }
        #expect(throws: ConcurrentUse.self) { try second.start() }
        try second.stop()
        #expect(!second.isAccepting && first.isAccepting && !listener.isClosed)
        try Self.ask(first, "hello")
      }
      try first.stop()
      #expect(listener.isClosed)
    }
  }

  /// Then it never runs.
  @Test func whoeverTakesWhatComesMayBeKilledAtOnce() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let stream = try StreamServer("127.0.0.1:0", Self.echo)
      let datagram = try DatagramServer("127.0.0.1:0") { _, _, _ in }
      let serving = [
        spawn { try stream.serveForever() }, spawn { try datagram.serveForever() },
      ]
      for server in [{ try stream.start() }, { try datagram.start() }] as [() throws -> Void] {
        try server()
      }
      var killed = 0
      for greenlet in Hub.current.greenlets
      where greenlet.name.hasPrefix("acceptor") || greenlet.name.hasPrefix("receiver") {
        try greenlet.kill(waiting: false)
        killed += 1
      }
      #expect(killed == 2)
      for greenlet in serving {
        #expect(socketError { try greenlet.get(timeout: .seconds(30)) }?.isClosed == true)
      }
      #expect(!stream.isAccepting && datagram.socket.isClosed)
      #expect(socketError { try datagram.start() }?.isClosed == true)
    }
  }

  /// Whatever ends the acceptor ends the server.
  @Test(arguments: [false, true])
  func whatNobodyExpectedEndsTheServer(isKill: Bool) async throws {
    struct Failure: Error {}
    try await runGreen {
      var reported: [String] = []
      Hub.current.onError = { greenlet, _ in reported.append(greenlet.name) }
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      let accept = server.accept
      var acceptor: AnyGreenlet?
      server.accept = {
        acceptor = Greenlet.current
        if !isKill { throw Failure() }
        return try accept()
      }
      let serving = spawn { try server.serveForever() }
      serving.name = "serving"
      try idle()
      try acceptor?.kill()
      acceptor = nil
      let error = #expect(throws: (any Error).self) { try serving.get(timeout: .seconds(30)) }
      #expect(isKill ? (error as? SocketError)?.isClosed == true : error is Failure)
      #expect(reported == ["serving"])  // and not the acceptor, too
      #expect(!server.isAccepting)
      try waitUntilRefused(at: server.address)
      #expect(throws: (any Error).self) { try server.start() }
    }
  }

  /// The kernel says EINVAL then.
  @Test func aListenerThatIsShutDownEndsTheServer() async throws {
    try await runGreen {
      var reported: [String] = []
      Hub.current.onError = { greenlet, _ in reported.append(greenlet.name) }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let server = try StreamServer(listener: listener) { socket, _ in
        try socket.sendAll("hello")
        _ = try socket.receive(upTo: 1)
      }
      let serving = spawn { try server.serveForever() }
      serving.name = "serving"
      try idle()
      let client = try Socket.connect(to: server.address)
      try #expect(client.receive(exactly: 5) == Array("hello".utf8))
      try listener.shutdown()
      try wait { !server.isAccepting }
      client.close()  // the open one was not cut off
      let error = socketError { try serving.get(timeout: .seconds(30)) }
      #expect(error?.errno == .invalidArgument)
      #expect(reported == ["serving"])  // and not the acceptor, too
      #expect(error?.description == "accept \(server.address): Invalid argument")
      #expect(server.connectionCount == 0 && listener.isClosed)
      #expect(socketError { try server.start() } == error)
      #expect(socketError { try server.serveForever() } == error)
      try server.stop()
    }
  }

  @Test func withoutServeForeverTheEndIsReported() async throws {
    try await runGreen {
      var reported: [any Error] = []
      Hub.current.onError = { _, error in reported.append(error) }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let server = try StreamServer(listener: listener, Self.echo)
      try server.start()
      try idle()
      #expect(server.isAccepting)
      listener.close()  // by somebody else than the server
      try idle()
      #expect(!server.isAccepting)
      #expect(reported.count == 1 && (reported.first as? SocketError)?.isClosed == true)
      #expect(socketError { try server.serveForever() }?.isClosed == true)
    }
  }

  /// Something else has got the number of the descriptor.
  @Test func aNumberThatIsNoSocketAnyMoreEndsTheServer() async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      let accept = server.accept
      server.accept = { throw Self.failure(.notSocket) }
      #expect(socketError { try server.serveForever() }?.errno == .notSocket)
      #expect(!server.isAccepting)
      #expect(socketError { _ = try accept() }?.isClosed == true)
    }
  }

  @Test func aListenersOwnTimeoutDoesNotEndTheServer() async throws {
    try await runGreenInVirtualTime { _ in
      let listener = try Socket.listen(on: .unix(abstract: temporaryPath()))
      listener.timeout = .seconds(1)
      let server = try StreamServer(listener: listener, Self.echo)
      try server.start()
      try sleep(for: .seconds(60))
      try Self.ask(server, "still there")
      try server.stop()
    }
  }

  @Test func aSocketThatDoesNotListenIsRefused() async throws {
    try await runGreen {
      let socket = try Socket(.ipv4)
      try socket.bind(to: .loopbackIPv4(port: 0))
      let error = socketError { _ = try StreamServer(listener: socket, Self.echo) }
      try #expect(
        error?.description == "accept \(socket.localAddress): the socket does not listen")
      #expect(!socket.isClosed)
    }
  }

  // MARK: Signals

  @Test(arguments: [SIGINT, SIGTERM])
  func aSignalStopsGracefully(signal: Int32) async {
    await #expect(processExitsWith: .success) { [signal] in
      try await runGreenInChild {
        let finish = Event()
        var isReady = false
        let server = try StreamServer("127.0.0.1:0") { socket, _ in
          try finish.wait()
          try socket.sendAll("the end")
        }
        let serving = spawn {
          try server.serveForever(stoppingOn: [SIGINT, SIGTERM, SIGINT], timeout: nil) {
            isReady = true
            try #require(server.isAccepting)
          }
        }
        try idle()
        try #require(isReady)
        let client = try Socket.connect(to: server.address)
        try wait { server.connectionCount == 1 }
        kill(getpid(), signal)
        try wait { !server.isAccepting }
        try waitUntilRefused(at: server.address)
        try sleep(for: .milliseconds(20))
        try #require(!serving.isReady && server.connectionCount == 1)
        finish.set()
        try serving.get(timeout: .seconds(30))
        try #require(receiveAll(client) == Array("the end".utf8))
      }
    }
  }

  @Test func afterASignalThoseThatTakeTooLongAreKilled() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        var cleaned = false
        let server = try StreamServer("127.0.0.1:0") { socket, _ in
          defer { cleaned = true }
          _ = try socket.receive(upTo: 1)
        }
        let serving = spawn {
          try server.serveForever(stoppingOn: [SIGTERM], timeout: .milliseconds(50))
        }
        try idle()
        let client = try Socket.connect(to: server.address)
        try wait { server.connectionCount == 1 }
        let begin = ContinuousClock.now
        kill(getpid(), SIGTERM)
        try serving.get(timeout: .seconds(30))
        try #require(ContinuousClock.now - begin >= .milliseconds(50))
        try #require(cleaned && server.connectionCount == 0)
        try #require(client.receive(upTo: 1) == nil)
      }
    }
  }

  /// Also if a handler does not want to end.
  @Test func aSecondSignalEndsTheWait() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let release = Event()
        var killed = 0
        let server = try StreamServer("127.0.0.1:0") { _, _ in
          do { try sleep(for: .seconds(3600)) } catch {
            killed += 1
            try release.wait()
          }
        }
        let serving = spawn {
          try server.serveForever(stoppingOn: [SIGTERM, SIGINT], timeout: nil)
        }
        try idle()
        let client = try Socket.connect(to: server.address)
        try wait { server.connectionCount == 1 }
        kill(getpid(), SIGTERM)
        try wait { !server.isAccepting }
        try idle()
        try #require(!serving.isReady && killed == 0)
        kill(getpid(), SIGINT)
        try serving.get(timeout: .seconds(3))
        try wait { killed == 1 }
        release.set()
        try wait { server.connectionCount == 0 }
        withExtendedLifetime(client) {}
      }
    }
  }

  @Test func afterwardsTheSignalsDoWhatTheyDidBefore() async {
    await #expect(processExitsWith: .signal(SIGTERM)) {
      try await runGreenInChild {
        let server = try StreamServer("127.0.0.1:0", Self.echo)
        spawn { try server.stop() }
        try server.serveForever(stoppingOn: [SIGTERM])
        kill(getpid(), SIGTERM)
        try sleep(for: .seconds(30))
      }
    }
  }

  @Test func aSignalThatCannotBeHeardStartsNothing() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let server = try StreamServer("127.0.0.1:0", Self.echo)
        #expect(throws: LoopError.self) {
          try server.serveForever(stoppingOn: [SIGTERM, SIGKILL])
        }
        try #require(!server.isAccepting)
        // And no handler is left: this is a deadlock, nobody can wake it.
        #expect(throws: LoopExit.self) { try Event().wait() }
      }
    }
  }

  @Test func whatWhenReadyThrowsStopsTheServer() async throws {
    struct Failure: Error {}
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0", Self.echo)
      #expect(throws: Failure.self) {
        try server.serveForever(stoppingOn: []) { throw Failure() }
      }
      #expect(!server.isAccepting)
      try waitUntilRefused(at: server.address)
    }
  }

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

  @Test(arguments: possible(["127.0.0.1", "::1", "localhost", ""]))
  func listensAtAHost(host: String) async throws {
    try await runGreen {
      let server = try StreamServer(host: host, port: 0, Self.echo)
      let first = try SocketAddress.resolve(host, port: 0)[0]
      #expect(server.address.with(port: 0) == first)
      #expect(server.address.port != 0)
      try server.start()
      let client = try Socket.connect(
        host: host.isEmpty ? "127.0.0.1" : host, port: #require(server.address.port))
      try client.sendAll([1])
      try #expect(client.receive(upTo: 10, timeout: .seconds(30)) == [1])
      try server.stop()
    }
  }

  /// As in addresses with a port.
  @Test func starsAndBracketsAreHosts() async throws {
    try await runGreen {
      for (host, address) in [
        ("*", SocketAddress.anyIPv4(port: 0)), ("[::1]", .loopbackIPv6(port: 0)),
      ] where hasIPv6 || host == "*" {
        let stream = try StreamServer(host: host, port: 0, Self.echo)
        let datagram = try DatagramServer(host: host, port: 0) { _, _, _ in }
        #expect(stream.address.with(port: 0) == address)
        #expect(datagram.address.with(port: 0) == address)
      }
      #expect(throws: SocketAddressError.self) {
        _ = try StreamServer(host: "[localhost]", port: 0, Self.echo)
      }
    }
  }

  @Test(arguments: 0..<4)
  func aServerOfNoConnectionsIsRefusedWithASentence(number: Int) async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { [number] in
      try await runGreenInChild {
        let calls: [() throws -> Void] = [
          { _ = try StreamServer("127.0.0.1:0", maxConnections: 0, Self.echo) },
          {
            let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
            _ = try StreamServer(listener: listener, maxConnections: 0, Self.echo)
          },
          { _ = try DatagramServer("127.0.0.1:0", maxHandlers: 0) { _, _, _ in } },
          {
            let socket = try Socket(.ipv4, .datagram)
            _ = try DatagramServer(socket: socket, maxHandlers: 0) { _, _, _ in }
          },
        ]
        try calls[number]()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    let noun = number < 2 ? "connections" : "handlers"
    #expect(text.contains("evergreen: a server cannot have at most 0 \(noun)"))
  }

  @Test func aHostThatIsUnknownIsTheResolversError() async throws {
    try await runGreen {
      Hub.current.resolver = FakeResolver(answer: [])
      #expect(throws: ResolverError.self) {
        _ = try StreamServer(host: "nowhere", port: 0, Self.echo)
      }
      #expect(throws: ResolverError.self) {
        _ = try DatagramServer(host: "nowhere", port: 0) { _, _, _ in }
      }
    }
  }

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

  /// A successor's socket is in the same place, as after a restart without a gap.
  @Test func aPathThatBelongsToAnotherServerStays() async throws {
    try await runGreen {
      let path = temporaryPath()
      let old = try StreamServer("unix:\(path)", Self.echo)
      try old.start()
      removeFile(path)
      let new = try StreamServer("unix:\(path)", Self.echo)
      try new.start()
      try old.stop()
      try Self.ask(new, "hello")
      try new.stop()
      #expect(!exists(path))
    }
  }

  @Test func onlyWhoMadeThePathRemovesIt() async throws {
    try await runGreen {
      let path = temporaryPath()
      let listener = try Socket.listen(on: .unix(path: path))
      let server = try StreamServer(listener: listener, Self.echo)
      try server.start()
      try server.stop()
      #expect(exists(path) && listener.isClosed)
      removeFile(path)
      do { _ = try StreamServer("unix:\(path)", Self.echo) }  // never started
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
