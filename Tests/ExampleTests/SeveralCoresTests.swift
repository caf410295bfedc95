// Evergreen: tests of the examples with several hubs, and with async code.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct SeveralCoresTests {
  @Test(.timeLimit(.minutes(2)))
  func theEchoServerServesOnSeveralHubs() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0", "--hubs", "4") { server in
        let sockets = try (0..<40).map { _ in try server.connect() }
        defer { for socket in sockets { socket.close() } }
        for (number, socket) in sockets.enumerated() { try socket.sendAll("client \(number)") }
        for (number, socket) in sockets.enumerated() {
          let text = "client \(number)"
          #expect(try socket.receive(text: text) == text)
        }
        #expect(try server.end() == .exit(0))  // although all of them stay
        for socket in sockets { #expect(try socket.receive(upTo: 1) == nil) }
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aSecondSignalEndsSeveralHubsAtOnce() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0", "--hubs", "2") { server in
        let socket = try server.connect()
        defer { socket.close() }
        try socket.sendAll("here")
        #expect(try socket.receive(text: "here") == "here")
        server.send(SIGTERM)
        server.send(SIGINT)
        #expect(try server.waitForEnd() == .exit(0))
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func theKernelSpreadsTheClients() async throws {
    try await runGreen {
      let child = try run(
        "multi-core-echo", ["--hubs", "2", "--clients", "64", "--messages", "10"])
      #expect(child.ending == .exit(0))
      #expect(child.errorLines == [])
      #expect(child.lines.count == 4)
      let clients = child.lines.dropFirst().prefix(2).map { Int($0.split(separator: " ")[2])! }
      #expect(clients.reduce(0, +) == 64)
      #expect(clients.allSatisfy { $0 > 0 }, "\(child.lines)")
      #expect(child.lines.last?.hasPrefix("640 echoes in ") == true)
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func greenletsAndAsyncCodeWorkTogether() async throws {
    try await runGreen {
      let child = try run("mixed-async", ["--requests", "20"])
      #expect(child.errorLines == [])
      #expect(
        child.lines == [
          // 20 times 500; a server's connection is not of the request, whose number is 1 to 20.
          "20 prices, 10000 in all; with the numbers of the requests 10210",
          "words: greenlets and tasks; squares: 1 4 9 16",
          "an hour of async sleep was cancelled in time",
        ])
      #expect(child.ending == .exit(0))
    }
  }
}
