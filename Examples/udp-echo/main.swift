// Evergreen: an echo server for datagrams.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct UDPEcho: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "udp-echo", abstract: "Sends each datagram back to where it came from.")

  @Option(help: "The address to receive at, or a name for it; '*' is all of this machine's.")
  var host = "127.0.0.1"
  @Option(help: "The port to receive at; 0 picks a free one.") var port: UInt16 = 7777

  func run() throws {
    let server = try DatagramServer(host: host, port: port) { server, bytes, sender in
      try server.send(bytes, to: sender)
    }
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: .seconds(1)) {
      print("listening on \(server.address)")
      fflush(nil)  // for whoever reads it through a pipe
    }
  }
}

do { try UDPEcho.parse().run() } catch {
  // As `UDPEcho.main()`, but without the usage: one line says what is wrong.
  let code = UDPEcho.exitCode(for: error)
  let text = UDPEcho.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  UDPEcho.exit(withError: code)
}
