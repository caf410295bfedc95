// Evergreen: tests of what each greenlet has of its own
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

private let number = GreenletLocal(default: 7)
private let text = GreenletLocal(default: "none")

@Suite("GreenletLocal", .timeLimit(.minutes(1)))
struct GreenletLocalTests {
  @Test func eachGreenletHasAValueOfItsOwn() async throws {
    try await runGreen {
      number.value = 1
      let all = (10..<20).map { own in
        spawn {
          #expect(!number.isSet)
          #expect(number.value == 7, "not inherited")
          number.value = own
          for _ in 0..<3 {
            try Greenlet.yield()
            #expect(number.value == own)
          }
          return number.value
        }
      }
      try #expect(joinAll(all).map(\.value) == (10..<20).map { $0 })
      #expect(number.value == 1)
      #expect(text.value == "none")
    }
  }

  /// Its end reads and writes the variables of the greenlet.
  private final class Meddler: Sendable {
    let log: SharedLog
    init(_ log: SharedLog) { self.log = log }
    deinit {
      number.value += 1
      text.reset()
      log.add("\(number.value)")
    }
  }

  @Test func aValuesEndMayUseTheVariables() async throws {
    let log = SharedLog()
    try await runGreen {
      let local = GreenletLocal<Meddler?>(default: nil)
      try spawn {
        local.value = Meddler(log)
        local.value = Meddler(log)
        local.reset()
        local.withValue(Meddler(log)) {}
        local.value = Meddler(log)
        local.withValue(nil) {}
        #expect(log.entries == ["8", "9", "10"])
      }.get()
      #expect(log.entries.count == 4)
      local.value = Meddler(log)
    }
    #expect(log.entries.count == 5)
  }

  @Test func isSetAndReset() async throws {
    try await runGreen {
      #expect(!number.isSet)
      #expect(number.value == 7)
      #expect(number.isSet, "reading made it")
      number.reset()
      #expect(!number.isSet)
      number.value = 3
      #expect(number.isSet)
      number.reset()
      number.reset()
      #expect(number.value == 7)
    }
  }

  @Test func theDefaultIsEvaluatedOncePerGreenlet() async throws {
    try await runGreen {
      let log = SharedLog()
      let local = GreenletLocal(
        default: {
          log.add("made")
          return 1
        }())
      #expect(log.entries.isEmpty)
      let all = (0..<3).map { _ in
        spawn {
          _ = local.value
          _ = local.value
        }
      }
      try joinAll(all)
      #expect(log.entries.count == 3)
    }
  }

  @Test func valuesAreDroppedWhenTheGreenletEnds() async throws {
    try await runGreen {
      final class Resource {}
      let local = GreenletLocal<Resource?>(default: nil)
      weak var held: Resource?
      let greenlet = spawn {
        let resource = Resource()
        held = resource
        local.value = resource
      }
      try Greenlet.yield()
      #expect(greenlet.isReady)
      #expect(held == nil)
      let killed = spawn {
        let resource = Resource()
        held = resource
        local.value = resource
        try sleep(for: .seconds(60))
      }
      try Greenlet.yield()
      #expect(held != nil)
      try killed.kill()
      #expect(held == nil)
    }
  }

  @Test func withValueIsForABlock() async throws {
    try await runGreen {
      text.value = "before"
      let result = text.withValue("inside") {
        #expect(text.value == "inside")
        text.withValue("deeper") { #expect(text.value == "deeper") }
        #expect(text.value == "inside")
        return 5
      }
      #expect(result == 5)
      #expect(text.value == "before")
      #expect(throws: OneError.self) { try text.withValue("failing") { throw OneError() } }
      #expect(text.value == "before")
      text.reset()
      text.withValue("inside") {}
      #expect(!text.isSet)
    }
  }

  @Test func withValueSpansSwitches() async throws {
    try await runGreen {
      let all = (0..<5).map { own in
        spawn {
          try number.withValue(own) {
            for _ in 0..<5 {
              try sleep(for: .microseconds(100))
              #expect(number.value == own)
            }
          }
          #expect(!number.isSet)
        }
      }
      try joinAll(all, raisingErrors: true)
      #expect(!number.isSet)
    }
  }

  @Test func anOptionalMayBeNil() async throws {
    try await runGreen {
      let local = GreenletLocal<Int?>(default: 4)
      #expect(local.value == 4)
      local.value = nil
      #expect(local.value == nil)
      #expect(local.isSet)
    }
  }

  @Test func aVariableThatWentAwayLeavesNothingToTheNext() async throws {
    try await runGreen {
      // One is likely to get the memory of the one before.
      for round in 0..<100 {
        let integer = GreenletLocal(default: 0)
        #expect(!integer.isSet)
        integer.value = round
        #expect(integer.value == round)
        do {
          let words = GreenletLocal(default: "")
          #expect(!words.isSet)
          words.value = "\(round)"
        }
        let words = GreenletLocal(default: "fresh")
        #expect(!words.isSet)
        #expect(words.value == "fresh")
      }
      for round in 0..<100 {
        if round % 2 == 0 {
          let local = GreenletLocal(default: 0)
          local.value = round
        } else {
          let local = GreenletLocal(default: "fresh")
          #expect(local.value == "fresh")
        }
      }
    }
  }
}

@Suite("Task locals", .timeLimit(.minutes(1)))
struct TaskLocalTests {
  @TaskLocal static var name = "none"
  @TaskLocal static var level = 0

  @Test func childrenInheritWhatTheSpawnerSees() async throws {
    try await runGreen {
      let child = Self.$name.withValue("outer") {
        Self.$level.withValue(2) {
          spawn {
            try Greenlet.yield()
            let grandchild = Self.$level.withValue(3) {
              spawn { "\(Self.name) \(Self.level)" }
            }
            return try "\(Self.name) \(Self.level), \(grandchild.get())"
          }
        }
      }
      #expect(Self.name == "none")
      try #expect(child.get() == "outer 2, outer 3")
      #expect(Self.name == "none" && Self.level == 0)
    }
  }

  @Test func bindingsAreNotSeenByOthers() async throws {
    try await runGreen {
      let all = (1...5).map { number in
        spawn {
          try Self.$level.withValue(number) {
            for _ in 0..<5 {
              #expect(Self.level == number)
              try Greenlet.yield()
              #expect(Self.level == number)
            }
          }
          #expect(Self.level == 0)
        }
      }
      while all.contains(where: { !$0.isReady }) {
        #expect(Self.level == 0)
        try Greenlet.yield()
      }
      try joinAll(all, raisingErrors: true)
    }
  }

  @Test func endInAnyOrder() async throws {
    try await runGreenInVirtualTime { _ in
      let all = [3, 1, 2].map { seconds in
        spawn {
          try Self.$name.withValue("\(seconds)") {
            try sleep(for: .seconds(seconds))
            #expect(Self.name == "\(seconds)")
          }
          #expect(Self.name == "none")
        }
      }
      try joinAll(all, raisingErrors: true)
    }
  }

  @Test func delayedOnesInheritWhatWasBoundAtTheCall() async throws {
    try await runGreenInVirtualTime { _ in
      let late = Self.$name.withValue("then") { spawn(after: .seconds(10)) { Self.name } }
      let now = Greenlet { Self.name }
      Self.$name.withValue("now") { _ = now.start() }
      try #expect(late.get() == "then")
      try #expect(now.get() == "now")
    }
  }

  @Test func surviveAKill() async throws {
    try await runGreen {
      let log = Log()
      let victim = Self.$name.withValue("inherited") {
        spawn {
          defer { log.add(Self.name) }
          try Self.$name.withValue("own") {
            defer { log.add(Self.name) }
            try sleep(for: .seconds(60))
          }
        }
      }
      try Greenlet.yield()
      try victim.kill()
      #expect(log.entries == ["own", "inherited"])
    }
  }
}
