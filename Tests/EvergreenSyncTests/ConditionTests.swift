// Evergreen: tests of waiting under a lock.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct ConditionTests {
  @Test func wakesAsManyAsItIsTold() async throws {
    try await runGreen {
      let condition = Condition()
      var woken: [Int] = []
      let waiters = (0..<7).map { number in
        spawn {
          try condition.withLock {
            try #expect(condition.wait())
            woken.append(number)
          }
        }
      }
      try waitUntilBlocked()
      #expect(!condition.lock.isLocked)  // given back while they wait
      try condition.withLock { condition.notify() }
      try waitUntilBlocked()
      #expect(woken == [0])
      try condition.withLock {
        condition.notify(0)
        condition.notify(3)
      }
      try waitUntilBlocked()
      #expect(woken == [0, 1, 2, 3])
      try condition.withLock { condition.notifyAll() }
      try joinAll(waiters, raisingErrors: true)
      #expect(woken == Array(0..<7))
    }
  }

  @Test func whoIsNotifiedWaitsForTheLock() async throws {
    try await runGreen {
      let condition = Condition()
      var isInside = false
      let waiter = spawn {
        try condition.withLock {
          try condition.wait()
          #expect(!isInside && condition.lock.owner === Greenlet.current)
        }
      }
      try waitUntilBlocked()
      try condition.withLock {
        isInside = true
        condition.notify()
        for _ in 0..<5 { try Greenlet.yield() }
        #expect(!waiter.isReady)
        isInside = false
      }
      try waiter.get()
    }
  }

  @Test func aNotificationIsNotKeptForWhoComesLater() async throws {
    try await runGreenInVirtualTime { clock in
      let condition = Condition()
      try condition.withLock {
        condition.notifyAll()
        try #expect(!condition.wait(timeout: .seconds(3)))
        #expect(clock.elapsed == .seconds(3) && condition.lock.owner === Greenlet.current)
        try #expect(!condition.wait(timeout: .zero))
      }
      #expect(!condition.lock.isLocked)
    }
  }

  @Test func waitsUntilSomethingIsTrue() async throws {
    try await runGreen {
      let condition = Condition()
      var state = 0
      let waiter = spawn {
        try condition.withLock {
          let isTrue = try condition.wait { state == 4 }
          return isTrue && state == 4
        }
      }
      for _ in 0..<4 {
        try waitUntilBlocked()
        try condition.withLock {
          state += 1
          condition.notify()
        }
      }
      try #expect(waiter.get())
      try #expect(condition.withLock { try condition.wait(timeout: .zero) { true } })
    }
  }

  @Test func itsTimeIsForAllNotificationsTogether() async throws {
    try await runGreenInVirtualTime { clock in
      let condition = Condition()
      let waiter = spawn {
        try condition.withLock { try condition.wait(timeout: .seconds(10)) { false } }
      }
      for _ in 0..<4 {
        try sleep(for: .seconds(3))
        try condition.withLock { condition.notify() }
      }
      try #expect(!waiter.get())
      #expect(clock.elapsed == .seconds(12))
      struct Failure: Error {}
      #expect(throws: Failure.self) {
        try condition.withLock { try condition.wait { throw Failure() } }
      }
      #expect(!condition.lock.isLocked)
    }
  }

  /// The one that is killed has the lock when that is thrown, although another one has it at first.
  @Test(arguments: [WaitEnd.kill, .enclosingTimeout])
  func takesTheLockAgainWhateverIsThrown(_ end: WaitEnd) async throws {
    try await runGreenInVirtualTime { clock in
      let condition = Condition()
      var hadLock = false
      let victim = spawn {
        try withTimeout(end == .kill ? nil : .seconds(1)) {
          try condition.lock.acquire()
          defer {
            hadLock = condition.lock.owner === Greenlet.current
            condition.lock.release()
          }
          try condition.wait()
        }
      }
      try waitUntilBlocked()
      try condition.withLock {
        if end == .kill { try victim.kill(waiting: false) }
        try sleep(for: .seconds(5))
        try victim.kill(waiting: false)  // while it waits for the lock
        try sleep(for: .seconds(5))
        #expect(!victim.isReady)
      }
      try victim.join()
      #expect(hadLock && !condition.lock.isLocked)
      #expect(end == .kill ? victim.error is GreenletExit : victim.error is Timeout)
    }
  }

  @Test func aNotificationThatMeetsAKillIsNotLost() async throws {
    try await forSeeds(100) { simulation in
      let condition = Condition()
      var tokens = 0
      func take() throws {
        try condition.withLock {
          try condition.wait { tokens > 0 }
          tokens -= 1
        }
      }
      let victim = spawn(take)
      let other = spawn(take)
      try waitUntilBlocked()
      let killer = spawn { try victim.kill(waiting: false) }
      let notifier = spawn {
        try condition.withLock {
          tokens += 1
          condition.notify()
        }
      }
      try joinAll([killer, notifier])
      try waitUntilBlocked()
      #expect(tokens == 0)
      try killAll([victim, other])
    }
  }

  @Test func severalShareALock() async throws {
    try await runGreen {
      let lock = Lock()
      let (notEmpty, notFull) = (Condition(lock), Condition(lock))
      var items: [Int] = []
      let producer = spawn {
        for number in 0..<100 {
          try lock.withLock {
            try notFull.wait { items.count < 3 }
            items.append(number)
            notEmpty.notify()
          }
        }
      }
      var got: [Int] = []
      while got.count < 100 {
        try lock.withLock {
          try notEmpty.wait { !items.isEmpty }
          got.append(items.removeFirst())
          notFull.notify()
        }
      }
      try producer.get()
      #expect(got == Array(0..<100))
    }
  }

  // MARK: Misuse

  @Test func waitingWithoutTheLockIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild { _ = try Condition().wait() }
    }
    expectSentence("waits for a Condition whose lock it does not have", in: result)
  }

  @Test func notifyingWithoutTheLockIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild { Condition().notify() }
    }
    expectSentence("a Condition is notified by one that does not have its lock", in: result)
  }

  @Test func anotherThreadIsRefused() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let condition = Condition()
        try ThreadPool.run { condition.notifyAll() }
      }
    }
    expectSentence("belongs to the hub of another thread", in: result)
  }
}
