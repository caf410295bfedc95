// Evergreen: a TCP port forwarder that drains: told to stop, it takes no more connections, and ends
// when the last one has; told twice, it ends at once.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct PortForwarder: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "port-forwarder", abstract: "Passes connections on to another host and port.")

  @Option(help: "The address to listen at, or a name for it; '*' is all of this machine's.")
  var host = "127.0.0.1"
  @Option(help: "The port to listen at; 0 picks a free one.") var port: UInt16 = 7777
  @Option(help: ArgumentHelp("Where connections are passed on to.", valueName: "host:port"))
  var to: String

  func run() throws {
    let target = try HostAndPort(parsing: to)
    if target.host.isEmpty { throw ValidationError("--to \(to) names no host") }
    let server = try StreamServer(host: host, port: port) { client, _ in
      let upstream = try Socket.connect(host: target.host, port: target.port)
      defer { upstream.close() }
      let answers = spawn { relay(from: upstream, to: client) }
      relay(from: client, to: upstream)
      try answers.join()
    }
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: nil) {
      print("listening on \(server.address)")
      fflush(nil)  // for whoever reads it through a pipe
    }
  }
}

/// Passes on what `source` sends, then that it sends no more; the other direction goes on. When one
/// side breaks, both are closed.
func relay(from source: Socket, to sink: Socket) {
  do {
    while let chunk = try source.receive(upTo: 64 * 1024) { try sink.sendAll(chunk) }
    try sink.shutdown(.write)
  } catch {
    source.close()
    sink.close()
  }
}

do { try PortForwarder.parse().run() } catch {
  // As `PortForwarder.main()`, but without the usage: one line says what is wrong.
  let code = PortForwarder.exitCode(for: error)
  let text = PortForwarder.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  PortForwarder.exit(withError: code)
}
