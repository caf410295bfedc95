// Evergreen: tests of the look-ups.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct ResolveManyTests {
  @Test(.timeLimit(.minutes(2)))
  func printsAddressesOrAnError() async throws {
    try await runGreen {
      let bad = "no-such-host.invalid"
      let names = ["localhost", bad, "192.0.2.7", "::1"]
      let child = try run("resolve-many", ["--timeout", "10"] + names)
      #expect(child.ending == .exit(1))
      #expect(child.lines.count == 3)
      let local = try #require(child.lines.first { $0.hasPrefix("localhost ") })
      for address in local.split(separator: " ").dropFirst() {
        #expect(try HostAndPort(String(address), port: 0).address?.isLoopback == true)
      }
      #expect(child.errorLines.count == 1)
      let error = try #require(child.errorLines.first { $0.hasPrefix("\(bad): ") })
      #expect(error.count > bad.count + 2)
      #expect(child.lines.contains("192.0.2.7 192.0.2.7"))
      #expect(child.lines.contains("::1 ::1"))
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func oneAtATimeKeepsTheOrder() async throws {
    try await runGreen {
      let names = (1...20).map { "192.0.2.\($0)" }
      let child = try run("resolve-many", ["--concurrency", "1"] + names)
      #expect(child.ending == .exit(0))
      #expect(child.lines == names.map { "\($0) \($0)" })
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func answersWhileStandardInputIsOpen() async throws {
    try await runGreen {
      try withExample("resolve-many") { child in
        try child.type("192.0.2.1\n")
        #expect(try child.line(0) == "192.0.2.1 192.0.2.1")
        try child.type("\n192.0.2.2\nlocal")
        #expect(try child.line(1) == "192.0.2.2 192.0.2.2")
        try child.type("host\n")
        #expect(try child.line(2).hasPrefix("localhost "))
        try child.type("192.0.2.3")  // the last line need not end
        child.closeInput()
        try child.waitForEnd()
        #expect(child.ending == .exit(0))
        #expect(child.lines.dropFirst(3) == ["192.0.2.3 192.0.2.3"])
        #expect(child.errorLines == [])
      }
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func nothingAskedNothingAnswered() async throws {
    try await runGreen {
      let child = try run("resolve-many", [])
      #expect(child.ending == .exit(0))
      #expect(child.lines == [])
      #expect(child.errorLines == [])
    }
  }
}

@Suite struct PingPongTests {
  @Test(.timeLimit(.minutes(2)), arguments: [1, 20_000])
  func greetsThenCounts(rounds: Int) async throws {
    try await runGreen {
      let child = try run("ping-pong", ["--rounds", "\(rounds)"])
      #expect(child.ending == .exit(0))
      #expect(child.errorLines == [])
      #expect(child.lines.count == 3)
      #expect(child.lines.prefix(2) == ["hello world", "42"])
      let last = try #require(child.lines.last)
      #expect(last.wholeMatch(of: /(\d+) rounds, ([\d.]+) ns per switch/)?.1 == "\(rounds)")
    }
  }
}
