// Evergreen: tests of connections and the like.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct ResourcePoolTests {
  struct Failure: Error {}

  /// Makes numbered resources and notes which have been ended.
  final class Maker {
    var made = 0
    var ended: [Int] = []
    var delay = Duration.zero
    var failures = 0

    func make() throws -> Int {
      if delay > .zero { try sleep(for: delay) }
      if failures > 0 {
        failures -= 1
        throw Failure()
      }
      made += 1
      return made
    }
    func end(_ number: Int) { ended.append(number) }
  }

  @Test func itMakesAsManyAsAreNeededAndKeepsThem() async throws {
    try await runGreenInVirtualTime { clock in
      let maker = Maker()
      let pool = ResourcePool(maxSize: 3, disposing: maker.end, create: maker.make)
      var using = 0
      var most = 0
      try withGroup { group in
        for _ in 0..<9 {
          group.spawn {
            try pool.withResource { _ in
              using += 1
              most = max(most, using)
              try sleep(for: .seconds(1))
              using -= 1
            }
          }
        }
      }
      #expect(most == 3 && maker.made == 3 && maker.ended.isEmpty)
      #expect(pool.idleCount == 3 && pool.inUse == 0 && clock.elapsed == .seconds(3))
      try pool.withResource { _ in }
      #expect(maker.made == 3)
    }
  }

  @Test func theOrderIsAsAsked() async throws {
    try await runGreen {
      for (order, expected) in [
        (ResourcePool<Int>.Order.lastUsedFirst, [1, 1]), (.longestIdleFirst, [2, 1]),
      ] {
        let pool = ResourcePool(maxSize: 2, order: order, create: Maker().make)
        // 2 comes back first, then 1.
        try pool.withResource { _ in try pool.withResource { _ in } }
        try #expect([pool.withResource { $0 }, pool.withResource { $0 }] == expected)
      }
    }
  }

  @Test func waitersAreServedInTheirOrder() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = ResourcePool(maxSize: 1, create: Maker().make)
      var order: [Int] = []
      try withGroup { group in
        for number in 0..<5 {
          group.spawn {
            for _ in 0..<2 {
              try pool.withResource { _ in
                order.append(number)
                try sleep(for: .seconds(1))
              }
            }
          }
        }
      }
      #expect(order == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    }
  }

  @Test func aTimeoutOrKillInTheBlockThrowsTheResourceAway() async throws {
    try await runGreenInVirtualTime { _ in
      let maker = Maker()
      let pool = ResourcePool(
        maxSize: 1, keeping: { _ in true }, disposing: maker.end, create: maker.make)
      #expect(throws: Timeout.self) {
        try withTimeout(.seconds(1)) {
          try pool.withResource { _ in try sleep(for: .seconds(60)) }
        }
      }
      #expect(maker.ended == [1])
      for error in [GreenletExit(), Failure()] as [any Error] {
        let user = spawn { try pool.withResource { _ in try sleep(for: .seconds(60)) } }
        try Greenlet.yield()
        try user.kill(error)
      }
      #expect(maker.ended == [1, 2, 3])
      #expect(throws: Failure.self) {
        try withGroup { group in
          group.spawn { throw Failure() }
          try pool.withResource { _ in try sleep(for: .seconds(60)) }
        }
      }
      #expect(maker.ended == [1, 2, 3, 4] && pool.idleCount == 0)
      try #expect(pool.withResource { $0 } == 5)
    }
  }

  @Test func anErrorThrowsItAwayUnlessToldOtherwise() async throws {
    try await runGreen {
      for keeps in [false, true] {
        let maker = Maker()
        let pool = ResourcePool(
          maxSize: 1, keeping: { keeps && $0 is Failure }, disposing: maker.end,
          create: maker.make)
        #expect(throws: Failure.self) { try pool.withResource { _ in throw Failure() } }
        #expect(maker.ended == (keeps ? [] : [1]) && pool.idleCount == (keeps ? 1 : 0))
      }
    }
  }

  @Test func failingToMakeOneLosesNoPlace() async throws {
    try await runGreenInVirtualTime { clock in
      let maker = Maker()
      maker.failures = 5
      maker.delay = .seconds(1)
      let pool = ResourcePool(maxSize: 2, create: maker.make)
      for _ in 0..<5 {
        #expect(throws: Failure.self) { try pool.withResource { _ in } }
      }
      #expect(pool.inUse == 0)
      // A timeout while it is made: the wait for a resource comprises that.
      #expect(throws: Timeout.self) {
        try pool.withResource(timeout: .milliseconds(500)) { _ in Issue.record("must not run") }
      }
      let user = spawn { try pool.withResource { _ in } }
      try Greenlet.yield()
      try user.kill()
      #expect(pool.inUse == 0 && maker.made == 0)
      try pool.withResource { _ in try pool.withResource { _ in } }
      #expect(maker.made == 2)
    }
  }

  @Test func aWaiterThatIsKilledAsItIsServedLosesNothing() async throws {
    try await runGreenInVirtualTime { _ in
      let maker = Maker()
      let pool = ResourcePool(maxSize: 1, disposing: maker.end, create: maker.make)
      let release = Event()
      let holder = spawn { try pool.withResource { _ in try release.wait() } }
      try Greenlet.yield()
      let killed = spawn { try pool.withResource { _ in try Greenlet.yield() } }
      let next = spawn { try pool.withResource { $0 } }
      try Greenlet.yield()
      #expect(pool.waitingCount == 2)
      release.set()
      try holder.join()  // it has given the place to the first waiter
      try killed.kill(waiting: false)
      try #expect(next.get() == 2)  // a killed use has thrown the first one away
      #expect(killed.error is GreenletExit && pool.inUse == 0 && pool.idleCount == 1)
      #expect(maker.ended == [1])
    }
  }

  @Test func aWaiterGivesUpInTime() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = ResourcePool(maxSize: 1, create: Maker().make)
      try pool.withResource { _ in
        #expect(throws: Timeout.self) { try pool.withResource(timeout: .seconds(2)) { _ in } }
        #expect(clock.elapsed == .seconds(2) && pool.waitingCount == 0)
      }
      // Only the wait counts, not the use.
      try pool.withResource(timeout: .seconds(1)) { _ in try sleep(for: .seconds(5)) }
    }
  }

  @Test func idleOnesAndOldOnesExpire() async throws {
    try await runGreenInVirtualTime { _ in
      let maker = Maker()
      let pool = ResourcePool(
        maxSize: 3, minSize: 1, maxIdleTime: .seconds(10), maxAge: .seconds(100),
        disposing: maker.end, create: maker.make)
      try pool.withResource { _ in
        try pool.withResource { _ in try pool.withResource { _ in } }
      }
      try sleep(for: .seconds(9))
      pool.disposeOfExpired()
      #expect(pool.idleCount == 3)
      try sleep(for: .seconds(1))
      try pool.withResource { #expect($0 == 1) }
      #expect(maker.ended == [3, 2] && pool.idleCount == 1)
      try sleep(for: .seconds(80))
      pool.disposeOfExpired()
      #expect(pool.idleCount == 1)  // so many are kept
      try pool.withResource { _ in try sleep(for: .seconds(20)) }
      #expect(maker.ended == [3, 2, 1] && pool.idleCount == 0)  // but none for so long
    }
  }

  @Test func sickOnesAreReplaced() async throws {
    try await runGreenInVirtualTime { _ in
      let maker = Maker()
      var sick: Set<Int> = []
      let pool = ResourcePool(
        maxSize: 3,
        isHealthy: { number in
          try sleep(for: .seconds(1))
          if number == 1 { throw Failure() }
          return !sick.contains(number)
        }, disposing: maker.end, create: maker.make)
      try pool.withResource { _ in try pool.withResource { _ in try pool.withResource { _ in } } }
      sick = [2]
      try #expect(pool.withResource { $0 } == 3)
      #expect(maker.ended == [1, 2])
      // Killed while it is asked: the resource goes, and the place comes back.
      let user = spawn { try pool.withResource { _ in } }
      try Greenlet.yield()
      try user.kill()
      #expect(maker.ended == [1, 2, 3] && pool.inUse == 0)
      try #expect(pool.withResource { $0 } == 4)
    }
  }

  @Test func fillMakesTheLeast() async throws {
    try await runGreen {
      let maker = Maker()
      let pool = ResourcePool(maxSize: 5, minSize: 3, create: maker.make)
      try pool.fill()
      try pool.fill()
      #expect(pool.idleCount == 3 && maker.made == 3)
      maker.failures = 1
      pool.disposeOfIdle()
      #expect(throws: Failure.self) { try pool.fill() }
      #expect(pool.inUse == 0)
    }
  }

  @Test func closingEndsWaitersAndIdleOnesAndDrainWaitsForTheRest() async throws {
    try await runGreenInVirtualTime { clock in
      let maker = Maker()
      let pool = ResourcePool(maxSize: 2, disposing: maker.end, create: maker.make)
      try pool.withResource { _ in try pool.withResource { _ in } }
      let users = (0..<4).map { _ in
        spawn { try pool.withResource { _ in try sleep(for: .seconds(5)) } }
      }
      try Greenlet.yield()
      try #expect(!pool.drain(timeout: .seconds(1)))
      #expect(users[2].error is ResourcePoolClosed && users[3].error is ResourcePoolClosed)
      #expect(maker.ended.isEmpty)
      try #expect(pool.drain())
      #expect(maker.ended.sorted() == [1, 2] && clock.elapsed == .seconds(5))
      #expect(throws: ResourcePoolClosed.self) { try pool.withResource { _ in } }
      #expect(throws: ResourcePoolClosed.self) { try pool.fill() }
      #expect(maker.made == 2)
    }
  }

  @Test func oneThatIsMadeAsThePoolIsClosedIsEnded() async throws {
    try await runGreenInVirtualTime { _ in
      let maker = Maker()
      maker.delay = .seconds(5)
      let pool = ResourcePool(maxSize: 2, disposing: maker.end, create: maker.make)
      let user = spawn { try pool.withResource { _ in Issue.record("must not run") } }
      try Greenlet.yield()
      try #expect(pool.drain())
      #expect(user.error is ResourcePoolClosed && maker.ended == [1])
    }
  }

  @Test func endingOneIsShielded() async throws {
    try await runGreenInVirtualTime { clock in
      var isEnded = false
      let pool = ResourcePool(
        maxSize: 1,
        disposing: { _ in
          try sleep(for: .seconds(3))
          isEnded = true
        }, create: Maker().make)
      let user = spawn { try pool.withResource { _ in try sleep(for: .seconds(60)) } }
      try sleep(for: .seconds(1))
      try user.kill(waiting: false)
      try sleep(for: .seconds(1))
      try user.kill()
      #expect(isEnded && clock.elapsed == .seconds(4))
    }
  }
}
