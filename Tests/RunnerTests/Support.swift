// Evergreen: programs as children, with and without `evergreen run`, for tests.
// SPDX-License-Identifier: MIT

import EvergreenTesting
import Foundation
import Glibc

/// How long anything may take: machines may be busy.
let limit: Int64 = 60_000_000_000

/// Where SwiftPM puts what it builds, and this program.
let directory: String = {
  let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
  return String(program[..<(program.lastIndex(of: "/") ?? program.startIndex)])
}()

let runner = directory + "/evergreen"
let plainProgram = directory + "/plain-program"

/// How a process ended.
enum Ending: Equatable {
  case exit(Int32)
  case signal(Int32)
}

/// What a program has said, and how it ended.
struct Outcome: Equatable {
  var output = ""
  var errors = ""
  var ending = Ending.exit(-1)

  var outputLines: [Substring] { output.split(separator: "\n") }
}

struct TooLate: Error, CustomStringConvertible {
  let description: String
}

/// Runs a program until it ends.
func outcome(
  of words: [String], input: String? = nil, environment: [String: String] = [:]
) throws -> Outcome {
  let program = try Running(words, environment: environment)
  defer { program.destroy() }
  if let input { program.type(input) }
  program.closeInput()
  return try program.finish()
}

/// The same under `evergreen run`.
func outcome(
  options: [String] = [], underRunnerOf words: [String], input: String? = nil,
  environment: [String: String] = [:]
) throws -> Outcome {
  try outcome(
    of: [runner, "run"] + options + ["--"] + words, input: input, environment: environment)
}

/// A program that runs.
final class Running {
  let process: pid_t
  private var input: Int32
  private let outputs: [Int32]
  private var said: [[UInt8]] = [[], []]
  private var hasEnded = false

  init(_ words: [String], environment changes: [String: String] = [:]) throws {
    var ends = [[Int32]](repeating: [-1, -1], count: 3)
    for index in ends.indices {
      guard pipe(&ends[index]) == 0 else { throw TooLate(description: "no pipe: \(errno)") }
      for end in ends[index] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    }
    let theirs = [ends[0][0], ends[1][1], ends[2][1]]
    defer { for descriptor in theirs { close(descriptor) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (place, descriptor) in theirs.enumerated() {
      posix_spawn_file_actions_adddup2(&actions, descriptor, Int32(place))
    }
    // Other tests may have left descriptors open, and children are to have the same.
    for other in 3..<Int32(256) { posix_spawn_file_actions_addclose(&actions, other) }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var environment = ProcessInfo.processInfo.environment.merging(changes) { $1 }
    environment["_"] = nil
    var strings = environment.map { strdup("\($0)=\($1)") }
    strings.append(nil)
    var arguments = words.map { strdup($0) }
    arguments.append(nil)
    defer { for string in strings + arguments { free(string) } }
    var process: pid_t = 0
    let error = posix_spawnp(&process, words[0], &actions, &attributes, arguments, strings)
    self.process = process
    input = ends[0][1]
    outputs = [ends[1][0], ends[2][0]]
    if error != 0 {
      destroy()
      throw TooLate(description: "\(words[0]) cannot be spawned: \(error)")
    }
  }

  func type(_ text: String) {
    let bytes = Array(text.utf8)
    _ = write(input, bytes, bytes.count)
  }

  func closeInput() {
    if input >= 0 { close(input) }
    input = -1
  }

  /// Waits for a line on standard output.
  func line(_ number: Int) throws -> String {
    let deadline = now() + limit
    while true {
      let lines = text(0).split(separator: "\n", omittingEmptySubsequences: false)
      if lines.count > number + 1 { return String(lines[number]) }
      guard try read(until: deadline) else {
        throw TooLate(description: "there is no line \(number): \(text(0)) \(text(1))")
      }
    }
  }

  /// Waits for the end.
  func finish() throws -> Outcome {
    let deadline = now() + limit
    while try read(until: deadline) {}
    // It has closed what it writes to, so it is about to end.
    var status: Int32 = 0
    while waitpid(process, &status, 0) == -1 && errno == EINTR {}
    hasEnded = true
    let signal = status & 0x7f
    return Outcome(
      output: text(0), errors: text(1),
      ending: signal == 0 ? .exit(status >> 8 & 0xff) : .signal(signal))
  }

  func destroy() {
    closeInput()
    if !hasEnded && process > 0 {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
    }
    for output in outputs { close(output) }
  }

  private var isOpen = [true, true]

  private func text(_ index: Int) -> String { String(decoding: said[index], as: UTF8.self) }

  private func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  /// - Returns: Whether more may come.
  private func read(until deadline: Int64) throws -> Bool {
    var polled = outputs.indices.map {
      pollfd(fd: isOpen[$0] ? outputs[$0] : -1, events: Int16(POLLIN), revents: 0)
    }
    let left = deadline - now()
    guard left > 0, poll(&polled, 2, Int32(left / 1_000_000) + 1) >= 0 || errno == EINTR else {
      throw TooLate(description: "it goes on and on: \(text(0)) \(text(1))")
    }
    var buffer = [UInt8](repeating: 0, count: 65536)
    for index in outputs.indices where polled[index].revents != 0 {
      let count = Glibc.read(outputs[index], &buffer, buffer.count)
      if count > 0 { said[index] += buffer[..<count] } else { isOpen[index] = false }
    }
    return isOpen.contains(true)
  }
}

/// A directory that is there while `body` runs.
func withTemporaryDirectory<R>(_ body: (String) throws -> R) throws -> R {
  var name = Array("/tmp/evergreen-runner-XXXXXX".utf8CString)
  guard mkdtemp(&name) != nil else { throw TooLate(description: "no directory: \(errno)") }
  let path = String(decoding: name.dropLast().map { UInt8($0) }, as: UTF8.self)
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try body(path)
}

func isInstalled(_ path: String) -> Bool { access(path, X_OK) == 0 }
