// Evergreen: tests of wait and iwait.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

@Suite struct WaitTests {
  @Test func givesObjectsInTheOrderInWhichTheyBecomeReady() async throws {
    try await runGreenInVirtualTime { clock in
      let sleepers = [3, 1, 2].map { seconds in
        spawn {
          try sleep(for: .seconds(seconds)); return seconds
        }
      }
      var log: [Int] = []
      for sleeper in iwait(for: sleepers) { log.append(sleeper.value ?? 0) }
      #expect(log == [1, 2, 3])
      #expect(clock.elapsed == .seconds(3))
      // Those that are ready already come in the order given.
      let again = try wait(for: sleepers).map { $0.value }
      #expect(again == [3, 1, 2])
    }
  }

  @Test func waitsForThingsOfSeveralKinds() async throws {
    try await runGreenInVirtualTime { _ in
      let (event, result, semaphore) = (Event(), AsyncResult<Int>(), Semaphore(value: 0))
      let worker = spawn { try sleep(for: .seconds(2)) }
      spawn(after: .seconds(1)) { result.set(throwing: QueueShutDown()) }
      spawn(after: .seconds(3)) { semaphore.release() }
      spawn(after: .seconds(4)) { event.set() }
      let objects: [any Waitable] = [event, result, semaphore, worker]
      let order = try wait(for: objects).map { object in objects.firstIndex { $0 === object } }
      #expect(order == [1, 3, 2, 0])
      #expect(semaphore.value == 1, "waiting for a permit takes none")
    }
  }

  @Test func stopsAtACountOrWhenTimeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let sleepers = (1...5).map { seconds in
        spawn {
          try sleep(for: .seconds(seconds)); return seconds
        }
      }
      let two = try wait(for: sleepers, count: 2).map { $0.value }
      #expect(two == [1, 2])
      #expect(clock.elapsed == .seconds(2))
      let inTime = try wait(for: sleepers, timeout: .milliseconds(1_500)).map { $0.value }
      #expect(inTime == [1, 2, 3])
      let now = try wait(for: sleepers, timeout: .zero)
      #expect(now.count == 3)
      let none = try wait(for: sleepers, count: 0)
      #expect(none.isEmpty)
      #expect(clock.elapsed == .milliseconds(3_500))
      try killAll(sleepers.map { $0 as AnyGreenlet })
    }
  }

  @Test func stoppingEarlyLeavesNothingBehind() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 0)
      let event = Event()
      do {
        let ready = iwait(for: [semaphore, event] as [any Waitable])
        let nothing = try ready.next(timeout: .zero)
        #expect(nothing == nil)
        event.set()
        #expect(ready.next() === event)
      }
      semaphore.release()  // finds nobody
      #expect(semaphore.value == 1)
      event.clear()
      event.set()
    }
  }

  @Test func aWaitThatIsKilledLeavesNothingBehindAndALoopPassesItOn() async throws {
    try await runGreen {
      let event = Event()
      let waiting = spawn { _ = try wait(for: [event]) }
      let looping = spawn {
        for _ in iwait(for: [event]) {}
        try Greenlet.yield()
        Issue.record("the kill was swallowed")
      }
      try Greenlet.yield()
      try killAll([waiting, looping])
      event.set()
    }
  }

  @Test func anEventThatIsSetOnlyForAMomentIsSeen() async throws {
    try await runGreen {
      let event = Event()
      let waiting = spawn { try wait(for: [event]).count }
      try Greenlet.yield()
      event.set()
      event.clear()
      let count = try waiting.get()
      #expect(count == 1)
    }
  }

  @Test func aTypeOfOnesOwnForwardsToWhatItHasInside() async throws {
    try await runGreen {
      final class Job: Waitable {
        let done = Event()
        var isReady: Bool { done.isReady }
        func enlist(_ place: WaitPlace) { done.enlist(place) }
        func delist(_ place: WaitPlace) { done.delist(place) }
      }
      let jobs = [Job(), Job()]
      spawn { jobs[1].done.set() }
      let first = try wait(for: jobs, count: 1).first
      #expect(first === jobs[1])
    }
  }

  @Test func semaphoresAreWaitedForWithoutTakingPermits() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 0)
      let looker = spawn { try semaphore.wait() }
      let taker = spawn { try semaphore.acquire() }
      try Greenlet.yield()
      semaphore.release()
      try Greenlet.yield()
      #expect(taker.isReady)
      #expect(!looker.isReady, "the permit was taken by the one that waits for it")
      semaphore.release()
      let isFree = try looker.get()
      #expect(isFree)
      #expect(semaphore.value == 1)
      let isFreeStill = try semaphore.wait(timeout: .zero)
      #expect(isFreeStill)
    }
  }
}
