// Evergreen: a chat. Nothing here is locked: between two switch points nobody else runs.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

/// Somebody who is there, and what he is still to be sent.
final class Guest {
  private var backlog: [String] = []
  private let news = Event()
  private let reader = Greenlet.current

  var isLeaving = false { didSet { news.set() } }

  /// Tells him something, without waiting for him. One who is too far behind is shown the door.
  func hear(_ line: String) {
    if backlog.count == 1000 { _ = try? reader.kill(waiting: false) } else { backlog.append(line) }
    news.set()
  }

  /// Sends what he was told, as fast as he takes it, until he leaves.
  func deliver(over socket: Socket) throws {
    while !isLeaving || !backlog.isEmpty {
      try news.wait()
      news.clear()
      let lines = backlog.map { "\($0)\r\n" }.joined()
      backlog = []
      try socket.sendAll(lines)
    }
  }
}

final class Room {
  private var guests: [String: Guest] = [:]

  func say(_ line: String) { for guest in guests.values { guest.hear(line) } }

  /// A guest's stay. Whoever sends a line without an end is shown the door.
  func host(_ socket: Socket) throws {
    do { try entertain(socket) } catch is LimitExceeded {}
  }

  /// From the first word to the last.
  private func entertain(_ socket: Socket) throws {
    let input = BufferedStream(socket)
    var name = ""
    while guests[name] != nil || name.wholeMatch(of: /\w{1,20}/) == nil {
      try socket.sendAll("your name? ")
      guard let answer = try input.readLine(limit: 100) else { return }
      name = answer
    }
    let guest = Guest()
    guests[name] = guest
    let writer = spawn { try? guest.deliver(over: socket) }
    say("* \(name) has joined")
    defer {
      guests[name] = nil
      say("* \(name) has left")
      guest.isLeaving = true
      _ = try? writer.join(timeout: .seconds(1))
      _ = try? writer.kill()
    }
    while let line = try input.readLine(limit: 1000), line != "/quit" {
      switch line {
      case "": break
      case "/who": guest.hear("* \(guests.keys.sorted().joined(separator: ", "))")
      default: say("\(name): \(line)")
      }
      try Greenlet.yield()  // to the writers: many lines may have come at once
    }
  }
}

struct ChatServer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chat-server", abstract: "A chat by lines; /who lists the guests, /quit leaves.")

  @Option(help: "The address to listen at, or a name for it; '*' is all of this machine's.")
  var host = "127.0.0.1"
  @Option(help: "The port to listen at; 0 picks a free one.") var port: UInt16 = 7777

  func run() throws {
    let room = Room()
    let server = try StreamServer(host: host, port: port) { socket, _ in try room.host(socket) }
    try server.serveForever(stoppingOn: [SIGINT, SIGTERM], timeout: .zero) {
      print("listening on \(server.address)")
      fflush(nil)  // for whoever reads it through a pipe
    }
  }
}

do { try ChatServer.parse().run() } catch {
  // As `ChatServer.main()`, but without the usage: one line says what is wrong.
  let code = ChatServer.exitCode(for: error)
  let text = ChatServer.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  ChatServer.exit(withError: code)
}
