// Evergreen: an echo server with a hub for each core, and clients for it.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct MultiCoreEcho: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "multi-core-echo",
    abstract: "Serves on several cores at one port, and shows how the kernel spreads the clients.")

  @Option(help: "How many hubs serve; 0 for as many as there are cores.") var hubs = 0
  @Option(help: "How many clients there are.") var clients = 100
  @Option(help: "How many messages each client sends.") var messages = 100

  func validate() throws {
    guard (0...1024).contains(hubs) else {
      throw ValidationError("--hubs must be between 0 and 1024, not \(hubs)")
    }
    for (name, value) in [("clients", clients), ("messages", messages)]
    where !(1...1_000_000).contains(value) {
      throw ValidationError("--\(name) must be between 1 and 1000000, not \(value)")
    }
  }

  func run() throws {
    let count = hubs == 0 ? HubGroup.coreCount : hubs
    // Each handler says on which hub it has served, and how much: a message to this hub.
    let served = Inbox<(hub: Int, echoes: Int)>()
    let sender = served.sender
    let server = try StreamServerGroup("127.0.0.1:0", hubs: count) { socket, _ in
      var echoes = 0
      while let chunk = try socket.receive(upTo: 64 * 1024) {
        try socket.sendAll(chunk)
        echoes += 1
      }
      try sender.send((HubGroup.currentNumber!, echoes))
    }
    try server.start()
    print("listening on \(server.address), \(count) hubs")
    let address = server.address
    let time = try ContinuousClock().measure {
      try joinAll((0..<clients).map { _ in spawn { try talk(to: address) } }, raisingErrors: true)
    }
    var totals = Array(repeating: (clients: 0, echoes: 0), count: count)
    for _ in 0..<clients {
      let (hub, echoes) = try served.get()
      totals[hub].clients += 1
      totals[hub].echoes += echoes
    }
    try server.stop()
    for (hub, total) in totals.enumerated() {
      print("hub \(hub): \(total.clients) clients, \(total.echoes) echoes")
    }
    print("\(clients * messages) echoes in \(time)")
  }

  func talk(to address: SocketAddress) throws {
    let socket = try Socket.connect(to: address)
    defer { socket.close() }
    for number in 0..<messages {
      let message = "message \(number)"
      try socket.sendAll(message)
      guard try socket.receive(exactly: message.utf8.count) == Array(message.utf8) else {
        throw ValidationError("\(address) sent back something else")
      }
    }
  }
}

do { try MultiCoreEcho.parse().run() } catch {
  // As `MultiCoreEcho.main()`, but without the usage: one line says what is wrong.
  let code = MultiCoreEcho.exitCode(for: error)
  let text = MultiCoreEcho.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  MultiCoreEcho.exit(withError: code)
}
