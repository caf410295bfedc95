// Evergreen: tests of the server for datagrams.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

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
