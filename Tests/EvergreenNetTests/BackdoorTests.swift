// Evergreen: tests of the console into a running program.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

private struct Oops: Error, CustomStringConvertible {
  var description: String { "oops" }
}

@Suite struct BackdoorTests {
  /// A session: each command's answer, without the prompt.
  private struct Session {
    let stream: BufferedStream

    init(_ address: SocketAddress) throws {
      stream = BufferedStream(try Socket.connect(to: address, timeout: .seconds(30)))
      _ = try answer()
    }

    func ask(_ command: String) throws -> String {
      try stream.writeAll(command + "\n")
      try stream.flush()
      return try answer()
    }

    func answer() throws -> String {
      var text = ""
      while !text.hasSuffix("> ") {
        guard let bytes = try stream.read(upTo: 4096, timeout: .seconds(30)) else { return text }
        text += String(decoding: bytes, as: UTF8.self)
      }
      return String(text.dropLast(3))
    }
  }

  @Test func answersSeveralAtATime() async throws {
    try await runGreen {
      let backdoor = try Backdoor("127.0.0.1:0")
      let sleeper = spawn { try sleep(for: .seconds(600)) }
      sleeper.name = "sleeper"
      try Greenlet.yield()
      let (one, other) = try (Session(backdoor.address), Session(backdoor.address))
      let list = try one.ask("list")
      #expect(list.contains("\"sleeper\": waits for sleep"), "\(list)")
      let tree = try other.ask("  TREE ")
      #expect(tree.hasPrefix("the main greenlet"), "\(tree)")
      let stack = try one.ask("stack \(sleeper.id)")
      #expect(stack.contains("sleep"), "\(stack)")
      let metrics = try other.ask("metrics")
      #expect(metrics.contains("switches"))
      let help = try one.ask("help")
      for name in ["kill", "list", "metrics", "quit", "stack", "trace", "tree"] {
        #expect(help.contains("\n\(name): ") || help.hasPrefix("\(name): "), "\(help)")
      }
      let nothing = try one.ask("")
      #expect(nothing == "")
      let quit = try one.ask("quit")
      #expect(quit == "", "the end of the stream")
      let stillThere = try other.ask("kill \(sleeper.id)")
      #expect(stillThere.contains("GreenletExit"))
      try sleeper.join()
      #expect(sleeper.error is GreenletExit)
      try backdoor.close()
      #expect(throws: (any Error).self) { try Session(backdoor.address) }
    }
  }

  @Test func mistakesAreAnswered() async throws {
    try await runGreen {
      let backdoor = try Backdoor("[::1]:0")
      let session = try Session(backdoor.address)
      for (command, answer) in [
        ("frobnicate", "there is no command frobnicate"), ("stack", "give the number"),
        ("stack 99999", "there is no greenlet 99999"), ("kill 0", "cannot be killed"),
        ("trace show", "`trace on` comes first"), ("trace maybe", "trace on, trace off"),
      ] {
        let text = try session.ask(command)
        #expect(text.contains(answer), "\(command): \(text)")
      }
      try backdoor.close()
    }
  }

  @Test func tracesSwitches() async throws {
    try await runGreen {
      let backdoor = try Backdoor("127.0.0.1:0")
      let session = try Session(backdoor.address)
      _ = try session.ask("trace on")
      try spawn {}.join()
      _ = try session.ask("trace off")
      let trace = try session.ask("trace show")
      #expect(trace.contains("ends, the main greenlet runs"), "\(trace)")
      try backdoor.close()
    }
  }

  @Test func programsAddCommands() async throws {
    try await runGreen {
      let backdoor = try Backdoor("127.0.0.1:0")
      backdoor.add("Sum", "NUMBERS: adds") { words in
        try sleep(for: .milliseconds(1))
        return String(words.compactMap { Int($0) }.reduce(0, +))
      }
      backdoor.add("fail", "fails") { _ in throw Oops() }
      let session = try Session(backdoor.address)
      let sum = try session.ask("sum 1 2 3")
      #expect(sum == "6")
      let failure = try session.ask("fail")
      #expect(failure == "oops")
      try backdoor.close()
    }
  }

  @Test func aUnixSocketIsItsOwnersAlone() async throws {
    try await runGreen {
      let path = "/tmp/evergreen-backdoor-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
      let backdoor = try Backdoor(path: path)
      var status = stat()
      #expect(stat(path, &status) == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      let metrics = try Session(backdoor.address).ask("metrics")
      #expect(metrics.hasPrefix("greenlets"))
      try backdoor.close()
      #expect(stat(path, &status) == -1)
    }
  }

  @Test func refusesAnAddressThatOtherMachinesCanReach() async throws {
    try await runGreen {
      #expect(throws: BackdoorRefused.self) { try Backdoor("0.0.0.0:0") }
      #expect(throws: BackdoorRefused.self) { try Backdoor(":0") }
    }
  }
}
