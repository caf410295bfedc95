// Evergreen: tests of the report of what all greenlets do
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Hub.report", .timeLimit(.minutes(1)))
struct ReportTests {
  @Test func saysWhatEachGreenletDoes() async throws {
    try await runGreenInVirtualTime { _ in
      let event = Event()
      let line = #line + 1
      let sleeper = spawn { try sleep(for: .seconds(60)) }
      sleeper.name = "sleeper"
      let waiter = spawn { try event.wait() }
      let joiner = spawn { try sleeper.join() }
      let parent = spawn {
        let child = spawn { try sleep(for: .seconds(60)) }
        child.name = "child"
        try child.join()
      }
      parent.name = "parent"
      try idle()
      let delayed = spawn(after: .seconds(30)) {}
      let scheduled = spawn {}
      let ready = waiter
      event.set()
      try sleep(for: .zero)
      let another = spawn {}
      try another.kill()
      let lines = Hub.current.report().split(separator: "\n").map(String.init)
      #expect(lines[0] == "\(lines.count - 1) greenlets:")
      #expect(lines[1] == "  the main greenlet: runs")
      func lineOf(_ greenlet: AnyGreenlet) -> String? {
        lines.first { $0.hasPrefix("  \(greenlet): ") }
      }
      let place = ", spawned at EvergreenHubTests/ReportTests.swift:"
      #expect(
        lineOf(sleeper)?.hasPrefix("  \(sleeper): waits for sleep, for ") == true)
      #expect(lineOf(sleeper)?.contains("\(place)\(line) by the main greenlet") == true)
      #expect(
        lineOf(joiner)?.contains("waits for the end of greenlet \(sleeper.id), for ") == true)
      #expect(lineOf(delayed)?.contains(": waits for its start\(place)") == true)
      #expect(
        lines.contains {
          $0.contains("\"child\": waits for sleep") && $0.hasSuffix(" by \(parent)")
        })
      #expect(lineOf(scheduled) == nil, "it has ended")
      #expect(ready.isReady)
      try killAll([sleeper, delayed] as [AnyGreenlet])
      #expect(!Hub.current.report().contains("sleeper"))
      try Hub.current.join()
    }
  }

  @Test func tellsReadyOnesFromThoseThatHaveNotBegun() async throws {
    try await runGreen {
      let yielding = spawn { try Greenlet.yield() }
      try Greenlet.yield()
      let fresh = spawn {}
      let report = Hub.current.report()
      #expect(report.contains("  \(yielding): ready, spawned at "))
      #expect(report.contains("  \(fresh): ready to start, spawned at "))
      try joinAll([yielding, fresh])
    }
  }

  @Test func tellsHowLongTheyWait() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { try sleep(for: .seconds(600)) }
      try sleep(for: .seconds(90))
      #expect(Hub.current.report().contains("\(sleeper): waits for sleep, for 90.0 s"))
      #expect(clock.elapsed == .seconds(90))
      try sleeper.kill()
    }
  }

  @Test func ofAHubWithNothingIsShort() async throws {
    try await runGreen {
      #expect(Hub.current.report() == "1 greenlets:\n  the main greenlet: runs")
    }
  }
}
