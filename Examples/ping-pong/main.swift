// Evergreen: raw greenlets, switched by hand: the greenlet library's own example, and ping-pong.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct PingPong: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ping-pong", abstract: "Switches between greenlets, and times it.")

  @Option(help: "How many times to switch there and back.") var rounds = 1_000_000

  func validate() throws {
    guard (1...1_000_000_000).contains(rounds) else {
      throw ValidationError("--rounds must be between 1 and 1000000000, not \(rounds)")
    }
  }

  func run() throws {
    try greet()
    let ping = RawGreenlet.current
    let pong = RawGreenlet { _ in while true { try ping.switch() } }
    let time = try ContinuousClock().measure { for _ in 0..<rounds { try pong.switch() } }
    let nanoseconds = time / .nanoseconds(2 * rounds)
    print("\(rounds) rounds, \((nanoseconds * 10).rounded() / 10) ns per switch")
  }

  /// Two greenlets pass values to each other: prints "hello world", then 42.
  func greet() throws {
    var second: RawGreenlet!
    let first = RawGreenlet { greeting in
      print(try second.switch("\(greeting!) world")!)
      return nil
    }
    second = RawGreenlet { text in
      print(text!)
      return try first.switch(42)
    }
    try first.switch("hello")
  }
}

do { try PingPong.parse().run() } catch {
  // As `PingPong.main()`, but without the usage: one line says what is wrong.
  let code = PingPong.exitCode(for: error)
  let text = PingPong.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  PingPong.exit(withError: code)
}
