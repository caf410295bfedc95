// Evergreen: an echo server. One thread, a greenlet per connection, code that reads as blocking.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct EchoServer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "echo-server", abstract: "Sends back whatever each client sends.")

  @Option(help: "The address to listen at.") var host = "127.0.0.1"
  @Option(help: "The port to listen at; 0 picks a free one.") var port: UInt16 = 7777

  func run() throws {
    let server = try StreamServer(HostAndPort(host, port: port).description) { socket, _ in
      while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
    }
    try server.start()
    print("listening on \(server.address)")
    fflush(nil)  // for whoever reads it through a pipe
    try Hub.current.onSignal(SIGTERM) { try server.stop() }
    try server.serveForever()
  }
}

EchoServer.main()
