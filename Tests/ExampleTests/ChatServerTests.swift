// Evergreen: tests of the chat.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct ChatServerTests {
  @Test(.timeLimit(.minutes(2)))
  func threeTalk() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        #expect(try ann.hear() == "* ann has joined")
        let bob = try Guest("bob", in: server)
        let eve = try Guest("eve", in: server)
        for line in ["* bob has joined", "* eve has joined"] {
          for guest in [ann, bob] { #expect(try guest.hear() == line) }
        }
        #expect(try eve.hear() == "* eve has joined")
        let all = [ann, bob, eve]

        try ann.say("hello, there")
        for guest in all { #expect(try guest.hear() == "ann: hello, there") }
        try eve.say("")  // nothing to be told to anybody
        try eve.say("how do you do\r")
        for guest in all { #expect(try guest.hear() == "eve: how do you do") }

        try bob.say("/who")
        #expect(try bob.hear() == "* ann, bob, eve")  // he alone: the others hear what follows
        try eve.say("/quit")
        for guest in [ann, bob] { #expect(try guest.hear() == "* eve has left") }
        #expect(try eve.hear() == nil)

        ann.socket.close()
        #expect(try bob.hear() == "* ann has left")
        try bob.say("/who")
        #expect(try bob.hear() == "* bob")
        bob.socket.close()
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aNameMustBeFreeAndUsable() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        #expect(try ann.hear() == "* ann has joined")
        let other = try Guest(nil, in: server)
        for name in ["ann", "", "two words", "\u{1b}[2J", String(repeating: "x", count: 21)] {
          try other.say(name)
          #expect(try other.prompt() == "your name")
        }
        try other.say("Zoë")
        #expect(try other.hear() == "* Zoë has joined")
        #expect(try ann.hear() == "* Zoë has joined")
        // The name is free again when its guest has left; one who gives none never was there.
        other.socket.close()
        #expect(try ann.hear() == "* Zoë has left")
        try Guest(nil, in: server).socket.close()
        let second = try Guest("Zoë", in: server)
        #expect(try second.hear() == "* Zoë has joined")
        #expect(try ann.hear() == "* Zoë has joined")
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func whatIsSaidBeforeLeavingIsAnswered() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        for farewell in ["/quit\n", ""] {
          let ann = try Guest(nil, in: server)
          try ann.socket.sendAll("ann\nhello\n/who\n" + farewell)
          try ann.socket.shutdown(.write)
          for line in ["* ann has joined", "ann: hello", "* ann", nil] {
            #expect(try ann.hear() == line)
          }
        }
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func manyLinesAtOnceReachWhoReads() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        #expect(try ann.hear() == "* ann has joined")
        let bob = try Guest("bob", in: server)
        for guest in [ann, bob] { #expect(try guest.hear() == "* bob has joined") }
        let sender = spawn {
          try ann.socket.sendAll((0..<5000).map { "line \($0)\n" }.joined())
        }
        let readers = [ann, bob].map { guest in
          spawn { try (0..<5000).allSatisfy { try guest.hear() == "ann: line \($0)" } }
        }
        for reader in readers { #expect(try reader.get()) }
        try sender.get()
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func whoDoesNotReadStallsNobodyAndIsShownTheDoor() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        let bob = try Guest("bob", in: server)
        let slow = try Guest("slow", in: server, receiveBuffer: 4096)
        for guest in [ann, bob] { while try guest.hear() != "* slow has joined" {} }

        // Ann never has more than a batch on its way, so neither she nor Bob is ever behind.
        let line = String(repeating: "x", count: 900)
        let batch = String(repeating: line + "\n", count: 50)
        var sent = 0
        var told = Set<String>()
        while told.count < 2 {
          guard sent < 100 << 20 else { throw TooLate(description: "slow is still there") }
          try ann.socket.sendAll(batch)
          sent += batch.utf8.count
          for (name, guest) in [("ann", ann), ("bob", bob)] {
            var heard = 0
            while heard < 50 {
              switch try guest.hear() {
              case "ann: \(line)": heard += 1
              case "* slow has left": told.insert(name)
              case let other: throw TooLate(description: "\(name) heard \(other ?? "the end")")
              }
            }
          }
        }
        // Not before it was a thousand lines behind.
        #expect(sent > 1000 * 901)
        #expect(try slow.hear() == "* slow has joined")
        do { while try slow.hear() != nil {} } catch let error as SocketError {
          #expect(error.isPeerGone)
        }
        try bob.say("/who")
        #expect(try bob.hear() == "* ann, bob")
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aLineWithoutAnEndIsTheEndOfItsGuestAlone() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        #expect(try ann.hear() == "* ann has joined")
        let bob = try Guest("bob", in: server)
        for line in ["* bob has joined", "* bob has left"] {
          #expect(try ann.hear() == line)
          if line.hasSuffix("joined") { try bob.say(String(repeating: "x", count: 5000)) }
        }
        let unnamed = try Guest(nil, in: server)
        try unnamed.say(String(repeating: "x", count: 5000))
        try ann.say("still here")
        #expect(try ann.hear() == "ann: still here")
        #expect(try server.end() == .exit(0))
        #expect(server.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func endsWithGuests() async throws {
    try await runGreen {
      try withExample("chat-server", "--port", "0") { server in
        let ann = try Guest("ann", in: server)
        #expect(try ann.hear() == "* ann has joined")
        let unnamed = try Guest(nil, in: server)
        #expect(try server.end() == .exit(0))
        #expect(try ann.hear() == nil)
        #expect(try unnamed.hear() == nil)
        #expect(server.errorLines == [])
      }
    }
  }
}

/// A client of the chat.
private final class Guest {
  let socket: Socket
  private let stream: BufferedStream

  init(_ name: String?, in server: Child, receiveBuffer: Int? = nil) throws {
    socket = try Socket(.ipv4)
    socket.timeout = limit
    if let receiveBuffer { try socket.set(.receiveBufferSize, receiveBuffer) }
    try socket.connect(to: server.address)
    stream = BufferedStream(socket)
    #expect(try prompt() == "your name")
    if let name { try say(name) }
  }

  func prompt() throws -> String? {
    try stream.read(until: Array("? ".utf8)).map { String(decoding: $0, as: UTF8.self) }
  }

  func say(_ line: String) throws { try socket.sendAll(line + "\n") }

  /// The next line; `nil` at the end.
  func hear() throws -> String? { try stream.readLine() }
}
