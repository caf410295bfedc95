// Evergreen: tests of the echo server.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct EchoServerTests {
  @Test(.timeLimit(.minutes(2)))
  func sendsBackWhatComesUntilTheClientEnds() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let socket = try server.connect()
        defer { socket.close() }
        for text in ["hello", "\0", "again and again"] {
          try socket.sendAll(text)
          #expect(try socket.receive(text: text) == text)
        }
        try socket.sendAll("last words")
        try socket.shutdown(.write)
        #expect(try socket.receiveAll() == Array("last words".utf8))
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func sendsBackMoreThanTheKernelHolds() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let socket = try server.connect()
        defer { socket.close() }
        let bytes = pattern(16 << 20)
        let sender = spawn {
          try socket.sendAll(bytes)
          try socket.shutdown(.write)
        }
        let isSame = try socket.receiveAll() == bytes  // too much to be printed
        #expect(isSame)
        try sender.get()
        #expect(try server.end() == .exit(0))
      }
    }
  }

  @Test(.timeLimit(.minutes(3)))
  func holdsAThousandConnectionsAtOnce() async throws {
    try await runGreen {
      raiseDescriptorLimit()
      try withExample("echo-server", "--port", "0") { server in
        let address = try server.address
        let pool = Pool(size: 100)  // connecting at a time
        var sockets: [Socket] = []
        for _ in 0..<1000 {
          try pool.spawn {
            let socket = try Socket.connect(to: address, timeout: limit)
            socket.timeout = limit
            sockets.append(socket)
          }
        }
        try pool.join()
        defer { for socket in sockets { socket.close() } }
        #expect(sockets.count == 1000)
        // All of them are served while all of them are open: the last first.
        for (number, socket) in sockets.enumerated().reversed() {
          let text = "message of client \(number)"
          try socket.sendAll(text)
          #expect(try socket.receive(text: text) == text)
        }
        for (number, socket) in sockets.enumerated() { try socket.sendAll("\(number)\n") }
        for (number, socket) in sockets.enumerated() {
          #expect(try socket.receive(text: "\(number)\n") == "\(number)\n")
        }
        for socket in sockets { socket.close() }
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func endsAlthoughAClientStays() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let socket = try server.connect()
        defer { socket.close() }
        try socket.sendAll("here")
        #expect(try socket.receive(text: "here") == "here")
        #expect(try server.end() == .exit(0))
        #expect(try socket.receive(upTo: 1) == nil)
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aClientThatResetsDisturbsNobody() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let stays = try server.connect()
        defer { stays.close() }
        for _ in 0..<10 {
          let leaves = try server.connect()
          try leaves.set(.linger, .seconds(0))
          try leaves.sendAll("x")
          leaves.close()
        }
        try stays.sendAll("still here")
        #expect(try stays.receive(text: "still here") == "still here")
        stays.close()
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }
}

@Suite struct EchoClientTests {
  @Test(.timeLimit(.minutes(2)))
  func checksEveryEcho() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let port = "\(try server.address.port!)"
        let client = try run(
          "echo-client",
          ["--port", port, "--connections", "50", "--messages", "20", "--size", "1000"])
        #expect(client.ending == .exit(0))
        #expect(client.errorLines == [])
        #expect(client.lines.count == 1)
        #expect(
          client.lines.first?.hasPrefix("50 clients got 20 echoes of 1000 bytes each") == true)
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func messagesMayBeLargerThanTheKernelHolds() async throws {
    try await runGreen {
      try withExample("echo-server", "--port", "0") { server in
        let port = "\(try server.address.port!)"
        let client = try run(
          "echo-client",
          ["--port", port, "--connections", "2", "--messages", "2", "--size", "12000000"])
        #expect(client.ending == .exit(0))
        #expect(client.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func saysWhenNobodyListens() async throws {
    try await runGreen {
      let holder = try Socket(.ipv4)  // bound, but not listening: nobody else gets the port
      defer { holder.close() }
      try holder.bind(to: .loopbackIPv4(port: 0))
      let address = try holder.localAddress
      let client = try run("echo-client", ["--port", "\(address.port!)"])
      #expect(client.ending != .exit(0))
      #expect(client.lines == [])
      #expect(client.errorLines == ["connect \(address): Connection refused"])
    }
  }

  @Test(.timeLimit(.minutes(2)), arguments: ["wrong", "short"])
  func saysWhenAnEchoIsWrong(how: String) async throws {
    try await runGreen {
      let server = try StreamServer("127.0.0.1:0") { socket, _ in
        let message = try socket.receive(exactly: 64)
        try socket.sendAll(how == "wrong" ? message.map { $0 &+ 1 } : Array(message.prefix(10)))
      }
      try server.start()
      let client = try run("echo-client", ["--port", "\(server.address.port!)"])
      try server.stop(timeout: .zero)
      #expect(client.ending != .exit(0))
      #expect(client.lines == [])
      let complaint = [
        "wrong": "127.0.0.1 sent back something else",
        "short": "the stream ended after 10 of 64 bytes",
      ]
      #expect(client.errorLines == [complaint[how]!])
    }
  }
}

/// A thousand connections and what the other tests have open.
private func raiseDescriptorLimit() {
  var limits = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits)
  limits.rlim_cur = max(limits.rlim_cur, min(limits.rlim_max, 4096))
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits)
}
