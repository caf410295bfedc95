// Evergreen: a console into a running program.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenSync
import Greenlets

/// Answers questions about the hub that it runs on, from a Unix socket or a port of this machine: who is
/// there, what each greenlet waits for and where it is, what the hub has done. It can kill a greenlet.
///
/// ```swift
/// let backdoor = try Backdoor(path: "/run/my-service.sock")
/// ```
/// ```
/// $ nc -U /run/my-service.sock
/// ```
///
/// It listens until it is closed or goes. Whoever can connect can do all of that: a Unix socket is made
/// for its owner alone, and an address that other machines can reach is refused.
///
/// > gevent: `gevent.backdoor.BackdoorServer`, a Python console; what Swift cannot do, evaluate code that
/// > is typed in, takes the place of commands: those that are here and those that the program adds.
public final class Backdoor {
  private let server: StreamServer
  private let console: Console

  /// Listens on a Unix socket, which is its owner's alone.
  ///
  /// - Parameter path: Where the socket is made. It must not exist.
  /// - Throws: ``SocketAddressError`` or ``SocketError`` that names the path.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init(path: String) throws { try self.init("unix:\(path)") }

  /// Listens at a Unix socket or an address of this machine.
  ///
  /// - Parameter address: `127.0.0.1:9000`, `[::1]:9000`, `unix:/run/x.sock`; port 0 picks a free one.
  /// - Throws: ``SocketAddressError`` or ``SocketError`` that names the address; ``BackdoorRefused`` if
  ///   other machines could reach it.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public init(_ address: String) throws {
    let address = try SocketAddress(parsing: address)
    guard address.isUnix || address.isLoopback else { throw BackdoorRefused(address: address) }
    let console = Console(of: Hub.current)
    self.console = console
    let listener = try Socket.listen(on: address, permissions: 0o600)
    server = try StreamServer(listener, file: SocketFile(at: address), maxConnections: 8) {
      socket, _ in try console.serve(socket)
    }
    try server.start()
  }

  /// Where it listens, with the port that the system picked if it was asked for port 0.
  public var address: SocketAddress { server.address }

  /// Adds a command, or replaces one.
  ///
  /// - Parameters:
  ///   - name: One word, without regard to case.
  ///   - help: What it does, for the list of commands.
  ///   - body: Gets the words behind its name, and returns what is printed. It may wait; an error is
  ///     printed.
  public func add(
    _ name: String, _ help: String, _ body: @escaping (_ words: [String]) throws -> String
  ) {
    console.add(name, help, body)
  }

  /// Ends it, and the sessions.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func close() throws { try server.stop(timeout: .zero) }
}

/// Other machines could reach the address of a ``Backdoor``.
public struct BackdoorRefused: Error, Hashable, Sendable, CustomStringConvertible {
  public let address: SocketAddress

  public var description: String {
    "a backdoor at \(address) would be open to other machines; use 127.0.0.1, [::1] or a Unix socket"
  }
}

private final class Console {
  private struct Command {
    let help: String
    let run: (_ words: [String]) throws -> String
  }

  private unowned let hub: Hub
  private var commands: [String: Command] = [:]
  private var log: SwitchLog?

  init(of hub: Hub) {
    self.hub = hub
    add("help", "lists the commands") { [unowned self] _ in help() }
    add("list", "the greenlets, and what they wait for") { _ in hub.report() }
    add("tree", "the same, below those who spawned them") { _ in
      hub.greenletTrees.map(\.description).joined(separator: "\n")
    }
    add("stack", "ID: where that greenlet is") { [unowned self] words in
      let greenlet = try greenlet(words)
      let stack = greenlet.stack
      return ([greenlet.description] + (stack.isEmpty ? ["has not run yet"] : stack))
        .joined(separator: "\n  ")
    }
    add("kill", "ID: ends that greenlet") { [unowned self] words in
      let victim = try greenlet(words)
      guard victim !== hub.main else {
        throw Misuse("the main greenlet cannot be killed from here")
      }
      let name = victim.description
      try victim.kill(waiting: false)
      return "\(name) gets a GreenletExit where it waits"
    }
    add("metrics", "figures about the hub") { _ in hub.metrics.description }
    add("trace", "on, off, show: the latest 1,000 switches") { [unowned self] in try trace($0) }
  }

  func add(_ name: String, _ help: String, _ run: @escaping ([String]) throws -> String) {
    commands[name.lowercased()] = Command(help: help, run: run)
  }

  func serve(_ socket: Socket) throws {
    let stream = BufferedStream(socket)
    try stream.writeAll(
      "evergreen: \(hub.metrics.greenlets) greenlets; `help` lists the commands\n> ")
    try stream.flush()
    while let line = try stream.readLine() {
      let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
      if words == ["quit"] { return }
      try stream.writeAll(words.isEmpty ? "> " : answer(words) + "\n> ")
      try stream.flush(timeout: .seconds(10))
    }
  }

  private func answer(_ words: [String]) throws -> String {
    guard let command = commands[words[0].lowercased()] else {
      return "there is no command \(words[0]); `help` lists those that there are"
    }
    do {
      return try command.run(Array(words.dropFirst()))
    } catch let error as GreenletExit {
      throw error  // this session's own
    } catch {
      return "\(error)"
    }
  }

  private func help() -> String {
    (commands.map { ($0.key, $0.value.help) } + [("quit", "ends this session")])
      .sorted { $0.0 < $1.0 }.map { "\($0.0): \($0.1)" }.joined(separator: "\n")
  }

  private func greenlet(_ words: [String]) throws -> AnyGreenlet {
    guard words.count == 1, let id = Int(words[0]) else {
      throw Misuse("give the number of one greenlet, as `list` shows it")
    }
    guard let greenlet = hub.greenlets.first(where: { $0.id == id }) else {
      throw Misuse("there is no greenlet \(id)")
    }
    return greenlet
  }

  private func trace(_ words: [String]) throws -> String {
    switch words {
    case ["on"]:
      log = SwitchLog(last: 1_000)
      return "switches are noted"
    case ["off"]:
      log?.stop()
      return "switches are noted no more"
    case ["show"]:
      guard let log else { throw Misuse("`trace on` comes first") }
      var before = log.events.first?.time ?? .zero
      return log.events.map { event in
        defer { before = event.time }
        return "+\(event.time - before) \(event)"
      }.joined(separator: "\n")
    default: throw Misuse("trace on, trace off, or trace show")
    }
  }

  private struct Misuse: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }
}
