// Evergreen: tests of greenlets that wait for async code
// SPDX-License-Identifier: MIT

import EvergreenConcurrency
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

enum Context {
  @TaskLocal static var request = "none"
}

@Suite("Hub.await", .timeLimit(.minutes(1)))
struct AwaitTests {
  @Test func theValueComesThrough() async throws {
    try await runGreen {
      let sum = try Hub.current.await {
        await Task.yield()
        return 3 + 4
      }
      #expect(sum == 7)
    }
  }

  @Test func theErrorComesThrough() async throws {
    try await runGreen {
      let hub = Hub.current
      #expect(throws: OneError(number: 2)) {
        let _: Int = try hub.await {
          await Task.yield()
          throw OneError(number: 2)
        }
      }
    }
  }

  /// One that two threads could not share, but may hand on.
  final class Unshared { var number = 5 }

  @Test func aValueThatIsNotSendableIsHandedOver() async throws {
    try await runGreen {
      let one = try Hub.current.await { Unshared() }
      #expect(one.number == 5)
    }
  }

  @Test func othersRunMeanwhile() async throws {
    try await runGreen {
      let hub = Hub.current
      let (stream, continuation) = AsyncStream<Int>.makeStream()
      spawn {
        try sleep(for: .milliseconds(2))
        continuation.yield(9)
      }
      let got = try hub.await { await stream.first { _ in true } }
      #expect(got == 9)
    }
  }

  @Test func manyWaitAtOnceAndNoWakeUpIsLost() async throws {
    try await runGreen {
      let hub = Hub.current
      for round in 0..<20 {
        let waiting = (0..<200).map { number in
          spawn { try hub.await { number % 3 == 0 ? { number }() : await other(number) } }
        }
        for (number, greenlet) in waiting.enumerated() {
          let got = try greenlet.get(timeout: .seconds(30))
          #expect(got == number, "round \(round)")
        }
      }
    }
  }

  @Test func aKillCancelsTheTask() async throws {
    try await warmUp()
    try await runGreen {
      let hub = Hub.current
      let isCancelled = AsyncResult<Bool>()
      let completer = isCancelled.completer
      let victim = spawn {
        try hub.await {
          do { try await Task.sleep(for: .seconds(3600)) } catch {
            completer.set(error is CancellationError)
          }
        }
      }
      try sleep(for: .milliseconds(2))
      #expect(try victim.kill(timeout: .seconds(30)))
      #expect(victim.error is GreenletExit)
      #expect(try isCancelled.get(timeout: .seconds(30)))
      #expect(try hub.join(timeout: .seconds(30)))  // nothing is left behind
    }
  }

  @Test func aTimeoutEndsItAlthoughTheTaskDoesNotHeedIt() async throws {
    try await runGreen {
      let hub = Hub.current
      let (stream, continuation) = AsyncStream<Int>.makeStream()
      let gate = Task.detached { await stream.first { _ in true } }
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(5)) { _ = try hub.await { await gate.value } }
      }
      continuation.yield(1)  // what comes too late is dropped
      let isThrough = try hub.join(timeout: .seconds(30))
      #expect(isThrough)
    }
  }

  @Test func aKillMayWaitForTheTask() async throws {
    try await runGreen {
      let hub = Hub.current
      let log = SharedLog()
      let (stream, continuation) = AsyncStream<Int>.makeStream()
      let gate = Task.detached { await stream.first { _ in true } }
      let victim = spawn {
        defer { log.add("greenlet") }
        try hub.await(waitingForCancelled: true) {
          _ = await gate.value
          log.add("task \(Task.isCancelled)")
        }
      }
      try sleep(for: .milliseconds(2))
      #expect(try !victim.kill(timeout: .milliseconds(20)))
      continuation.yield(1)
      try victim.join()
      #expect(log.entries == ["task true", "greenlet"])
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func whatIsDueIsThrownBeforeTheTaskBegins() async throws {
    try await runGreen {
      let hub = Hub.current
      let log = SharedLog()
      let greenlet = spawn {
        try Greenlet.current.kill(waiting: false)
        try hub.await { log.add("ran") }
      }
      try greenlet.join()
      #expect(greenlet.error is GreenletExit)
      try hub.join()
      #expect(log.entries == [])
    }
  }

  @Test func aResultBeatsAKillThatComesWithIt() async throws {
    try await runGreen {
      let hub = Hub.current
      let isThrough = Shared(false)
      let got = Shared(0)
      let victim = spawn {
        let value = try hub.await {
          isThrough.value = true
          return 1
        }
        got.value = value
        try sleep(for: .seconds(1))
      }
      try Greenlet.yield()
      while !isThrough.value {}  // nothing is delivered meanwhile
      let end = ContinuousClock.now.advanced(by: .milliseconds(20))
      while ContinuousClock.now < end {}
      spawn { try victim.kill() }
      try victim.join()
      // Whichever was first, the greenlet ended as one that was killed, with its result or without.
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func taskLocalsAreSeenInside() async throws {
    try await runGreen {
      let hub = Hub.current
      let (inside, after) = try Context.$request.withValue("42") {
        let inside = try hub.await {
          await Task.yield()
          return Context.request
        }
        let after = try spawn { try hub.await { Context.request } }.get()
        return (inside, after)
      }
      #expect(inside == "42")
      #expect(after == "42")
      #expect(Context.request == "none")
    }
  }

  @Test func itMayRunOnTheHub() async throws {
    try await runGreen {
      let hub = Hub.current
      let executor = hub.executor
      let places = try hub.await(on: executor) {
        var places: [Bool] = []
        for _ in 0..<3 {
          places.append(executor.isCurrent)
          await Task.yield()
        }
        return places
      }
      #expect(places == [true, true, true])
    }
  }

  @Test func aDeadlockOfTheRestIsStillFound() async throws {
    try await runGreen {
      let hub = Hub.current
      try hub.await {}
      #expect(throws: LoopExit.self) { try Event().wait() }
    }
  }

  @Test func aHubThatEndsDoesNotWaitForTheTask() async throws {
    try await warmUp()
    let isCancelled = Shared(false)
    try await runGreen {
      let hub = Hub.current
      spawn {
        try hub.await {
          do { try await Task.sleep(for: .seconds(3600)) } catch { isCancelled.value = true }
        }
      }
      try sleep(for: .milliseconds(1))
    }
    while !isCancelled.value { try await Task.sleep(for: .milliseconds(1)) }
  }

  @Test func refusesAnotherThread() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let hub = Smuggled(value: Hub.current)
        let thread = startThread { _ = try? hub.value.await { 1 } }
        _ = thread
        try sleep(for: .seconds(10))
      }
    }
    #expect(text(of: result).contains("a hub belongs to the hub of another thread"))
  }
}

private func other(_ number: Int) async -> Int {
  await Task.yield()
  return number
}
