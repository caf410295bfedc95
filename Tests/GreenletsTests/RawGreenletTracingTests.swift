// Evergreen: tests of tracing the switches of raw greenlets
// SPDX-License-Identifier: MIT

import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(1))) struct RawGreenletTracingTests {
  /// Names greenlets for the log.
  private final class Trace {
    var events: [String] = []
    private var names: [(RawGreenlet, String)] = []

    func name(_ greenlet: RawGreenlet, _ name: String) { names.append((greenlet, name)) }

    func name(of greenlet: RawGreenlet) -> String {
      names.first { $0.0 === greenlet }?.1 ?? "?"
    }

    func note(_ event: RawGreenlet.TraceEvent, _ origin: RawGreenlet, _ target: RawGreenlet) {
      events.append("\(event) \(name(of: origin)) \(name(of: target))")
    }
  }

  private func traced(_ body: (Trace) throws -> Void) rethrows -> [String] {
    let trace = Trace()
    trace.name(RawGreenlet.current, "main")
    #expect(RawGreenlet.setTracer { trace.note($0, $1, $2) } == nil)
    try body(trace)
    #expect(RawGreenlet.setTracer(nil) != nil)
    return trace.events
  }

  @Test func everyTransferIsSeen() async throws {
    try await runGreen {
      let events = try traced { trace in
        let main = RawGreenlet.current
        let child = RawGreenlet { _ in try main.switch(1) }
        trace.name(child, "child")
        try child.switch()
        try child.switch(2)
      }
      #expect(
        events == [
          "switch main child", "switch child main", "switch main child", "switch child main",
        ])
    }
  }

  @Test func throwsAreTold() async throws {
    try await runGreen {
      let events = try traced { trace in
        let main = RawGreenlet.current
        let child = RawGreenlet { _ in try main.switch() }
        trace.name(child, "child")
        try child.switch()
        #expect(throws: OneError()) { try child.throw(OneError()) }
      }
      #expect(
        events == [
          "switch main child", "switch child main", "throw main child", "throw child main",
        ])
    }
  }

  @Test func theExitOfAGreenletIsASwitchBack() async throws {
    try await runGreen {
      let events = try traced { trace in
        let main = RawGreenlet.current
        let child = RawGreenlet { _ in try main.switch() }
        trace.name(child, "child")
        try child.switch()
        try child.throw()
      }
      #expect(
        events == [
          "switch main child", "switch child main", "throw main child", "switch child main",
        ])
    }
  }

  @Test func itRunsInTheTarget() async throws {
    try await runGreen {
      let right = Box(0)
      RawGreenlet.setTracer { _, _, target in
        if RawGreenlet.current === target { right.value += 1 }
      }
      try RawGreenlet { _ in nil }.switch()
      RawGreenlet.setTracer(nil)
      #expect(right.value == 2)
    }
  }

  @Test func itCanBeReplacedAndRemoved() async throws {
    try await runGreen {
      #expect(RawGreenlet.tracer == nil)
      let log = Log()
      RawGreenlet.setTracer { _, _, _ in log("first") }
      #expect(RawGreenlet.tracer != nil)
      let before = RawGreenlet.setTracer { _, _, _ in log("second") }
      try RawGreenlet { _ in nil }.switch()
      try before?(.switch, .current, .current)
      #expect(log.lines == ["second", "second", "first"])
      RawGreenlet.setTracer(nil)
      #expect(RawGreenlet.tracer == nil)
      try RawGreenlet { _ in nil }.switch()
      #expect(log.lines.count == 3)
    }
  }

  @Test func itCanBeSetAndRemovedInAGreenlet() async throws {
    try await runGreen {
      let trace = Trace()
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        RawGreenlet.setTracer { trace.note($0, $1, $2) }
        try main.switch()
        RawGreenlet.setTracer(nil)
        return nil
      }
      trace.name(main, "main")
      trace.name(child, "child")
      try child.switch()
      try child.switch()
      #expect(trace.events == ["switch child main", "switch main child"])
    }
  }

  @Test func aFailingOneIsRemovedAndItsErrorThrownInTheTarget() async throws {
    try await runGreen {
      let log = Log()
      RawGreenlet.setTracer { _, _, _ in
        log("traced")
        throw OneError(text: "tracer")
      }
      let child = RawGreenlet { _ in
        log("ran")
        return nil
      }
      #expect(throws: OneError("tracer")) { try child.switch() }
      #expect(RawGreenlet.tracer == nil)
      #expect(child.isDead)
      #expect(log.lines == ["traced"])
      try #expect(RawGreenlet { _ in "untraced" }.switch() as? String == "untraced")
      #expect(log.lines == ["traced"])
    }
  }

  @Test func aFailingOneReachesASuspendedTargetAtItsSwitch() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        do {
          try main.switch()
          return "nothing thrown"
        } catch {
          return "caught \((error as! OneError).text)"
        }
      }
      try child.switch()
      RawGreenlet.setTracer { _, _, _ in throw OneError(text: "tracer") }
      try #expect(child.switch() as? String == "caught tracer")
      #expect(RawGreenlet.tracer == nil)
    }
  }

  @Test func itMaySwitchItself() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let log = Log()
      let helper = RawGreenlet { _ in
        while true {
          log("helper")
          try main.switch()
        }
      }
      try helper.switch()
      log.lines = []
      let busy = Box(false)
      RawGreenlet.setTracer { _, _, target in
        if busy.value || target !== main { return }
        busy.value = true
        defer { busy.value = false }
        try helper.switch("from the tracer")
        log("traced")
      }
      let child = RawGreenlet { first in
        let second = try main.switch("one")
        return "\(first!) \(second!)"
      }
      try #expect(child.switch("a") as? String == "one")
      try #expect(child.switch("b") as? String == "a b")
      RawGreenlet.setTracer(nil)
      #expect(log.lines == ["helper", "traced", "helper", "traced"])
    }
  }

  @Test func eachThreadHasItsOwn() async throws {
    try await runGreen {
      let log = Log()
      RawGreenlet.setTracer { _, _, _ in log("here") }
      let otherHasNone = try onThread {
        let none = RawGreenlet.tracer == nil
        try RawGreenlet { _ in nil }.switch()
        return none
      }
      #expect(otherHasNone)
      #expect(log.lines == [])
      RawGreenlet.setTracer(nil)
    }
  }

  @Test func itSeesTheUnwindingOfADroppedOne() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let events = Box<[String]>([])
      var child: RawGreenlet? = RawGreenlet { _ in try main.switch() }
      try child!.switch()
      RawGreenlet.setTracer { event, _, _ in events.value.append("\(event)") }
      child = nil
      RawGreenlet.setTracer(nil)
      #expect(events.value == ["throw", "switch"])
    }
  }
}
