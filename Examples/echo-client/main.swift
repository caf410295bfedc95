// Evergreen: many clients of an echo server at once, each a greenlet that reads as blocking.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct EchoClient: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "echo-client", abstract: "Sends messages to an echo server and checks each echo.")

  @Option(help: "The server's address or name.") var host = "127.0.0.1"
  @Option(help: "The server's port.") var port: UInt16 = 7777
  @Option(help: "How many clients connect.") var connections = 10
  @Option(help: "How many messages each client sends.") var messages = 100
  @Option(help: "How many bytes each message has.") var size = 64

  func validate() throws {
    for (name, value) in [("connections", connections), ("messages", messages), ("size", size)]
    where !(1...1_000_000_000).contains(value) {
      throw ValidationError("--\(name) must be between 1 and 1000000000, not \(value)")
    }
  }

  func run() throws {
    Hub.current.onError = { _, _ in }  // the first error ends the program, which tells it then
    let time = try ContinuousClock().measure {
      let clients = (0..<connections).map { client in spawn { try talk(as: client) } }
      try joinAll(clients, raisingErrors: true)
    }
    print("\(connections) clients got \(messages) echoes of \(size) bytes each, all in \(time)")
  }

  func talk(as client: Int) throws {
    let socket = try Socket.connect(host: host, port: port)
    defer { socket.close() }
    for round in 0..<messages {
      let message = [UInt8](repeating: UInt8(truncatingIfNeeded: client + round), count: size)
      spawn { try socket.sendAll(message) }  // beside the reading, for one too large for the kernel
      guard try socket.receive(exactly: size) == message else { throw WrongEcho(from: host) }
    }
  }
}

struct WrongEcho: Error, CustomStringConvertible {
  let description: String

  init(from host: String) { description = "\(host) sent back something else" }
}

do { try EchoClient.parse().run() } catch {
  // As `EchoClient.main()`, but without the usage: one line says what is wrong.
  let code = EchoClient.exitCode(for: error)
  let text = EchoClient.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  EchoClient.exit(withError: code)
}
