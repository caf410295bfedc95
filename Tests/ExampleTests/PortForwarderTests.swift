// Evergreen: tests of the port forwarder.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct PortForwarderTests {
  @Test(.timeLimit(.minutes(2)))
  func theClientMayEndItsHalfFirst() async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        try client.sendAll("question")
        try client.shutdown(.write)
        #expect(try server.receiveAll() == Array("question".utf8))
        for text in ["first answer", "second answer"] {
          try server.sendAll(text)
          #expect(try client.receive(text: text) == text)
        }
        try server.shutdown(.write)
        #expect(try client.receive(upTo: 1) == nil)
        #expect(try forwarder.end() == .exit(0))
        #expect(forwarder.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func theServerMayEndItsHalfFirst() async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        try server.sendAll("greeting")
        try server.shutdown(.write)
        #expect(try client.receiveAll() == Array("greeting".utf8))
        for text in ["first request", "second request"] {
          try client.sendAll(text)
          #expect(try server.receive(text: text) == text)
        }
        client.close()
        #expect(try server.receive(upTo: 1) == nil)
        #expect(try forwarder.end() == .exit(0))
        #expect(forwarder.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func muchGoesBothWaysAtOnce() async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        let question = pattern(8 << 20, seed: 1)
        let answer = pattern(8 << 20, seed: 2)
        for (socket, bytes) in [(client, question), (server, answer)] {
          spawn {
            try socket.sendAll(bytes)
            try socket.shutdown(.write)
          }
        }
        let received = spawn { try server.receiveAll() }
        let isAnswer = try client.receiveAll() == answer
        let isQuestion = try received.get() == question
        #expect(isAnswer)
        #expect(isQuestion)
      }
    }
  }

  @Test(.timeLimit(.minutes(2)), arguments: ["client", "server"])
  func whenOneSideBreaksTheOtherIsClosed(side: String) async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        try client.sendAll("connected")
        #expect(try server.receive(text: "connected") == "connected")
        let (breaks, stays) = side == "client" ? (client, server) : (server, client)
        try breaks.set(.linger, .seconds(0))
        breaks.close()
        do {
          #expect(try stays.receive(upTo: 1) == nil)
        } catch let error as SocketError {
          #expect(error.isPeerGone)
        }
        // Neither half is left: it can end, and has nothing to say.
        #expect(try forwarder.end() == .exit(0))
        #expect(forwarder.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func drainsWhenTold() async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        let (halfClient, halfServer) = try connectPair(forwarder, upstream)
        try halfClient.shutdown(.write)
        #expect(try halfServer.receive(upTo: 1) == nil)

        forwarder.send(SIGTERM)
        spawn { while let probe = try? upstream.accept() { probe.socket.close() } }
        try waitUntilRefused(forwarder)
        for text in ["one", "two", "three"] {
          try client.sendAll(text)
          #expect(try server.receive(text: text) == text)
          try server.sendAll(text)
          #expect(try client.receive(text: text) == text)
        }
        try halfServer.sendAll("late answer")
        halfServer.close()
        #expect(try halfClient.receiveAll() == Array("late answer".utf8))

        // Longer than the second that a server is patient unless it is told otherwise.
        #expect(try !client.waitReadable(timeout: .milliseconds(1500)))
        try client.shutdown(.write)
        #expect(try server.receive(upTo: 1) == nil)
        try server.sendAll("the end")
        #expect(try client.receive(text: "the end") == "the end")
        #expect(forwarder.ending == nil)
        server.close()
        #expect(try forwarder.waitForEnd() == .exit(0))
        #expect(forwarder.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func toldTwiceItEndsAtOnce() async throws {
    try await runGreen {
      try withForwarder { forwarder, upstream in
        let (client, server) = try connectPair(forwarder, upstream)
        forwarder.send(SIGTERM)
        spawn { while let probe = try? upstream.accept() { probe.socket.close() } }
        try waitUntilRefused(forwarder)
        try client.sendAll("still here")
        #expect(try server.receive(text: "still here") == "still here")
        #expect(try forwarder.end(by: SIGINT) == .exit(0))
        #expect(try client.receive(upTo: 1) == nil)
        #expect(forwarder.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func goesOnWhenTheTargetIsAway() async throws {
    try await runGreen {
      let target = try Socket(.ipv4)
      defer { target.close() }
      try target.bind(to: .loopbackIPv4(port: 0))
      let address = try target.localAddress
      try withExample("port-forwarder", "--port", "0", "--to", "\(address)") { forwarder in
        let early = try forwarder.connect()
        defer { early.close() }
        #expect(try early.receive(upTo: 1) == nil)
        let complaint = try forwarder.errorLine(0)
        #expect(complaint.hasSuffix("failed: connect \(address): Connection refused"))

        try target.listen()
        let (client, server) = try connectPair(forwarder, target)
        try client.sendAll("now")
        #expect(try server.receive(text: "now") == "now")
        client.close()
        server.close()
        #expect(try forwarder.end() == .exit(0))
        #expect(forwarder.errorLines.count == 1)
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func forwardsToAName() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0", "--host", "localhost") { echo in
        let target = "localhost:\(try echo.address.port!)"
        try withExample("port-forwarder", "--port", "0", "--to", target) { forwarder in
          let client = try run("echo-client", ["--port", "\(try forwarder.address.port!)"])
          #expect(client.ending == .exit(0))
          #expect(client.errorLines == [])
          #expect(try forwarder.end() == .exit(0))
        }
      }
    }
  }
}

private func withForwarder(_ body: (_ forwarder: Child, _ upstream: Socket) throws -> Void) throws {
  let upstream = try Socket.listen(on: .loopbackIPv4(port: 0))
  defer { upstream.close() }
  upstream.timeout = limit
  try withExample("port-forwarder", "--port", "0", "--to", "\(upstream.localAddress)") {
    try body($0, upstream)
  }
}

/// A client and the server to which the forwarder has connected it.
private func connectPair(_ forwarder: Child, _ upstream: Socket) throws -> (Socket, Socket) {
  let client = try forwarder.connect()
  let server = try upstream.accept(timeout: limit).socket
  server.timeout = limit
  return (client, server)
}

/// The signal arrives when it arrives; then the listener closes at once. Who waited to be accepted
/// at that moment is reset; all who come later are refused.
private func waitUntilRefused(_ server: Child) throws {
  try withTimeout(limit) {
    while true {
      do { try server.connect().close() } catch let error as SocketError {
        if error.errno == .connectionRefused { return }
        guard error.isPeerGone else { throw error }
      }
    }
  }
}
