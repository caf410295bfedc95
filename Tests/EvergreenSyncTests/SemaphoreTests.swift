// Evergreen: tests of permits.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct SemaphoreTests {
  @Test func countsPermits() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 2)
      #expect(semaphore.value == 2 && !semaphore.isLocked)
      #expect(semaphore.tryAcquire())
      try #expect(semaphore.acquire())
      #expect(semaphore.value == 0 && semaphore.isLocked)
      #expect(!semaphore.tryAcquire())
      try #expect(!semaphore.acquire(timeout: .zero))
      semaphore.release(3)
      #expect(semaphore.value == 3)
    }
  }

  @Test func permitsGoToThoseWhoWaitedLongest() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 0)
      var order: [Int] = []
      let waiters = (0..<5).map { number in
        spawn {
          try semaphore.acquire()
          order.append(number)
        }
      }
      try idle()
      semaphore.release(2)
      try idle()
      #expect(order == [0, 1])
      semaphore.release(3)
      try joinAll(waiters)
      #expect(order == [0, 1, 2, 3, 4])
      #expect(semaphore.value == 0)
    }
  }

  @Test func whoReleasesAndAcquiresAgainDoesNotOvertake() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 1)
      var order: [String] = []
      let greedy = spawn {
        for _ in 0..<3 {
          try semaphore.withPermit {
            order.append("greedy")
            try Greenlet.yield()
          }
        }
      }
      let patient = spawn {
        for _ in 0..<3 {
          try semaphore.withPermit {
            order.append("patient")
            try Greenlet.yield()
          }
        }
      }
      try joinAll([greedy, patient])
      #expect(order == ["greedy", "patient", "greedy", "patient", "greedy", "patient"])
      #expect(semaphore.value == 1)
    }
  }

  @Test func aReleasedPermitIsNotFreeForOthersWhileItsNewOwnerHasNotRun() async throws {
    try await runGreen {
      let semaphore = Semaphore(value: 0)
      let waiter = spawn { try semaphore.acquire() }
      try idle()
      semaphore.release()
      #expect(semaphore.value == 0)
      #expect(!semaphore.tryAcquire())
      try #expect(waiter.get())
    }
  }

  enum End: CaseIterable, Sendable { case kill, timeout, enclosingTimeout }

  /// The victim is ended in the moment of the release: it may have the permit or not, but exactly
  /// one permit exists afterwards.
  @Test(arguments: End.allCases, [true, false])
  func noPermitIsLostOrDoubled(by end: End, releasedFirst: Bool) async throws {
    try await runGreenInVirtualTime { clock in
      let semaphore = Semaphore(value: 0)
      var won = false
      let victim = spawn {
        switch end {
        case .kill: won = try semaphore.acquire()
        case .timeout: won = try semaphore.acquire(timeout: .seconds(1))
        case .enclosingTimeout: won = try withTimeout(.seconds(1)) { try semaphore.acquire() }
        }
      }
      try idle()
      func strike() throws {
        if end == .kill { try victim.kill(waiting: false) } else { clock.advance(by: .seconds(2)) }
      }
      if releasedFirst {
        semaphore.release()
        try strike()
      } else {
        try strike()
        semaphore.release()
      }
      try victim.join()
      #expect(semaphore.value == (won ? 0 : 1))
      if releasedFirst { #expect(won) }
    }
  }

  @Test(arguments: End.allCases)
  func anEndedWaiterDoesNotSwallowThePermitOfTheNext(end: End) async throws {
    try await runGreenInVirtualTime { _ in
      let semaphore = Semaphore(value: 0)
      let victim = spawn {
        switch end {
        case .kill: return try semaphore.acquire()
        case .timeout: return try semaphore.acquire(timeout: .seconds(1))
        case .enclosingTimeout: return try withTimeout(.seconds(1)) { try semaphore.acquire() }
        }
      }
      let next = spawn { try semaphore.acquire() }
      try idle()
      if end == .kill { try victim.kill() } else { try sleep(for: .seconds(2)) }
      #expect(victim.isReady)
      semaphore.release()
      try #expect(next.get())
      #expect(semaphore.value == 0)
    }
  }

  @Test func randomKillsAndTimeoutsKeepTheNumberOfPermits() async throws {
    try await runGreenInVirtualTime { _ in
      let semaphore = Semaphore(value: 3)
      var held = 0
      var most = 0
      var random = SystemRandomNumberGenerator()
      let workers = (0..<200).map { number in
        let patience = Duration.milliseconds(Int.random(in: 0...40, using: &random))
        let work = Duration.milliseconds(Int.random(in: 0...5, using: &random))
        return spawn {
          guard try semaphore.acquire(timeout: number % 3 == 0 ? patience : nil) else { return }
          defer { semaphore.release() }
          held += 1
          defer { held -= 1 }
          most = max(most, held)
          try sleep(for: work)
        }
      }
      for victim in workers where Bool.random() {
        try sleep(for: .milliseconds(1))
        try victim.kill(waiting: false)
      }
      try joinAll(workers)
      #expect(semaphore.value == 3)
      #expect(most <= 3)
    }
  }

  @Test func withPermitGivesBackHoweverTheBodyEnds() async throws {
    struct Failure: Error {}
    try await runGreen {
      let semaphore = Semaphore(value: 1)
      #expect(throws: Failure.self) { try semaphore.withPermit { throw Failure() } }
      #expect(semaphore.value == 1)
      let victim = spawn { try semaphore.withPermit { try sleep(for: .seconds(60)) } }
      try idle()
      #expect(semaphore.value == 0)
      try victim.kill()
      #expect(semaphore.value == 1)
      // Killed while it waits for the permit it has none to give back.
      #expect(semaphore.tryAcquire())
      let waiting = spawn { try semaphore.withPermit {} }
      try idle()
      try waiting.kill()
      #expect(semaphore.value == 0)
    }
  }

  @Test func aBoundedOneTakesBackWhatItGave() async throws {
    try await runGreen {
      let semaphore = BoundedSemaphore(value: 2)
      try semaphore.acquire()
      try semaphore.acquire()
      let waiter = spawn { try semaphore.withPermit {} }
      try idle()
      semaphore.release()
      try waiter.join()
      semaphore.release()
      #expect(semaphore.value == 2)
    }
  }

  @Test func releasingTooOftenIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let semaphore = BoundedSemaphore(value: 1)
        semaphore.release()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("released 1 of 1 permits, of which 1 are free"))
  }

  @Test func anotherThreadIsRefused() async throws {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let semaphore = Semaphore(value: 0)
        try ThreadPool.run { semaphore.release() }
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("belongs to the hub of another thread"))
  }
}
