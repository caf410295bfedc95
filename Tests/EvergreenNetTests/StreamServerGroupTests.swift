// Evergreen: tests of servers on several hubs
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenConcurrency
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite("StreamServerGroup", .timeLimit(.minutes(1)))
struct StreamServerGroupTests {
  static let echo: StreamServerGroup.Handler = { socket, _ in
    while let chunk = try socket.receive(upTo: 4096) { try socket.sendAll(chunk) }
  }

  private static func talk(to address: SocketAddress, _ text: String) throws -> Bool {
    let socket = try Socket.connect(to: address, timeout: .seconds(30))
    defer { socket.close() }
    try socket.sendAll(text)
    return try socket.receive(exactly: text.utf8.count) == Array(text.utf8)
  }

  @Test(arguments: [1, 3])
  func servesOnAllHubsAtOnePort(hubs: Int) async throws {
    try await runGreen {
      let seen = Inbox<Int>()
      let sender = seen.sender
      let server = try StreamServerGroup("127.0.0.1:0", hubs: hubs) { socket, peer in
        try sender.send(HubGroup.currentNumber!)
        try Self.echo(socket, peer)
      }
      #expect(server.address.port != 0)
      try server.start()
      let clients = (0..<60).map { number in
        spawn { try Self.talk(to: server.address, "client \(number)") }
      }
      for client in clients {
        let isSame = try client.get(timeout: .seconds(30))
        #expect(isSame)
      }
      try server.stop()
      var hubsSeen: Set<Int> = []
      while let hub = seen.tryGet() { hubsSeen.insert(hub) }
      #expect(hubsSeen == Set(0..<hubs))  // the kernel spreads 60 of them over 3
      #expect(throws: (any Error).self) { try Self.talk(to: server.address, "too late") }
    }
  }

  @Test func stoppingLetsOpenConnectionsEnd() async throws {
    try await runGreen {
      let server = try StreamServerGroup("127.0.0.1:0", hubs: 2, Self.echo)
      try server.start()
      let sockets = try (0..<8).map { _ in try Socket.connect(to: server.address) }
      for socket in sockets { try socket.sendAll("a") }
      for socket in sockets { _ = try socket.receive(exactly: 1) }
      let count = try server.connectionCount()
      #expect(count == 8)
      let stopper = spawn { try server.stop(timeout: .seconds(30)) }
      try sleep(for: .milliseconds(5))
      for socket in sockets {
        try socket.sendAll("b")
        let last = try socket.receive(exactly: 1)
        #expect(last == [UInt8(ascii: "b")])
        socket.close()
      }
      try stopper.get(timeout: .seconds(30))
    }
  }

  @Test func stoppingKillsWhatTakesTooLong() async throws {
    try await runGreen {
      let server = try StreamServerGroup("127.0.0.1:0", hubs: 2, Self.echo)
      try server.start()
      let sockets = try (0..<4).map { _ in try Socket.connect(to: server.address) }
      for socket in sockets { try socket.sendAll("a") }
      for socket in sockets { _ = try socket.receive(exactly: 1) }
      try server.stop(timeout: .milliseconds(5))
      for socket in sockets {
        let end = try socket.receive(upTo: 1)
        #expect(end == nil)
        socket.close()
      }
    }
  }

  @Test func serveForeverEndsWhenSomebodyStopsIt() async throws {
    try await runGreen {
      let server = try StreamServerGroup("127.0.0.1:0", hubs: 2, Self.echo)
      let serving = spawn { try server.serveForever() }
      let isSame = try Self.talk(to: server.address, "hello")
      #expect(isSame)
      try server.stop()
      try serving.get(timeout: .seconds(30))
    }
  }

  @Test func aSignalStopsAllHubs() async throws {
    try await runGreen {
      let answers = Inbox<Bool>()
      let sender = answers.sender
      try HubGroup.serve(
        "127.0.0.1:0", hubs: 2, stoppingOn: [SIGUSR2], timeout: .seconds(30),
        whenReady: { address in
          spawn {
            try sender.send(Self.talk(to: address, "hello"))
            kill(getpid(), SIGUSR2)
          }
        }, Self.echo)
      #expect(answers.tryGet() == true)
    }
  }

  @Test func aKillStopsAllHubs() async throws {
    try await runGreen {
      let server = try StreamServerGroup("127.0.0.1:0", hubs: 2, Self.echo)
      let serving = spawn { try server.serveForever() }
      let isSame = try Self.talk(to: server.address, "hello")
      #expect(isSame)
      try serving.kill()
      try server.stop()  // waits for what the kill began
      #expect(throws: (any Error).self) { try Self.talk(to: server.address, "too late") }
    }
  }

  @Test func anAddressThatCannotBeHadIsAnError() async throws {
    try await runGreen {
      #expect(throws: SocketError.self) {
        try StreamServerGroup("192.0.2.1:0", hubs: 2, Self.echo)
      }
      let holder = try Socket(.ipv4, .stream)
      defer { holder.close() }
      try holder.bind(to: .loopbackIPv4(port: 0))
      try holder.listen()
      let taken = try holder.localAddress
      #expect(throws: SocketError.self) { try StreamServerGroup(taken, hubs: 2, Self.echo) }
    }
  }

  @Test func aGroupThatWasGivenGoesOn() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2)
      defer { try? group.stop() }
      for _ in 0..<2 {
        let server = try StreamServerGroup(.loopbackIPv4(port: 0), on: group, Self.echo)
        try server.start()
        let isSame = try Self.talk(to: server.address, "hello")
        #expect(isSame)
        try server.stop()
      }
      let one = try group.run { 1 }
      #expect(one == 1)
    }
  }

  @Test func droppingItClosesItsListeners() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2)
      var server: StreamServerGroup? = try StreamServerGroup(
        .loopbackIPv4(port: 0), on: group, Self.echo)
      try server?.start()
      let address = server!.address
      server = nil
      while (try? Self.talk(to: address, "x")) == true { try sleep(for: .milliseconds(1)) }
      try group.stop()
    }
  }
}
