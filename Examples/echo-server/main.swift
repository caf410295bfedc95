// Evergreen: an echo server. A greenlet per connection, code that reads as blocking, on one core or several.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct EchoServer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "echo-server", abstract: "Sends back whatever each client sends.")

  @Option(help: "The address to listen at, or a name for it; '*' is all of this machine's.")
  var host = "127.0.0.1"
  @Option(help: "The port to listen at; 0 picks a free one.") var port: UInt16 = 7777
  @Option(help: "How many hubs serve, each on a thread of its own.") var hubs = 1

  func validate() throws {
    guard (1...1024).contains(hubs) else {
      throw ValidationError("--hubs must be between 1 and 1024, not \(hubs)")
    }
  }

  func run() throws {
    if hubs > 1 { return try runOnSeveralHubs() }
    let server = try StreamServer(host: host, port: port, echo)
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: .seconds(1)) {
      say(server.address)
    }
  }

  func runOnSeveralHubs() throws {
    let server = try StreamServerGroup(host: host, port: port, hubs: hubs, echo)
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: .seconds(1)) {
      say(server.address)
    }
  }

  func say(_ address: SocketAddress) {
    print("listening on \(address)")
    fflush(nil)  // for whoever reads it through a pipe
  }
}

@Sendable func echo(_ socket: Socket, _ peer: SocketAddress) throws {
  while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
}

do { try EchoServer.parse().run() } catch {
  // As `EchoServer.main()`, but without the usage: one line says what is wrong.
  let code = EchoServer.exitCode(for: error)
  let text = EchoServer.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  EchoServer.exit(withError: code)
}
