// Evergreen: greenlets and async code together, in both directions.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

/// What flows from a request into all that is done for it, as log metadata and traces do.
enum Request {
  @TaskLocal static var id = 0
}

/// A library as there are many for Swift: asynchronous, an actor, on Swift's threads.
actor Prices {
  private var asked = 0

  func price(of thing: String) async throws -> Int {
    asked += 1
    try await Task.sleep(for: .milliseconds(1))
    return thing.utf8.count * 100 + Request.id
  }

  func count() -> Int { asked }
}

/// State that lives on the hub: greenlets use it without waiting, async code awaits it.
actor Ledger {
  private let hub: HubExecutor
  private(set) var total = 0

  init(on hub: HubExecutor) { self.hub = hub }

  nonisolated var unownedExecutor: UnownedSerialExecutor { hub.serial.asUnownedSerialExecutor() }

  func enter(_ amount: Int) { total += amount }
}

struct MixedAsync: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mixed-async", abstract: "Greenlets call async code, and async code greenlets.")

  @Option(help: "How many requests are made at once.") var requests = 20

  func validate() throws {
    guard (1...10_000).contains(requests) else {
      throw ValidationError("--requests must be between 1 and 10000, not \(requests)")
    }
  }

  func run() throws {
    let hub = Hub.current
    let executor = hub.executor
    let prices = Prices()
    let ledger = Ledger(on: executor)

    // A green server, each of whose connections awaits the asynchronous library.
    let server = try StreamServer("127.0.0.1:0") { socket, _ in
      let stream = BufferedStream(socket)
      while let line = try stream.readLine() {
        let price = try hub.await { try await prices.price(of: line) }
        ledger.assumeIsolated { $0.enter(price) }
        try stream.writeAll("\(price)\n")
        try stream.flush()
      }
    }
    try server.start()
    let address = server.address

    // Async code, which asks the server with green calls, all at once.
    let sum = try hub.await { [requests] in
      try await withThrowingTaskGroup(of: Int.self) { group in
        for number in 1...requests {
          group.addTask {
            try await Request.$id.withValue(number) {
              try await executor.run { try ask(address, "thing") + Request.id }
            }
          }
        }
        return try await group.reduce(0, +)
      }
    }
    let asked = try hub.await { await prices.count() }
    let total = try hub.await { await ledger.total }
    print("\(asked) prices, \(total) in all; with the numbers of the requests \(sum)")

    // Items of greenlets for async code, and items of async code for greenlets.
    let words = Queue<String>(capacity: 2)
    let stream = hub.stream(from: words)
    spawn {
      for word in ["greenlets", "and", "tasks"] { try words.put(word) }
      words.shutDown()
    }
    let text = try hub.await { try await stream.reduce("") { $0 + " " + $1 } }
    let squares = Queue(
      from: AsyncStream { continuation in
        for number in 1...4 { continuation.yield(number * number) }
        continuation.finish()
      })
    print("words:\(text); squares:", squares.map(String.init).joined(separator: " "))

    // A time limit of greenlets ends async code.
    do {
      try withTimeout(.milliseconds(20)) {
        try hub.await { try await Task.sleep(for: .seconds(3600)) }
      }
    } catch is Timeout {
      print("an hour of async sleep was cancelled in time")
    }
    try server.stop()
  }
}

func ask(_ address: SocketAddress, _ thing: String) throws -> Int {
  let socket = try Socket.connect(to: address)
  defer { socket.close() }
  let stream = BufferedStream(socket)
  try stream.writeAll(thing + "\n")
  try stream.flush()
  return Int(try stream.readLine() ?? "") ?? -1
}

do { try MixedAsync.parse().run() } catch {
  // As `MixedAsync.main()`, but without the usage: one line says what is wrong.
  let code = MixedAsync.exitCode(for: error)
  let text = MixedAsync.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  MixedAsync.exit(withError: code)
}
