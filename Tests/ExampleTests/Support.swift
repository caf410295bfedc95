// Evergreen: example programs as child processes, for tests.
// SPDX-License-Identifier: MIT
//
// The tests run on threads of their own, which have a hub. A child's output is read by two
// greenlets, so a test waits for a line, for the end, or for a peer, whichever it needs, and always
// with a limit. A child is killed when its block ends, whichever way; where the system has
// `setpriv`, the kernel also kills it when the thread of the test ends, so that a crash of the
// tests leaves nobody behind.

import Evergreen
import EvergreenTesting
import Foundation
import Glibc
import Testing

/// How long anything may take that ought to happen at once: machines may be busy.
let limit = Duration.seconds(40)

struct TooLate: Error, CustomStringConvertible {
  let description: String
}

/// How a process ended.
enum Ending: Equatable {
  case exit(Int32)
  case signal(Int32)
}

/// Runs one of the examples while `body` runs.
func withExample<R>(
  _ name: String, _ arguments: String..., body: (Child) throws -> R
) throws -> R {
  let child = try Child(name, arguments)
  defer { child.destroy() }
  return try body(child)
}

/// Runs one of the examples until it ends by itself.
func run(_ name: String, _ arguments: [String]) throws -> Child {
  let child = try Child(name, arguments)
  defer { child.destroy() }
  child.closeInput()
  try child.waitForEnd()
  return child
}

/// An example program that runs.
final class Child {
  let name: String
  private let process: pid_t
  private let input: Socket
  private let output = Collector()
  private let errors = Collector()
  /// How it ended, once that is known.
  private(set) var ending: Ending?

  init(_ name: String, _ arguments: [String]) throws {
    self.name = name
    let channels = try (0..<3).map { _ in try makeChannel() }
    defer { for channel in channels { close(channel.theirs) } }
    let sockets = try channels.map { try Socket(adopting: $0.ours) }
    process = try launch(directory + name, arguments, channels.map(\.theirs))
    input = sockets[0]
    output.collect(from: sockets[1])
    errors.collect(from: sockets[2])
  }

  // MARK: What it says

  /// All that it has written to standard output so far, by lines.
  var lines: [String] { output.lines }
  /// All that it has written to standard error so far, by lines.
  var errorLines: [String] { errors.lines }

  /// Waits for a line on standard output.
  @discardableResult
  func line(_ number: Int) throws -> String {
    try output.wait("line \(number) of \(name)", about: errors) { $0.count > number }
    return lines[number]
  }

  /// Waits for a line on standard error.
  func errorLine(_ number: Int) throws -> String {
    try errors.wait("error \(number) of \(name)", about: errors) { $0.count > number }
    return errorLines[number]
  }

  /// Where a server listens, as it says itself.
  var address: SocketAddress {
    get throws {
      let line = try line(0)
      let prefix = "listening on "
      guard line.hasPrefix(prefix) else { throw TooLate(description: "\(name) said: \(line)") }
      return try SocketAddress(parsing: String(line.dropFirst(prefix.count)))
    }
  }

  /// A connection to a server.
  func connect() throws -> Socket {
    let socket = try Socket.connect(to: address, timeout: limit)
    socket.timeout = limit
    return socket
  }

  // MARK: What it is told

  /// Writes to its standard input.
  func type(_ text: String) throws { try input.sendAll(text, timeout: limit) }

  func closeInput() { input.close() }

  func send(_ signal: Int32) {
    if ending == nil { kill(process, signal) }
  }

  // MARK: Its end

  /// Waits for the end, which closes what it writes to.
  @discardableResult
  func waitForEnd() throws -> Ending {
    try output.waitForEnd("the end of \(name)", about: errors)
    try errors.waitForEnd("the end of \(name)", about: errors)
    return reap()
  }

  /// Sends a signal and waits for the end.
  func end(by signal: Int32 = SIGTERM) throws -> Ending {
    send(signal)
    return try waitForEnd()
  }

  func destroy() {
    send(SIGKILL)
    _ = reap()
    closeInput()
    output.close()
    errors.close()
  }

  @discardableResult
  private func reap() -> Ending {
    if let ending { return ending }
    var status: Int32 = 0
    while waitpid(process, &status, 0) == -1, errno == EINTR {}
    let signal = status & 0x7f
    let found = signal == 0 ? Ending.exit(status >> 8 & 0xff) : .signal(signal)
    ending = found
    return found
  }
}

/// Collects what a child writes.
private final class Collector {
  private var bytes: [UInt8] = []
  private let changed = Event()
  private var isAtEnd = false
  private var greenlet: AnyGreenlet?

  func collect(from socket: Socket) {
    greenlet = spawn { [self] in
      defer {
        socket.close()
        isAtEnd = true
        changed.set()
      }
      while let chunk = try socket.receive(upTo: 64 * 1024) {
        bytes += chunk
        changed.set()
      }
    }
  }

  var lines: [String] {
    var lines = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\n")
    lines.removeLast()  // what has no end yet
    return lines
  }

  func wait(
    _ what: String, about errors: Collector, until condition: ([String]) -> Bool
  ) throws {
    let late = TooLate(description: "no \(what) in time; \(errors.text)")
    try withTimeout(limit, throwing: late) {
      while !condition(lines) {
        if isAtEnd { throw TooLate(description: "no \(what) before its end; \(errors.text)") }
        try changed.wait()
        changed.clear()
      }
    }
  }

  func waitForEnd(_ what: String, about errors: Collector) throws {
    guard try greenlet?.join(timeout: limit) ?? true else {
      throw TooLate(description: "not in time: \(what); \(errors.text)")
    }
  }

  func close() { _ = try? greenlet?.kill() }

  private var text: String { "standard error: " + String(decoding: bytes, as: UTF8.self) }
}

// MARK: Processes

/// Where the tests were built, and the examples beside them.
private let directory: String = {
  var path = [UInt8](repeating: 0, count: Int(PATH_MAX))
  let count = path.withUnsafeMutableBytes {
    readlink("/proc/self/exe", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
  }
  let text = String(decoding: path.prefix(max(0, count)), as: UTF8.self)
  return String(text[...(text.lastIndex(of: "/") ?? text.startIndex)])
}()

/// A channel to a child: its end and ours. A pair of sockets, because no other child that happens to
/// be made meanwhile inherits it; to the child it is as good as a pipe.
private func makeChannel() throws -> (theirs: Int32, ours: Int32) {
  var ends: [Int32] = [-1, -1]
  let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
  guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw Errno(rawValue: errno) }
  return (ends[0], ends[1])
}

private func launch(
  _ path: String, _ arguments: [String], _ descriptors: [Int32]
) throws -> pid_t {
  let keeper = "/usr/bin/setpriv"
  let isKept = access(keeper, X_OK) == 0
  let words = (isKept ? [keeper, "--pdeathsig", "KILL", "--"] : []) + [path] + arguments
  var environment = ProcessInfo.processInfo.environment
  environment["EVERGREEN_WATCHDOG"] = "0"  // a busy machine is no blocked greenlet
  environment["COLUMNS"] = "200"
  // What greenlets hold that are parked when a program exits looks leaked to the sanitizer.
  environment["ASAN_OPTIONS"] = "detect_leaks=0"

  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  for (number, descriptor) in descriptors.enumerated() {
    posix_spawn_file_actions_adddup2(&actions, descriptor, Int32(number))
  }
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var signals = sigset_t()
  sigemptyset(&signals)
  posix_spawnattr_setsigmask(&attributes, &signals)
  for signal in [SIGTERM, SIGINT, SIGPIPE] { sigaddset(&signals, signal) }
  posix_spawnattr_setsigdefault(&attributes, &signals)
  posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

  var process = pid_t()
  let error = withCStrings(words) { words in
    withCStrings(environment.map { "\($0)=\($1)" }) {
      posix_spawn(&process, words[0]!, &actions, &attributes, words, $0)
    }
  }
  guard error == 0 else { throw Errno(rawValue: error) }
  return process
}

private func withCStrings<R>(
  _ texts: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> R
) -> R {
  let copies: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) } + [nil]
  defer { for copy in copies { free(copy) } }
  return body(copies)
}

// MARK: Small things

/// `count` bytes, different for each `seed`, without a short period.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
  return (0..<count).map { _ in
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return UInt8(truncatingIfNeeded: state)
  }
}

extension Socket {
  /// All until the end of the stream.
  func receiveAll() throws -> [UInt8] {
    var bytes: [UInt8] = []
    while let chunk = try receive(upTo: 64 * 1024) { bytes += chunk }
    return bytes
  }

  /// What comes next, as text.
  func receive(text: String) throws -> String {
    String(decoding: try receive(exactly: text.utf8.count), as: UTF8.self)
  }
}

/// Whether the machine has the IPv6 loopback.
let hasIPv6: Bool = {
  let number = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
  guard number >= 0 else { return false }
  defer { close(number) }
  return SocketAddress.loopbackIPv6(port: 0).withSockaddr { bind(number, $0, $1) } == 0
}()
