// Evergreen: an echo server. One thread, a greenlet per connection, code that reads as blocking.
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

  func run() throws {
    let server = try StreamServer(host: host, port: port) { socket, _ in
      while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
    }
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: .seconds(1)) {
      print("listening on \(server.address)")
      fflush(nil)  // for whoever reads it through a pipe
    }
  }
}

do { try EchoServer.parse().run() } catch {
  // As `EchoServer.main()`, but without the usage: one line says what is wrong.
  let code = EchoServer.exitCode(for: error)
  let text = EchoServer.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  EchoServer.exit(withError: code)
}
