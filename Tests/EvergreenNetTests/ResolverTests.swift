// Evergreen: tests of looking up names and addresses.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenBase
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

@Suite(.timeLimit(.minutes(5))) struct ResolverTests {
  /// Fails the test when it is asked.
  final class NoResolver: Resolver {
    func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
      -> [SocketAddress]
    {
      Issue.record("asked for \(host)")
      return []
    }

    func name(of address: SocketAddress) throws -> (host: String, service: String) {
      Issue.record("asked for \(address)")
      return ("", "")
    }
  }

  /// Takes a pool's thread until it is let go.
  final class SlowResolver: Resolver, Sendable {
    let pool = ThreadPool(maxThreads: 1)
    let state = Guarded((begun: 0, ended: 0, isOpen: false))

    func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
      -> [SocketAddress]
    {
      try pool.run { [self] in
        state.withLock { $0.begun += 1 }
        while !state.withLock({ $0.isOpen }) { usleep(1000) }
        state.withLock { $0.ended += 1 }
        return [.loopbackIPv4(port: port)]
      }
    }

    func name(of address: SocketAddress) throws -> (host: String, service: String) { ("", "") }
  }

  @Test func numbersAreAnsweredWithoutTheResolver() async throws {
    try await runGreen {
      Hub.current.resolver = NoResolver()
      try #expect(
        SocketAddress.resolve("127.0.0.1", port: 5) == [.loopbackIPv4(port: 5)])
      try #expect(SocketAddress.resolve("::1", port: 5) == [.loopbackIPv6(port: 5)])
      try #expect(
        SocketAddress.resolve("192.0.2.7", port: 0, family: .ipv4)
          == [.ipv4("192.0.2.7", port: 0)])
      let error = #expect(throws: ResolverError.self) {
        try SocketAddress.resolve("192.0.2.7", port: 0, family: .ipv6)
      }
      #expect(error?.isNotFound == true)
    }
  }

  /// Nor is what looks like one and is none: a server would have to be asked.
  @Test(arguments: ["256.0.0.1", "256.0.0.1.", "1.2.3.4.5", "...", "1..2", "99999999999"])
  func badNumbersAreRefusedWithoutTheResolver(host: String) async throws {
    try await runGreen {
      Hub.current.resolver = NoResolver()
      let error = #expect(throws: ResolverError.self) { try SocketAddress.resolve(host, port: 5) }
      #expect(error?.isNotFound == true && error?.subject == host)
    }
  }

  /// As one of a user's own may.
  @Test func aResolverSaysWhatItDoesNotFind() async throws {
    final class Table: Resolver {
      func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
        -> [SocketAddress]
      {
        switch host {
        case "busy": throw ResolverError(subject: host, code: EAI_AGAIN, reason: "too busy")
        case "here": [.loopbackIPv4(port: port)]
        default: throw ResolverError.notFound(host)
        }
      }

      func name(of address: SocketAddress) throws -> (host: String, service: String) {
        throw SocketError(.wait, .notSupported, address, explanation: "no names here")
      }
    }
    try await runGreen {
      Hub.current.resolver = Table()
      try #expect(SocketAddress.resolve("here", port: 1) == [.loopbackIPv4(port: 1)])
      let unknown = #expect(throws: ResolverError.self) {
        try SocketAddress.resolve("there", port: 1)
      }
      #expect(unknown?.isNotFound == true && unknown?.isTransient == false)
      let busy = #expect(throws: ResolverError.self) { try SocketAddress.resolve("busy", port: 1) }
      #expect(busy?.isTransient == true && busy?.description == "look up busy: too busy")
      let nameless = socketError { _ = try SocketAddress.loopbackIPv4(port: 1).lookUpName() }
      #expect(nameless?.description == "wait 127.0.0.1:1: no names here")
    }
  }

  #if os(Linux)
  @Test func aFamilyThatANameDoesNotHaveIsNotFound() {
    #expect(ResolverError(subject: "x", code: -9).isNotFound)  // EAI_ADDRFAMILY
    #expect(!ResolverError(subject: "x", code: EAI_FAIL).isNotFound)
  }
  #endif

  @Test func localhostIsThisMachine() async throws {
    try await runGreen {
      let found = try SocketAddress.resolve("localhost", port: 80, timeout: .seconds(30))
      #expect(!found.isEmpty)
      #expect(found.allSatisfy { $0.isLoopback && $0.port == 80 })
      let four = try SocketAddress.resolve("localhost", port: 80, family: .ipv4)
      #expect(four == [.loopbackIPv4(port: 80)])
    }
  }

  @Test func answersAreThoseOfTheSystem() async throws {
    try await runGreen {
      for host in ["localhost", "127.1", "0x7f.1"] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        #if os(Linux)
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
        hints.ai_socktype = SOCK_STREAM
        #endif
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, "81", &hints, &list) == 0 else {
          #expect(throws: ResolverError.self) { try SocketAddress.resolve(host, port: 81) }
          continue
        }
        defer { freeaddrinfo(list) }
        var expected: [SocketAddress] = []
        var entry = list
        while let one = entry {
          if let address = SocketAddress(one.pointee.ai_addr, length: one.pointee.ai_addrlen),
            !expected.contains(address)
          {
            expected.append(address)
          }
          entry = one.pointee.ai_next
        }
        try #expect(SocketAddress.resolve(host, port: 81) == expected)
      }
    }
  }

  /// With or without a network: there is no such name, or nobody can be asked.
  @Test func anUnknownNameFails() async throws {
    try await runGreen {
      let error = #expect(throws: (any Error).self) {
        try SocketAddress.resolve("no-such-host.invalid", port: 80, timeout: .seconds(20))
      }
      if let error = error as? ResolverError {
        #expect(error.isNotFound || error.isTransient)
        #expect(error.subject == "no-such-host.invalid")
        #expect(error.description.hasPrefix("look up no-such-host.invalid: "))
        #expect(error.description == "look up \(error.subject): \(error.reason)")
        #expect(!error.reason.isEmpty && !error.reason.contains("no-such-host"))
      } else {
        #expect(error is Timeout)
      }
    }
  }

  @Test func aNameWithABadByteIsNotCutShort() async throws {
    try await runGreen {
      let error = #expect(throws: ResolverError.self) {
        try SocketAddress.resolve("localhost\0.example.com", port: 1)
      }
      #expect(error?.isNotFound == true)
    }
  }

  @Test func aResolverThatKnowsNothingIsAnError() async throws {
    try await runGreen {
      Hub.current.resolver = FakeResolver(answer: [])
      let error = #expect(throws: ResolverError.self) {
        try Socket.connect(host: "somewhere", port: 1)
      }
      #expect(error?.isNotFound == true && error?.subject == "somewhere")
    }
  }

  @Test func whoOnlyLooksGetsWhatIsKnownAlready() async throws {
    try await runGreen {
      Hub.current.resolver = SilentResolver()
      #expect(throws: Timeout.self) {
        try SocketAddress.resolve("localhost", port: 1, timeout: .zero)
      }
      #expect(throws: Timeout.self) {
        try SocketAddress.loopbackIPv4(port: 1).lookUpName(timeout: .zero)
      }
      let answer = [SocketAddress.loopbackIPv4(port: 1)]
      Hub.current.resolver = FakeResolver(answer: answer)
      try #expect(SocketAddress.resolve("somewhere", port: 1, timeout: .zero) == answer)
    }
  }

  @Test func addressesHaveNames() async throws {
    try await runGreen {
      let (host, service) = try SocketAddress.loopbackIPv4(port: 7777)
        .lookUpName(timeout: .seconds(20))
      #expect(!host.isEmpty)
      #expect(service == "7777" || !service.isEmpty)
    }
  }

  @Test func theHubsResolverCanBeReplaced() async throws {
    try await runGreen {
      let fake = FakeResolver(answer: [.loopbackIPv4(port: 3)])
      Hub.current.resolver = fake
      try #expect(SocketAddress.resolve("anything", port: 1) == [.loopbackIPv4(port: 3)])
      #expect(fake.asked == ["anything"])
      try #expect(SocketAddress.loopbackIPv4(port: 1).lookUpName().host == "fake.example")
      #expect(Hub.current.resolver === fake)
    }
  }

  @Test func lookUpsRunBesideEachOther() async throws {
    try await runGreen {
      let resolver = ThreadPoolResolver(pool: ThreadPool(maxThreads: 4))
      Hub.current.resolver = resolver
      let lookUps = (0..<50).map { port in
        spawn { try SocketAddress.resolve("localhost", port: UInt16(port), family: .ipv4) }
      }
      for (port, lookUp) in lookUps.enumerated() {
        try #expect(lookUp.get() == [.loopbackIPv4(port: UInt16(port))])
      }
    }
  }

  @Test func aLookUpIsAbandonedByKillAndTimeout() async throws {
    try await runGreen {
      let slow = SlowResolver()
      defer { slow.pool.shutDown() }
      Hub.current.resolver = slow
      let first = spawn { try SocketAddress.resolve("somewhere", port: 1) }
      try wait { slow.state.withLock { $0.begun == 1 } }
      try first.kill()
      #expect(throws: Timeout.self) {
        try SocketAddress.resolve("somewhere", port: 1, timeout: .milliseconds(10))
      }
      let error = socketError {
        _ = try Socket.connect(host: "somewhere", port: 1, timeout: .milliseconds(10))
      }
      #expect(error?.isTimeout == true)
      #expect(error?.description.contains("somewhere:1") == true)
      let victim = spawn { try SocketAddress.resolve("somewhere", port: 1) }
      try idle()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      slow.state.withLock { $0.isOpen = true }
      try #expect(SocketAddress.resolve("somewhere", port: 9) == [.loopbackIPv4(port: 9)])
      // Of those that were abandoned only the one under way was finished.
      let counts = slow.state.withLock { $0 }
      #expect(counts.begun == 2 && counts.ended == 2)
    }
  }
}
