// Evergreen: tests of the network in memory.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(3))) struct SimulatedNetworkTests {
  /// Accepts, and sends back what comes, until the listener closes.
  static func echo(_ listener: SimulatedNetwork.Listener) -> Greenlet<Void> {
    spawn {
      while let peer = try? listener.accept() {
        spawn {
          while let chunk = try? peer.receive(upTo: 1000) {
            do { try peer.sendAll(chunk) } catch is SocketError { break }
          }
          peer.close()
        }
      }
    }
  }

  @Test func hostsTalkAndTheTimeIsExact() async throws {
    try await runGreenInVirtualTime { clock in
      let network = SimulatedNetwork(seed: 1)
      network.isPartial = false
      network.delay = .milliseconds(30) ... .milliseconds(30)
      let (server, client) = (network.host("server"), network.host("client"))
      #expect(network.host("server") === server)
      let listener = try server.listen(port: 80)
      let serving = Self.echo(listener)
      let stream = try client.connect(to: server, port: 80)
      #expect(clock.elapsed == .milliseconds(60))
      #expect(stream.peerAddress == listener.address)
      try stream.sendAll("hello")
      try #expect(stream.receive(exactly: 5) == Array("hello".utf8))
      #expect(clock.elapsed == .milliseconds(120))
      try stream.shutdown(.write)  // one direction ends, the other goes on
      try #expect(stream.receive(upTo: 1) == nil)
      #expect(clock.elapsed == .milliseconds(180))
      listener.close()
      try serving.join()
    }
  }

  @Test func nobodyListens() async throws {
    try await runGreenInVirtualTime { clock in
      let network = SimulatedNetwork(seed: 1)
      network.delay = .seconds(1) ... .seconds(1)
      let (server, client) = (network.host("server"), network.host("client"))
      let error = #expect(throws: SocketError.self) { try client.connect(to: server, port: 81) }
      #expect(error?.errno == .connectionRefused)
      #expect("\(error!)" == "connect 10.0.0.1:81: Connection refused")
      #expect(clock.elapsed == .seconds(2))
      let listener = try server.listen(port: 81)
      #expect(throws: SocketError.self) { try server.listen(port: 81) }
      let late = #expect(throws: SocketError.self) {
        try client.connect(to: server, port: 81, timeout: .milliseconds(1500))
      }
      #expect(late?.isTimeout == true && clock.elapsed == .milliseconds(3500))
      listener.close()
      #expect(throws: SocketError.self) { try client.connect(to: server, port: 81) }
      let closed = #expect(throws: SocketError.self) { try listener.accept() }
      #expect(closed?.isClosed == true)
      try #expect(server.listen().port >= 49_152)
    }
  }

  @Test func whatIsCutOffArrivesWhenItIsHealed() async throws {
    try await runGreenInVirtualTime { clock in
      let network = SimulatedNetwork(seed: 2)
      network.delay = .milliseconds(1) ... .milliseconds(9)
      let (server, client, third) = (network.host("s"), network.host("c"), network.host("t"))
      let listener = try server.listen(port: 80)
      let serving = Self.echo(listener)
      let stream = try client.connect(to: server, port: 80)
      network.cut(server, client)
      try stream.sendAll("one")
      let error = #expect(throws: SocketError.self) {
        try stream.receive(upTo: 1, timeout: .seconds(60))
      }
      #expect(error?.isTimeout == true)
      #expect(throws: SocketError.self) {
        try client.connect(to: server, port: 80, timeout: .seconds(60))
      }
      let other = try third.connect(to: server, port: 80)  // is not cut off
      try other.sendAll("x")
      try #expect(other.receive(upTo: 1) != nil)
      let patient = spawn { try client.connect(to: server, port: 80) }
      try sleep(for: .seconds(60))
      #expect(!patient.isReady && clock.elapsed > .seconds(180))
      network.heal(client, server)
      try #expect(stream.receive(exactly: 3, timeout: .seconds(1)) == Array("one".utf8))
      try #expect(patient.get(timeout: .seconds(1)).isClosed == false)
      listener.close()
      try serving.join()
    }
  }

  @Test func connectionsAreLostOnCommand() async throws {
    try await runGreenInVirtualTime { _ in
      let network = SimulatedNetwork(seed: 2)
      let (server, client) = (network.host("s"), network.host("c"))
      let listener = try server.listen(port: 80)
      let one = try client.connect(to: server, port: 80)
      let other = try listener.accept()
      let waiting = [one, other].map { stream in spawn { try stream.receive(upTo: 1) } }
      try waitUntilBlocked()
      network.reset(client, server)
      try joinAll(waiting)
      #expect(waiting.allSatisfy { ($0.error as? SocketError)?.errno == .connectionReset })
      listener.close()
    }
  }

  @Test func connectionsAreLostByChance() async throws {
    let counts = try await runGreenInVirtualTime { _ in
      let network = SimulatedNetwork(seed: 9)
      network.lossProbability = 0.1
      let (server, client) = (network.host("s"), network.host("c"))
      let listener = try server.listen(port: 80)
      let serving = Self.echo(listener)
      var counts: [Int] = []
      for _ in 0..<20 {
        let stream = try client.connect(to: server, port: 80)
        var count = 0
        do {
          while count < 1000 {
            try stream.sendAll("x")
            _ = try stream.receive(exactly: 1)
            count += 1
          }
        } catch let error as SocketError {
          #expect(error.isPeerGone)
        }
        counts.append(count)
      }
      listener.close()
      try serving.join()
      return counts
    }
    #expect(counts.allSatisfy { $0 < 1000 } && Set(counts).count > 3)
  }

  /// Many clients, a slow network that is cut now and then: what arrives is what was sent.
  @Test func nothingIsLostOrMixedUpUnderAnySeed() async throws {
    try await forSeeds(60) { simulation in
      let network = simulation.network
      network.delay = .zero ... .milliseconds(20)
      network.capacity = 100
      let (server, client) = (network.host("s"), network.host("c"))
      let listener = try server.listen(port: 80, backlog: 1)
      let serving = Self.echo(listener)
      let clients = (0..<4).map { number in
        spawn {
          let stream = try client.connect(to: server, port: 80)
          let data = (0..<700).map { UInt8(truncatingIfNeeded: $0 * number) }
          let sender = spawn {
            try stream.sendAll(data)
            try stream.shutdown(.write)
          }
          var answer: [UInt8] = []
          while let chunk = try stream.receive(upTo: 64) { answer += chunk }
          #expect(answer == data)
          try sender.get()
        }
      }
      for _ in 0..<5 {
        try sleep(for: .milliseconds(10))
        network.cut(server, client)
        try sleep(for: .milliseconds(30))
        network.heal(server, client)
      }
      try joinAll(clients, raisingErrors: true)
      listener.close()
      try serving.join()
    }
  }

  @Test func theSameSeedIsTheSameWeather() async throws {
    @Sendable func times(_ simulation: Simulation) throws -> [Duration] {
      let network = simulation.network
      network.delay = .zero ... .seconds(1)
      let listener = try network.host("s").listen(port: 80)
      let serving = Self.echo(listener)
      let stream = try network.host("c").connect(to: network.host("s"), port: 80)
      var times: [Duration] = []
      for _ in 0..<20 {
        try stream.sendAll("abcdefgh")
        _ = try stream.receive(exactly: 8)
        times.append(simulation.clock.elapsed)
      }
      listener.close()
      try serving.join()
      return times
    }
    let one = try await simulate(seed: 5, times)
    #expect(try await simulate(seed: 5, times) == one)
    #expect(try await simulate(seed: 6, times) != one)
  }
}
