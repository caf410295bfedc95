// Evergreen: tests of mutual exclusion.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct LockTests {
  @Test func belongsToTheOneThatAcquiredIt() async throws {
    try await runGreen {
      let lock = Lock()
      #expect(!lock.isLocked && lock.owner == nil)
      try #expect(lock.acquire())
      #expect(lock.isLocked && lock.owner === Greenlet.current)
      let other = spawn { lock.tryAcquire() }
      try #expect(!other.get())
      lock.release()
      #expect(!lock.isLocked && lock.owner == nil)
      #expect(lock.tryAcquire())
      lock.release()
    }
  }

  @Test func oneAtATimeIsInside() async throws {
    try await forSeeds(50) { _ in
      let lock = Lock()
      var (inside, visits) = (0, 0)
      let visitors = (0..<10).map { _ in
        spawn {
          for _ in 0..<3 {
            try lock.withLock {
              inside += 1
              #expect(inside == 1)
              try Greenlet.yield()
              inside -= 1
              visits += 1
            }
          }
        }
      }
      try joinAll(visitors, raisingErrors: true)
      #expect(visits == 30 && !lock.isLocked)
    }
  }

  @Test func goesToTheOneThatHasWaitedLongest() async throws {
    try await runGreen {
      let lock = Lock()
      try lock.acquire()
      var order: [Int] = []
      let waiters = (0..<5).map { number in
        spawn { try lock.withLock { order.append(number) } }
      }
      try waitUntilBlocked()
      lock.release()
      #expect(lock.owner === waiters[0])  // handed over: nobody overtakes
      #expect(!lock.tryAcquire())
      try joinAll(waiters, raisingErrors: true)
      #expect(order == [0, 1, 2, 3, 4])
    }
  }

  @Test func whoReleasesAndAcquiresAgainDoesNotOvertake() async throws {
    try await runGreen {
      let lock = Lock()
      var order = ""
      let greenlets = ["a", "b"].map { name in
        spawn {
          for _ in 0..<3 {
            try lock.withLock {
              order += name
              try Greenlet.yield()
            }
          }
        }
      }
      try joinAll(greenlets, raisingErrors: true)
      #expect(order == "ababab")
    }
  }

  @Test func withLockGivesItBackHoweverTheBodyEnds() async throws {
    try await runGreen {
      let lock = Lock()
      struct Failure: Error {}
      #expect(throws: Failure.self) { try lock.withLock { throw Failure() } }
      #expect(!lock.isLocked)
      let victim = spawn { try lock.withLock { try sleep(for: .seconds(60)) } }
      try waitUntilBlocked()
      #expect(lock.owner === victim)
      try victim.kill()
      #expect(!lock.isLocked)
      try #expect(lock.withLock { 7 } == 7)
    }
  }

  @Test func timeRunsOutAndTheLockIsAsBefore() async throws {
    try await runGreenInVirtualTime { clock in
      let lock = Lock()
      try lock.acquire()
      let waiter = spawn { try lock.acquire(timeout: .seconds(5)) }
      try #expect(!waiter.get())
      #expect(clock.elapsed == .seconds(5))
      lock.release()
      #expect(!lock.isLocked)
      try #expect(lock.acquire(timeout: .seconds(1)))
      #expect(clock.elapsed == .seconds(5))
      lock.release()
    }
  }

  /// The lock is released in the moment when the wait for it ends: it has an owner or is free.
  @Test(arguments: WaitEnd.allCases, [true, false])
  func isNeitherLostNorDoubled(by end: WaitEnd, releasedFirst: Bool) async throws {
    try await runGreenInVirtualTime { clock in
      let lock = Lock()
      try lock.acquire()
      var won = false
      let victim = spawn {
        switch end {
        case .kill: won = try lock.acquire()
        case .timeout: won = try lock.acquire(timeout: .seconds(1))
        case .enclosingTimeout: won = try withTimeout(.seconds(1)) { try lock.acquire() }
        }
        if won { lock.release() }
      }
      let next = spawn { try lock.withLock { true } }
      try waitUntilBlocked()
      if releasedFirst { lock.release() }
      if end == .kill { try victim.kill(waiting: false) } else { clock.advance(by: .seconds(2)) }
      if !releasedFirst { lock.release() }
      try victim.join()
      try #expect(next.get())
      #expect(!lock.isLocked)
      if releasedFirst { #expect(won) }
    }
  }

  @Test func whoOnlyLooksAgainAndAgainDoesNotStarveTheOwner() async throws {
    try await runGreen {
      let lock = Lock()
      let owner = spawn {
        try lock.withLock { for _ in 0..<10 { try Greenlet.yield() } }
      }
      try Greenlet.yield()
      #expect(lock.owner === owner)
      var looks = 0
      while try !lock.acquire(timeout: .zero) { looks += 1 }
      #expect(looks > 1)
      lock.release()
    }
  }

  @Test func aKillIsThrownToWhoOnlyLooks() async throws {
    try await runGreen {
      let lock = Lock()
      try lock.acquire()
      let spinner = spawn { while try !lock.acquire(timeout: .zero) {} }
      try Greenlet.yield()
      try spinner.kill()
      #expect(spinner.error is GreenletExit)
      lock.release()
    }
  }

  // MARK: Misuse

  @Test func waitingForOneselfIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let lock = Lock()
        try lock.acquire()
        try lock.acquire()
      }
    }
    expectSentence("waits for a Lock that it has itself; an RLock allows that", in: result)
  }

  @Test func releasingWhatAnotherHasIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let lock = Lock()
        try spawn { _ = try lock.acquire() }.join()
        lock.release()
      }
    }
    expectSentence("releases a Lock that", in: result)
  }

  @Test func releasingWhatNobodyHasIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild { Lock().release() }
    }
    expectSentence("releases a Lock that nobody has", in: result)
  }

  @Test func anotherThreadIsRefused() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let lock = Lock()
        try ThreadPool.run { _ = lock.tryAcquire() }
      }
    }
    expectSentence("belongs to the hub of another thread", in: result)
  }
}

@Suite(.timeLimit(.minutes(5))) struct RLockTests {
  @Test func itsOwnerMayAcquireItAgain() async throws {
    try await runGreen {
      let lock = RLock()
      try #expect(lock.acquire())
      #expect(lock.tryAcquire())
      try #expect(lock.acquire(timeout: .zero))
      #expect(lock.depth == 3 && lock.owner === Greenlet.current)
      let other = spawn { lock.tryAcquire() }
      lock.release()
      lock.release()
      #expect(lock.depth == 1 && lock.isLocked)
      try #expect(!other.get())
      lock.release()
      #expect(lock.depth == 0 && !lock.isLocked && lock.owner == nil)
      try lock.withLock { try lock.withLock { #expect(lock.depth == 2) } }
      #expect(!lock.isLocked)
    }
  }

  @Test func theNextOneBeginsAtDepthOne() async throws {
    try await runGreen {
      let lock = RLock()
      var order: [Int] = []
      try lock.acquire()
      try lock.acquire()
      let waiters = (0..<3).map { number in
        spawn {
          try lock.withLock {
            #expect(lock.depth == 1)
            order.append(number)
            try Greenlet.yield()
            try lock.withLock { #expect(lock.depth == 2) }
          }
        }
      }
      try waitUntilBlocked()
      lock.release()
      try waitUntilBlocked()
      #expect(order.isEmpty)
      lock.release()
      try joinAll(waiters, raisingErrors: true)
      #expect(order == [0, 1, 2] && lock.depth == 0)
    }
  }

  @Test func timeRunsOutAndTheLockIsAsBefore() async throws {
    try await runGreenInVirtualTime { clock in
      let lock = RLock()
      try lock.acquire()
      let waiter = spawn { try lock.acquire(timeout: .seconds(5)) }
      try #expect(!waiter.get())
      #expect(clock.elapsed == .seconds(5) && lock.depth == 1)
      lock.release()
      #expect(!lock.isLocked)
    }
  }

  @Test func aKilledWaiterLeavesItsPlace() async throws {
    try await runGreen {
      let lock = RLock()
      try lock.acquire()
      let victim = spawn { try lock.acquire() }
      let next = spawn { try lock.withLock { lock.depth } }
      try waitUntilBlocked()
      try victim.kill()
      lock.release()
      try #expect(next.get() == 1)
      #expect(!lock.isLocked)
    }
  }

  @Test func releasingWhatAnotherHasIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let lock = RLock()
        try spawn {
          try lock.acquire()
          try lock.acquire()
        }.join()
        lock.release()
      }
    }
    expectSentence("releases a Lock that", in: result)
  }

  @Test func releasingOnceTooOftenIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let lock = RLock()
        try lock.withLock { try lock.withLock {} }
        lock.release()
      }
    }
    expectSentence("releases a Lock that nobody has", in: result)
  }
}
