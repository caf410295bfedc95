// Evergreen: tests of connecting to the first of several addresses that answers.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct HappyEyeballsTests {
  /// An address at which nobody listens.
  static func refusing() throws -> SocketAddress {
    let listener = try Socket.listen(on: .ipv4("127.0.0.2", port: 0))
    let address = try listener.localAddress
    listener.close()
    try waitUntilRefused(at: address)
    return address
  }

  @Test func literalsAndLocalhostConnect() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let port = try #require(try listener.localAddress.port)
      defer { listener.close() }
      for host in ["127.0.0.1", "localhost"] {
        let client = try Socket.connect(host: host, port: port, timeout: .seconds(30))
        let (server, _) = try listener.accept(timeout: .seconds(10))
        try server.sendAll([1])
        try #expect(client.receive(upTo: 10) == [1])
        try #expect(client.get(.noDelay))
      }
    }
  }

  @Test func theSecondAddressIsTriedWhenTheFirstRefuses() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let good = try listener.localAddress
      let addresses = [try Self.refusing(), good]
      Hub.current.resolver = FakeResolver(answer: addresses)
      let client = try Socket.connect(host: "somewhere", port: 1)
      try #expect(client.peerAddress == good)
      // It does not wait until the first one's time is over.
      let begin = ContinuousClock.now
      _ = try Socket.connect(toAnyOf: addresses, delay: .seconds(200))
      #expect(ContinuousClock.now - begin < .seconds(100))
      withExtendedLifetime(listener) {}
    }
  }

  @Test func theSecondAddressIsTriedWhenTheFirstIsSilent() async throws {
    try await runGreen {
      let hole = try BlackHole()
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let good = try listener.localAddress
      let begin = ContinuousClock.now
      let client = try Socket.connect(toAnyOf: [hole.address, good], delay: .milliseconds(50))
      try #expect(client.peerAddress == good)
      #expect(ContinuousClock.now - begin >= .milliseconds(50))
      withExtendedLifetime((hole, listener)) {}
    }
  }

  @Test func theFirstWinsWhenBothAnswer() async throws {
    try await runGreen {
      let listeners = try (0..<2).map { _ in try Socket.listen(on: .loopbackIPv4(port: 0)) }
      let client = try Socket.connect(toAnyOf: listeners.map { try $0.localAddress })
      try #expect(client.peerAddress == listeners[0].localAddress)
      #expect(socketError { _ = try listeners[1].accept(timeout: .zero) }?.isTimeout == true)
    }
  }

  @Test func losersAreClosed() async throws {
    try await runGreen {
      let holes = try (0..<3).map { _ in try BlackHole() }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let before = Hub.current.greenlets.count
      let client = try Socket.connect(
        toAnyOf: holes.map(\.address) + [try listener.localAddress], delay: .milliseconds(5))
      try idle()
      #expect(Hub.current.greenlets.count == before)
      withExtendedLifetime((client, holes, listener)) {}
    }
  }

  @Test func whenAllFailTheErrorIsTheFirstOnes() async throws {
    try await runGreen {
      let addresses = try (0..<3).map { _ in try Self.refusing() }
      let error = socketError { _ = try Socket.connect(toAnyOf: addresses) }
      #expect(error?.errno == .connectionRefused)
      #expect(error?.address == addresses[0])
    }
  }

  @Test func theErrorIsTheFirstOnesAlsoIfItCameLast() async throws {
    try await runGreen {
      // The kernel asks the listener again after a second, and it has gone by then.
      let hole = try BlackHole()
      let other = try Self.refusing()
      let closer = spawn(after: .milliseconds(100)) { hole.listener.close() }
      let error = socketError {
        _ = try Socket.connect(toAnyOf: [hole.address, other], delay: .milliseconds(5))
      }
      #expect(error?.errno == .connectionRefused)
      #expect(error?.address == hole.address)
      try closer.join()
    }
  }

  @Test func oneAddressNeedsNoRace() async throws {
    try await runGreen {
      let address = try Self.refusing()
      #expect(socketError { _ = try Socket.connect(toAnyOf: [address]) }?.address == address)
    }
  }

  @Test func theTimeCoversAllAttempts() async throws {
    try await runGreen {
      let holes = try (0..<3).map { _ in try BlackHole() }
      Hub.current.resolver = FakeResolver(answer: holes.map(\.address))
      let begin = ContinuousClock.now
      let error = socketError {
        _ = try Socket.connect(host: "somewhere", port: 5, timeout: .milliseconds(300))
      }
      #expect(error?.isTimeout == true)
      #expect(ContinuousClock.now - begin >= .milliseconds(300))
      withExtendedLifetime(holes) {}
    }
  }

  @Test func aConnectThatOnlyLooksTriesEachAddressOnce() async throws {
    try await runGreen {
      let holes = try (0..<2).map { _ in try BlackHole() }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let good = try listener.localAddress
      let port = try #require(good.port)
      let refusing = try Self.refusing()
      // Known without asking anybody.
      try #expect(
        Socket.connect(host: "127.0.0.1", port: port, timeout: .zero).peerAddress == good)
      for first in [holes[0].address, refusing] {
        Hub.current.resolver = FakeResolver(answer: [first, good])
        let client = try Socket.connect(host: "somewhere", port: 1, timeout: .zero)
        try #expect(client.peerAddress == good)
      }
      Hub.current.resolver = FakeResolver(answer: holes.map(\.address))
      let error = socketError {
        _ = try Socket.connect(host: "somewhere", port: 1, timeout: .zero)
      }
      #expect(error?.isTimeout == true && error?.address == holes[0].address)
      Hub.current.resolver = FakeResolver(answer: [refusing, holes[0].address])
      #expect(
        socketError { _ = try Socket.connect(host: "somewhere", port: 1, timeout: .zero) }?.errno
          == .connectionRefused)
      withExtendedLifetime((holes, listener)) {}
    }
  }

  @Test func aConnectThatOnlyLooksDoesNotWaitForTheResolver() async throws {
    try await runGreen {
      Hub.current.resolver = SilentResolver()
      let error = socketError {
        _ = try Socket.connect(host: "localhost", port: 80, timeout: .zero)
      }
      #expect(error?.isTimeout == true)
      #expect(error?.description == "connect localhost:80: Connection timed out")
    }
  }

  @Test func theTimeOfSeveralAttemptsIsOne() async throws {
    try await runGreen {
      let holes = try (0..<2).map { _ in try BlackHole() }
      let begin = ContinuousClock.now
      let error = socketError {
        _ = try Socket.connect(toAnyOf: holes.map(\.address), timeout: .milliseconds(50))
      }
      #expect(error?.isTimeout == true && error?.address == holes[0].address)
      #expect(ContinuousClock.now - begin >= .milliseconds(50))
      #expect(ContinuousClock.now - begin < .seconds(20))
    }
  }

  /// One that is killed before it has begun never runs, and counts all the same.
  @Test func attemptsThatNeverRanAreNotWaitedFor() async throws {
    try await runGreen {
      let addresses = try (0..<2).map { _ in try Self.refusing() }
      let before = Hub.current.greenlets.count
      let connecting = spawn {
        try Socket.connect(toAnyOf: addresses, delay: .seconds(3600))
      }
      Hub.current.onError = { _, _ in }
      let killer = spawn {
        for _ in 0..<10 where !connecting.isReady {
          for greenlet in Hub.current.greenlets
          where greenlet !== connecting && greenlet !== Greenlet.current
            && greenlet !== Hub.current.main
          {
            try greenlet.kill(waiting: false)
          }
          try Greenlet.yield()
        }
      }
      #expect(throws: GreenletExit.self) { try connecting.get(timeout: .seconds(30)) }
      try killer.join()
      #expect(Hub.current.greenlets.count == before)
    }
  }

  @Test(arguments: 0..<6)
  func whoIsKilledWhileRacingLeavesNothing(stage: Int) async throws {
    try await runGreen {
      let holes = try (0..<3).map { _ in try BlackHole() }
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let addresses = try holes.map(\.address) + [listener.localAddress]
      let before = Hub.current.greenlets.count
      let victim = spawn { try Socket.connect(toAnyOf: addresses, delay: .milliseconds(5)) }
      if stage > 0 { try Greenlet.yield() }
      if stage > 1 { try Greenlet.yield() }
      if stage > 2 { try sleep(for: .milliseconds(3 * stage)) }
      try victim.kill()
      try idle()
      #expect(Hub.current.greenlets.count == before)
      // A winner that nobody took has been closed.
      while let (socket, _) = try? listener.accept(timeout: .zero), victim.value == nil {
        try #expect(socket.receive(upTo: 1, timeout: .seconds(10)) == nil)
      }
      withExtendedLifetime(holes) {}
    }
  }

  @Test func familiesTakeTurns() throws {
    let four = try (1...3).map { try SocketAddress.ipv4("192.0.2.\($0)", port: 1) }
    let six = try (1...2).map { try SocketAddress.ipv6("2001:db8::\($0)", port: 1) }
    #expect(
      alternatingFamilies([six[0], six[1], four[0], four[1], four[2]])
        == [six[0], four[0], six[1], four[1], four[2]])
    #expect(alternatingFamilies(four + six) == [four[0], six[0], four[1], six[1], four[2]])
    #expect(alternatingFamilies(four) == four)
  }
}
