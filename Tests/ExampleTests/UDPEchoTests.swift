// Evergreen: tests of the echo server for datagrams.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct UDPEchoTests {
  @Test(.timeLimit(.minutes(2)))
  func sendsEachDatagramBackToItsSender() async throws {
    try await runGreen {
      try withExample("udp-echo", "--port", "0") { server in
        let address = try server.address
        let one = try Socket(.ipv4, .datagram)
        let other = try Socket(.ipv4, .datagram)
        defer {
          one.close()
          other.close()
        }
        for socket in [one, other] {
          try socket.bind(to: .loopbackIPv4(port: 0))
          socket.timeout = limit
        }
        // Both ask before either reads, so a mix-up would show.
        for message in [Array("one".utf8), [], pattern(1400), pattern(60_000)] {
          try one.send(message, to: address)
          try other.send([7] + message, to: address)
          let (second, from) = try other.receiveFrom()
          let (first, alsoFrom) = try one.receiveFrom()
          #expect(first == message)
          #expect(second == [7] + message)
          #expect([from, alsoFrom] == [address, address])
        }
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aSenderThatHasGoneDisturbsNobody() async throws {
    try await runGreen {
      try withExample("udp-echo", "--port", "0") { server in
        let address = try server.address
        for _ in 0..<20 {
          let gone = try Socket(.ipv4, .datagram)
          try gone.send([1], to: address)
          gone.close()
        }
        let stays = try Socket(.ipv4, .datagram)
        defer { stays.close() }
        stays.timeout = limit
        try stays.send(Array("here".utf8), to: address)
        #expect(try stays.receiveFrom().bytes == Array("here".utf8))
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }
}
