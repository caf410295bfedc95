// Evergreen: the echo server that is measured against its peers, one greenlet per connection.
// SPDX-License-Identifier: MIT

import Evergreen
import Glibc

let port = CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "0"
let server = try StreamServer("127.0.0.1:\(port)") { socket, peer in
  while let chunk = try socket.receive(upTo: 64 * 1024) { try socket.sendAll(chunk) }
}
try server.start()
print("listening on \(server.address)")
fflush(nil)  // into a pipe, print would keep it
try server.serveForever()
