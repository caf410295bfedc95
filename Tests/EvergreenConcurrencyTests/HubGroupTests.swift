// Evergreen: tests of groups of hubs
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenConcurrency
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A group for the time of `body`.
func withGroup<R>(_ hubs: Int, _ body: (HubGroup) throws -> R) throws -> R {
  let group = try HubGroup(hubs: hubs)
  defer { try? group.stop(timeout: .zero) }
  return try body(group)
}

func openDescriptors() -> Int {
  (0..<256).count { fcntl($0, F_GETFD) != -1 }
}

func threadNumber() -> UInt { UInt(bitPattern: pthread_self().hashValue) }

@Suite("HubGroup", .timeLimit(.minutes(1)))
struct HubGroupTests {
  @Test func eachHubHasAThreadOfItsOwn() async throws {
    try await runGreen {
      try withGroup(3) { group in
        #expect(group.count == 3)
        let threads = try (0..<3).map { number in try group.run(on: number) { threadNumber() } }
        #expect(Set(threads + [threadNumber()]).count == 4)
        let numbers = try (0..<3).map { number in
          try group.run(on: number) { HubGroup.currentNumber }
        }
        #expect(numbers == [0, 1, 2])
        #expect(HubGroup.currentNumber == nil)
      }
    }
  }

  @Test func threadsHaveNames() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2, name: "a-quite-long-name")
      defer { try? group.stop() }
      let name = try group.run(on: 1) {
        let file = open("/proc/thread-self/comm", O_RDONLY)
        defer { close(file) }
        var name = [UInt8](repeating: 0, count: 64)
        let count = read(file, &name, name.count)
        return String(decoding: name.prefix(max(0, count - 1)), as: UTF8.self)
      }
      #expect(name == "a-quite-long-na")
    }
  }

  @Test func resultsAndErrorsComeBack() async throws {
    try await runGreen {
      try withGroup(2) { group in
        let sum = try group.run(on: 1) {
          try sleep(for: .milliseconds(1))
          return 3 + 4
        }
        #expect(sum == 7)
        #expect(throws: OneError(number: 5)) {
          let _: Int = try group.run(on: 0) { throw OneError(number: 5) }
        }
      }
    }
  }

  final class Unshared { var number = 5 }

  @Test func aValueThatIsNotSendableIsHandedOver() async throws {
    try await runGreen {
      try withGroup(1) { group in
        let one = try group.run { Unshared() }
        one.number += 1
        #expect(one.number == 6)
      }
    }
  }

  @Test func othersRunWhileOneWaitsForAnotherHub() async throws {
    try await runGreen {
      try withGroup(1) { group in
        let gate = ThreadPool()
        _ = gate
        let released = Shared(false)
        let waiter = spawn {
          try group.run { while !released.value { try sleep(for: .milliseconds(1)) } }
        }
        for _ in 0..<5 { try sleep(for: .milliseconds(1)) }
        #expect(!waiter.isReady)
        released.value = true
        try waiter.get(timeout: .seconds(30))
      }
    }
  }

  @Test func manyCallsCrossAtOnce() async throws {
    try await runGreen {
      try withGroup(3) { group in
        let calls = (0..<600).map { number in
          spawn {
            try group.run(on: number % 3) { () -> Int in
              if number % 2 == 0 { try Greenlet.yield() }
              return number
            }
          }
        }
        for (number, call) in calls.enumerated() {
          let got = try call.get(timeout: .seconds(30))
          #expect(got == number)
        }
      }
    }
  }

  @Test func hubsCallEachOther() async throws {
    try await runGreen {
      try withGroup(2) { group in
        let answer = try group.run(on: 0) {
          try group.run(on: 1) { try group.run(on: 0) { HubGroup.currentNumber! + 40 } + 2 }
        }
        #expect(answer == 42)
      }
    }
  }

  @Test func aKillReachesTheOtherHub() async throws {
    try await runGreen {
      try withGroup(1) { group in
        let log = SharedLog()
        let caller = spawn {
          try group.run {
            log.add("begins")
            defer { log.add("ends") }
            try sleep(for: .seconds(3600))
          }
        }
        while log.entries.isEmpty { try sleep(for: .milliseconds(1)) }
        try caller.kill()
        #expect(caller.error is GreenletExit)
        while log.entries.count < 2 { try sleep(for: .milliseconds(1)) }
        #expect(log.entries == ["begins", "ends"])
        #expect(throws: Timeout.self) {
          try withTimeout(.milliseconds(3)) { try group.run { try sleep(for: .seconds(3600)) } }
        }
        while group.load(of: 0) > 0 { try sleep(for: .milliseconds(1)) }
      }
    }
  }

  @Test func theLeastBusyHubGetsTheNext() async throws {
    try await runGreen {
      try withGroup(3) { group in
        let released = Shared(false)
        let hold: @Sendable () throws -> Void = {
          while !released.value { try sleep(for: .milliseconds(1)) }
        }
        try group.spawn(on: 0, hold)
        try group.spawn(on: 2, hold)
        #expect([0, 1, 2].map { group.load(of: $0) } == [1, 0, 1])
        #expect(group.leastBusy == 1)
        #expect(try group.spawn(hold) == 1)
        #expect(try Set((0..<3).map { _ in try group.spawn(hold) }) == [0, 1, 2])
        released.value = true
        for number in 0..<3 {
          while group.load(of: number) > 0 { try sleep(for: .milliseconds(1)) }
        }
      }
    }
  }

  @Test func taskLocalsAreInherited() async throws {
    try await runGreen {
      try withGroup(1) { group in
        let seen = try Context.$request.withValue("9") {
          try group.run {
            let child = spawn { Context.request }
            return [Context.request, try child.get()]
          }
        }
        #expect(seen == ["9", "9"])
        let after = try group.run { Context.request }
        #expect(after == "none")
      }
    }
  }

  @Test func errorsOfGreenletsAreReported() async throws {
    try await runGreen {
      let log = SharedLog()
      let group = try HubGroup(hubs: 2) { hub, greenlet, error in log.add("\(hub): \(error)") }
      try group.spawn(on: 1) { throw OneError(number: 3) }
      try group.spawn(on: 0) { spawn { throw OneError(number: 4) } }
      _ = try? group.run(on: 0) { throw OneError(number: 5) }  // the caller's
      while log.entries.count < 2 { try sleep(for: .milliseconds(1)) }
      try group.stop()
      #expect(log.entries.sorted() == ["0: OneError(number: 4)", "1: OneError(number: 3)"])
    }
  }

  // MARK: The end

  @Test func stoppingLetsWhatRunsEnd() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2)
      let log = SharedLog()
      for number in 0..<2 {
        try group.spawn(on: number) {
          try sleep(for: .milliseconds(10))
          log.add("ended by itself")
        }
      }
      try group.stop(timeout: .seconds(30))
      #expect(log.entries == ["ended by itself", "ended by itself"])
    }
  }

  @Test func whatTakesTooLongIsKilled() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2)
      let log = SharedLog()
      try group.spawn(on: 0) {
        defer { log.add("cleaned up") }
        try sleep(for: .seconds(3600))
      }
      let caller = spawn { try group.run(on: 1) { try sleep(for: .seconds(3600)) } }
      try sleep(for: .milliseconds(3))
      try group.stop(timeout: .milliseconds(10))
      #expect(log.entries == ["cleaned up"])
      #expect(throws: HubEnded.self) { try caller.get(timeout: .seconds(30)) }
    }
  }

  @Test func whoStopsAgainMayBeLessPatient() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 2)
      try group.spawn(on: 0) { try sleep(for: .seconds(3600)) }
      let patient = spawn { try group.stop(timeout: nil) }
      try sleep(for: .milliseconds(2))
      #expect(!patient.isReady)
      try group.stop(timeout: .zero)
      try patient.get(timeout: .seconds(30))
      try group.stop()  // once more is harmless
    }
  }

  @Test func aStoppedGroupRefusesWork() async throws {
    try await runGreen {
      let group = try HubGroup(hubs: 1)
      try group.stop()
      #expect(throws: HubEnded.self) { try group.spawn {} }
      #expect(throws: HubEnded.self) { try group.run { 1 } }
    }
  }

  @Test func callsDuringTheStopAreAnswered() async throws {
    try await runGreen {
      for _ in 0..<10 {
        let group = try HubGroup(hubs: 2)
        let callers = (0..<8).map { number in
          spawn { () -> Bool in
            while true {
              do { try group.run(on: number % 2) { try Greenlet.yield() } } catch {
                return error is HubEnded
              }
            }
          }
        }
        try sleep(for: .milliseconds(1))
        try group.stop(timeout: .zero)
        for caller in callers {
          let isTold = try caller.get(timeout: .seconds(30))
          #expect(isTold)
        }
      }
    }
  }

  @Test func droppingItStopsIt() async throws {
    let log = SharedLog()
    try await runGreen {
      let before = openDescriptors()
      var group: HubGroup? = try HubGroup(hubs: 1)
      try group?.spawn {
        log.add("begins")
        defer { log.add("ends") }
        try sleep(for: .seconds(3600))
      }
      while log.entries.isEmpty { try sleep(for: .milliseconds(1)) }
      group = nil
      // Also the loop of the thread goes, a little later.
      while log.entries.count < 2 || openDescriptors() > before {
        try sleep(for: .milliseconds(1))
      }
    }
  }

  @Test func stoppingItFromWithinIsRefused() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let group = try HubGroup(hubs: 1)
        try group.run { try group.stop() }
      }
    }
    #expect(text(of: result).contains("stopped from one of its own hubs"))
  }

  // MARK: Async code and messages

  @Test func asyncCodeRunsOnTheHubsToo() async throws {
    let group = try HubGroup(hubs: 2)
    let numbers = try await withThrowingTaskGroup(of: Int.self) { tasks in
      for number in 0..<20 {
        tasks.addTask {
          try await group.run(on: number % 2) {
            try sleep(for: .milliseconds(1))
            return HubGroup.currentNumber!
          }
        }
      }
      return try await tasks.reduce(0, +)
    }
    #expect(numbers == 10)
    try await runGreen { try group.stop() }
    await #expect(throws: HubEnded.self) { try await group.run { 1 } }
  }

  @Test func messagesGoToAndFroBetweenHubs() async throws {
    try await runGreen {
      try withGroup(1) { group in
        let answers = Inbox<Int>(capacity: 4)
        let back = answers.sender
        let there = try group.run { () -> InboxSender<Int> in
          let questions = Inbox<Int>(capacity: 4)
          let sender = questions.sender
          spawn {
            for question in questions { try back.send(question * 2) }
            back.shutDown()
          }
          return sender
        }
        spawn {
          for number in 0..<200 { try there.send(number) }
          there.shutDown()
        }
        #expect(Array(answers) == (0..<200).map { $0 * 2 })
      }
    }
  }

  @Test func coresAreCounted() {
    #expect(HubGroup.coreCount >= 1)
  }
}
