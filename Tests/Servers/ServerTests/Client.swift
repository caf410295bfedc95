// Evergreen: what is expected of every client library in greenlets.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenMonkey
import EvergreenTesting
import Glibc
import Testing

/// All suites of this package, one test after the other: descriptors are counted.
@Suite(.serialized) struct Servers {}

/// A connection of a client library, which knows nothing of greenlets.
protocol Client: AnyObject {
  init(port: UInt16) throws
  /// A request for `number`, which the server answers when so many seconds have passed, or when it
  /// is told to by `answer`.
  func ask(_ number: Int, seconds: Int) throws -> String
  /// Asks the server itself how many such requests it has at work.
  func requestsAtServer() throws -> Int
  /// Has the server answer those requests, if they wait for that.
  func answer(_ numbers: [Int]) throws
  /// Whether the library itself says so.
  var isBroken: Bool { get }
  func close()
}

extension Client {
  func answer(_ numbers: [Int]) throws {}
}

/// What a library says about a failure.
struct ClientError: Error, CustomStringConvertible {
  let description: String
  init(_ text: String) { description = text.trimmingSuffix("\n") }
  init(_ text: UnsafePointer<CChar>!) { self.init(String(cString: text)) }
}

extension String {
  fileprivate func trimmingSuffix(_ suffix: String) -> String {
    hasSuffix(suffix) ? String(dropLast(suffix.count)) : self
  }
}

/// The body of a test in greenlets, with all of libc patched.
func runPatched(_ body: @escaping @Sendable () throws -> Void) async throws {
  signal(SIGPIPE, SIG_IGN)  // some client libraries write to connections that have ended
  MonkeyPatch.install(.all)
  try await runGreen(body)
}

func until(_ what: String, _ condition: () throws -> Bool) throws {
  let end = ContinuousClock.now + limit
  while try !condition() {
    guard ContinuousClock.now < end else { throw ServerError(description: "not in time: \(what)") }
    try sleep(for: .milliseconds(10))
  }
}

/// The threads of this process.
private func threadCount() -> Int {
  let status = text(of: "/proc/self/status", last: 10_000)
  let line = status.split(separator: "\n").first { $0.hasPrefix("Threads:") }
  return line.flatMap { Int($0.dropFirst("Threads:".count).filter(\.isNumber)) } ?? 0
}

/// By a connection of its own.
private func askOnce<C: Client>(_: C.Type, _ number: Int, at port: UInt16) throws -> String {
  let client = try C(port: port)
  defer { client.close() }
  return try client.ask(number, seconds: 0)
}

// MARK: What is expected

/// Fifty greenlets of one thread have a request at the server, all at the same time.
func checkFiftyAtOnce<C: Client>(_: C.Type, at port: UInt16, seconds: Int = 2) throws {
  let watcher = try C(port: port)
  defer { watcher.close() }
  let threads = threadCount()
  var connected = 0
  let allAreConnected = Event()
  let askers = (0..<50).map { number in
    spawn {
      let client = try C(port: port)
      defer { client.close() }
      connected += 1
      if connected == 50 { allAreConnected.set() }
      guard try allAreConnected.wait(timeout: limit) else { throw ServerError(description: "late") }
      return try client.ask(number, seconds: seconds)
    }
  }
  var most = 0
  try until("fifty requests at the server") {
    most = max(most, try watcher.requestsAtServer())
    return most >= 50 || askers.contains { $0.error != nil } || askers.allSatisfy(\.isReady)
  }
  #expect(most == 50)
  #expect(threadCount() < threads + 10)
  try watcher.answer(Array(0..<50))
  #expect(try askers.map { try $0.get(timeout: limit) } == (0..<50).map(String.init))
}

/// The server is killed: whoever waits for it gets the library's error, others go on.
func checkDeath<C: Client>(of server: Server, as _: C.Type) throws {
  let watcher = try C(port: server.port)
  // Of those who have gone, which the server may not have seen.
  let already = try watcher.requestsAtServer()
  let askers = (0..<10).map { number in
    spawn {
      let client = try C(port: server.port)
      defer { client.close() }
      #expect(!client.isBroken)
      let error = #expect(throws: ClientError.self) { try client.ask(number, seconds: 600) }
      return (error: error?.description ?? "", isBroken: client.isBroken)
    }
  }
  try until("ten requests at the server") { try watcher.requestsAtServer() == already + 10 }
  watcher.close()
  var ticks = 0
  let ticker = spawn {
    while true {
      try sleep(for: .milliseconds(2))
      ticks += 1
    }
  }
  server.die()
  for asker in askers {
    let end = try asker.get(timeout: limit)
    #expect(end.error != "")
    #expect(end.isBroken)
  }
  #expect(throws: ClientError.self) { try askOnce(C.self, 1, at: server.port) }
  let before = ticks
  try until("others going on") { ticks > before }
  try ticker.kill()

  try server.start()
  #expect(try askOnce(C.self, 7, at: server.port) == "7")
}

/// A kill ends the greenlet that has a request at the server, and the library's call with it.
func checkKill<C: Client>(_: C.Type, at port: UInt16) throws {
  let watcher = try C(port: port)
  defer { watcher.close() }
  let already = try watcher.requestsAtServer()
  var errors: [String] = []
  var isBroken = false
  let others = (0..<3).map { _ in
    spawn {
      let client = try C(port: port)
      defer { client.close() }
      return try client.ask(3, seconds: 3)
    }
  }
  let victim = spawn {
    let client = try C(port: port)
    defer { client.close() }
    do {
      _ = try client.ask(1, seconds: 600)
    } catch {
      errors.append("\(error)")
      isBroken = client.isBroken
      throw error
    }
  }
  try until("four requests at the server") { try watcher.requestsAtServer() == already + 4 }
  var hasEnded = false
  let time = try ContinuousClock().measure { hasEnded = try victim.kill(timeout: limit) }
  #expect(hasEnded)
  #expect(time < .seconds(2))
  #expect(victim.error is GreenletExit)
  #expect(errors.count == 1)
  #expect(errors.first != "")
  #expect(isBroken)
  try watcher.answer([3, 3, 3])
  for other in others { #expect(try other.get(timeout: limit) == "3") }

  let next = spawn { try askOnce(C.self, 5, at: port) }
  #expect(try next.get(timeout: limit) == "5")
}

/// A timeout ends the library's call when it is due; the library says that the connection is broken.
func checkTimeout<C: Client>(_: C.Type, at port: UInt16) throws {
  let client = try C(port: port)
  defer { client.close() }
  #expect(try client.ask(1, seconds: 0) == "1")
  var errors: [String] = []
  let time = ContinuousClock().measure {
    #expect(throws: Timeout.self) {
      try withTimeout(.seconds(1)) {
        do { _ = try client.ask(2, seconds: 600) } catch {
          errors.append("\(error)")
          throw error
        }
      }
    }
  }
  #expect(time >= .seconds(1))
  #expect(time < .seconds(3))
  #expect(errors.count == 1)
  #expect(client.isBroken)

  // The greenlet itself goes on, with a new connection.
  #expect(try askOnce(C.self, 4, at: port) == "4")
}

/// So it is while the library connects, to somebody who never says a word.
func checkTimeoutOfConnect<C: Client>(_: C.Type) throws {
  let silent = try Socket(.ipv4, .stream)
  defer { silent.close() }
  try silent.bind(to: .loopbackIPv4(port: 0))
  try silent.listen()
  let port = try silent.localAddress.port!
  let time = ContinuousClock().measure {
    #expect(throws: Timeout.self) {
      try withTimeout(.milliseconds(500)) {
        let client = try C(port: port)
        defer { client.close() }
        _ = try client.ask(2, seconds: 600)
      }
    }
  }
  #expect(time >= .milliseconds(500))
  #expect(time < .seconds(2))
}
