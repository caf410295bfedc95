// Evergreen: tests of limited sets of greenlets.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct PoolTests {
  @Test func neverRunsMoreThanItsSize() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 3)
      var running = 0
      var most = 0
      var done = 0
      for number in 0..<50 {
        try pool.spawn {
          running += 1
          most = max(most, running)
          try sleep(for: .milliseconds(number % 7))
          running -= 1
          done += 1
        }
        #expect(pool.count <= 3)
      }
      try #expect(pool.join())
      #expect(most == 3)
      #expect(done == 50)
      #expect(pool.isEmpty && pool.freeCount == 3 && !pool.isFull)
    }
  }

  @Test func aMemberWhoseErrorIsBeingHandledHasLeft() async throws {
    struct Failure: Error {}
    try await runGreenInVirtualTime { clock in
      let handled = Event()
      Hub.current.onError = { _, _ in
        try sleep(for: .seconds(100))
        handled.set()
      }
      let pool = Pool(size: 2)
      let failed = try pool.spawn { throw Failure() }
      let sleeper = try pool.spawn { try sleep(for: .seconds(1000)) }
      try Greenlet.yield()
      #expect(pool.greenlets == [sleeper])
      #expect(failed.isReady)
      try #expect(joinAll([failed, sleeper] as [AnyGreenlet], timeout: .seconds(1)) == [failed])
      try #expect(pool.kill(timeout: .seconds(5)))
      try #expect(pool.kill())
      #expect(clock.elapsed == .seconds(1))
      #expect(!handled.isSet)
      try handled.wait()
      #expect(pool.freeCount == 2)
    }
  }

  @Test func joinAllSeesOnesWhoseErrorIsBeingHandled() async throws {
    struct Failure: Error {}
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { _, _ in try sleep(for: .seconds(100)) }
      let failing = spawn {
        try sleep(for: .seconds(1))
        throw Failure()
      }
      try #expect(joinAll([failing], timeout: .seconds(5)) == [failing])
      #expect(clock.elapsed == .seconds(1))
    }
  }

  @Test func spawnWaitsForAPlace() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 1)
      try pool.spawn { try sleep(for: .seconds(10)) }
      #expect(pool.isFull)
      try pool.spawn {}
      #expect(clock.elapsed >= .seconds(10))
      try pool.join()
    }
  }

  @Test func spawnersAreServedInTheirOrder() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 1)
      var order: [Int] = []
      let spawners = (0..<5).map { number in
        spawn {
          try pool.spawn {
            order.append(number)
            try sleep(for: .seconds(1))
          }
        }
      }
      try joinAll(spawners)
      try pool.join()
      #expect(order == [0, 1, 2, 3, 4])
    }
  }

  @Test func trySpawnRefusesWhenFull() async throws {
    try await runGreen {
      let pool = Pool(size: 1)
      let release = Event()
      let first = pool.trySpawn { try release.wait() }
      #expect(first != nil)
      #expect(pool.trySpawn {} == nil)
      release.set()
      try pool.join()
      try #expect(pool.trySpawn { 5 }?.get() == 5)
    }
  }

  @Test func withoutASizeThereIsNoLimit() async throws {
    try await runGreen {
      let pool = Pool()
      let release = Event()
      for _ in 0..<1000 { try pool.spawn { try release.wait() } }
      #expect(pool.count == 1000 && !pool.isFull)
      release.set()
      try pool.join()
      #expect(pool.isEmpty)
    }
  }

  @Test func waitAvailableDoesNotTakeThePlace() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 1)
      try #expect(pool.waitAvailable())
      #expect(pool.freeCount == 1)
      try pool.spawn { try sleep(for: .seconds(5)) }
      try #expect(!pool.waitAvailable(timeout: .zero))
      try #expect(!pool.waitAvailable(timeout: .seconds(1)))
      try #expect(pool.waitAvailable(timeout: .seconds(10)))
      #expect(pool.freeCount == 1)
      // Two may wait for the one place and both see it.
      try pool.spawn { try sleep(for: .seconds(5)) }
      let watchers = (0..<2).map { _ in spawn { try pool.waitAvailable() } }
      for watcher in watchers { try #expect(watcher.get()) }
      #expect(pool.freeCount == 1)
    }
  }

  @Test func aKilledSpawnerSpawnsNothingAndLosesNoPlace() async throws {
    try await runGreen {
      let pool = Pool(size: 1)
      let release = Event()
      var ran = false
      try pool.spawn { try release.wait() }
      let spawner = spawn { _ = try pool.spawn { ran = true } }
      try idle()
      try spawner.kill()
      release.set()
      try pool.join()
      #expect(!ran)
      #expect(pool.freeCount == 1)
    }
  }

  @Test func anEndedGreenletFreesItsPlaceHoweverItEnded() async throws {
    struct Failure: Error {}
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let pool = Pool(size: 3)
      let failing = try pool.spawn { throw Failure() }
      let killed = try pool.spawn { try sleep(for: .seconds(60)) }
      let unstarted = try pool.spawn { Issue.record("must not run") }
      #expect(pool.isFull)
      try unstarted.kill(waiting: false)
      #expect(pool.freeCount == 1)
      try killed.kill()
      try failing.join()
      #expect(pool.isEmpty && pool.freeCount == 3)
    }
  }

  @Test func joinWaitsUntilAllHaveEnded() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 10)
      for seconds in 1...5 { try pool.spawn { try sleep(for: .seconds(seconds)) } }
      try #expect(!pool.join(timeout: .milliseconds(2500)))
      #expect(pool.count == 3)
      try #expect(pool.join())
      #expect(clock.elapsed >= .seconds(5))
      try #expect(pool.join(timeout: .zero))
    }
  }

  @Test func killEndsAllAndThoseThatAreAdded() async throws {
    try await runGreen {
      let pool = Pool(size: 10)
      var cleaned = 0
      for _ in 0..<5 {
        try pool.spawn {
          defer {
            cleaned += 1
            if cleaned == 1 { _ = pool.trySpawn { try sleep(for: .seconds(60)) } }
          }
          try sleep(for: .seconds(60))
        }
      }
      try idle()
      try #expect(pool.kill())
      #expect(cleaned == 5)
      #expect(pool.isEmpty && pool.freeCount == 10)
    }
  }

  @Test func killWithoutWaitingReturnsAtOnce() async throws {
    try await runGreen {
      let pool = Pool(size: 2)
      try pool.spawn { try sleep(for: .seconds(60)) }
      try idle()
      try #expect(!pool.kill(waiting: false))
      try #expect(pool.join(timeout: .seconds(10)))
    }
  }

  @Test func killGivesUpOnAStubbornOneWhenTimeRunsOut() async throws {
    try await runGreen {
      let pool = Pool()
      let release = Event()
      try pool.spawn {
        do { try sleep(for: .seconds(60)) } catch { try release.wait() }
      }
      try idle()
      try #expect(!pool.kill(timeout: .milliseconds(20)))
      release.set()
      try #expect(pool.join())
    }
  }

  @Test func killCountsTheTimeOfItsHub() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool()
      for seconds in [40, 80, 120] {
        try pool.spawn {
          do { try sleep(for: .seconds(3600)) } catch { try sleep(for: .seconds(seconds)) }
        }
      }
      try idle()
      let begin = clock.elapsed
      try #expect(!pool.kill(timeout: .seconds(60)))
      let time = clock.elapsed - begin
      #expect(time >= .seconds(60) && time < .seconds(61))
      #expect(pool.count == 2)
      try #expect(!pool.kill(timeout: .zero))
      try #expect(pool.join())
    }
  }

  /// As a handler does that stops its own server.
  @Test func aMemberThatKillsThePoolEndsItselfToo() async throws {
    for others in [0, 1, 5] {
      try await runGreen {
        let pool = Pool()
        let members = try (0..<others).map { _ in try pool.spawn { try sleep(for: .seconds(60)) } }
        var wentOn = false
        let killer = try pool.spawn {
          try idle()
          try pool.kill()
          wentOn = true
        }
        try #expect(pool.join(timeout: .seconds(30)))
        #expect(!wentOn)
        #expect(killer.error is GreenletExit)
        #expect(members.allSatisfy { $0.error is GreenletExit })
      }
    }
  }

  @Test func membersMaySpawnIntoThePool() async throws {
    try await runGreen {
      let pool = Pool(size: 2)
      var depth = 0
      func descend() throws {
        depth += 1
        if depth < 100 { try pool.spawn { try descend() } }
      }
      try pool.spawn { try descend() }
      while !pool.isEmpty { try pool.join() }
      #expect(depth == 100)
    }
  }

  /// gevent stands still here; eventlet's test_reentrant.
  @Test func aMemberOfTheFullPoolRunsWhatItSpawnsItself() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 1)
      var order: [String] = []
      let outer = try pool.spawn {
        order.append("outer begins")
        let inner = try pool.spawn {
          order.append("inner")
          try sleep(for: .seconds(1))
          return 5
        }
        #expect(inner.isReady && inner.isSuccessful)
        order.append("outer ends")
        return try inner.get()
      }
      try #expect(outer.get() == 5)
      #expect(order == ["outer begins", "inner", "outer ends"])
      #expect(pool.isEmpty && pool.freeCount == 1)
    }
  }

  @Test func aMemberSpawnsAGreenletWhileThereIsAPlace() async throws {
    try await runGreen {
      let pool = Pool(size: 2)
      try pool.spawn {
        let child = try pool.spawn { 1 }
        #expect(!child.isReady && pool.count == 2)
      }
      try pool.join()
    }
  }

  @Test func aStrangerWaitsForAPlaceThatAMemberNeedNotWaitFor() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 1)
      try pool.spawn { try sleep(for: .seconds(1)) }
      let stranger = try pool.spawn { 1 }
      #expect(!stranger.isReady && clock.elapsed == .seconds(1))
      try pool.join()
    }
  }

  @Test func theErrorOfWhatAMemberRunsItselfIsItsOwnAndReportedOnce() async throws {
    struct Failure: Error {}
    try await runGreen {
      var reports = 0
      Hub.current.onError = { _, error in if error is Failure { reports += 1 } }
      let pool = Pool(size: 1)
      let outer = try pool.spawn {
        let inner = try pool.spawn { throw Failure() }
        #expect(inner.error is Failure)
        try Greenlet.yield()
        return 1
      }
      try #expect(outer.get() == 1)
      #expect(reports == 1)
    }
  }

  @Test func aKillReachesTheMemberThatRunsAnotherBody() async throws {
    struct Failure: Error {}
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { _, _ in }
      let pool = Pool(size: 1)
      var wentOn = false
      let outer = try pool.spawn {
        try pool.spawn { try sleep(for: .seconds(60)) }
        wentOn = true
      }
      try Greenlet.yield()
      try outer.kill(Failure())
      #expect(outer.error is Failure && !wentOn && clock.elapsed == .zero)
      let other = try pool.spawn {
        do {
          try withTimeout(.seconds(1)) { _ = try pool.spawn { try sleep(for: .seconds(60)) } }
        } catch is Timeout { return true }
        return false
      }
      try #expect(other.get())
      #expect(clock.elapsed == .seconds(1))
    }
  }

  /// eventlet's test_pool_smash: whoever spawns, nothing stands still and nothing is lost.
  @Test(arguments: [1, 2, 3, 7]) func aHeavyMixEnds(size: Int) async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: size)
      var done = 0
      var running = 0
      var expected = 0
      func work(_ depth: Int, _ seed: Int) throws {
        running += 1
        defer { running -= 1 }
        #expect(pool.count <= size)
        try sleep(for: .milliseconds(seed % 5))
        if depth < 4 {
          for child in 0..<(seed % 3 + 1) {
            expected += 1
            if child % 2 == 0 {
              try pool.spawn { try work(depth + 1, seed * 7 + child) }
            } else {
              try pool.apply { try work(depth + 1, seed * 5 + child) }
            }
          }
        }
        done += 1
      }
      for seed in 0..<30 {
        expected += 1
        try pool.spawn { try work(0, seed) }
      }
      while !pool.isEmpty { try pool.join() }
      #expect(done == expected && done > 200 && running == 0)
      #expect(pool.freeCount == size)
    }
  }

  @Test func aPlaceGivenToAKilledSpawnerIsNotLost() async throws {
    try await runGreen {
      let pool = Pool(size: 1)
      let release = Event()
      try pool.spawn { try release.wait() }
      let spawner = spawn { _ = try pool.spawn {} }
      try idle()
      release.set()
      try Greenlet.yield()  // the place is the spawner's now
      try spawner.kill(waiting: false)
      try joinAll([spawner])
      try pool.join()
      #expect(pool.freeCount == 1)
      try pool.spawn {}.join()
    }
  }

  @Test func anotherSizeCountsAtOnce() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 1)
      var begun: [Int] = []
      for _ in 0..<6 {
        spawn {
          try pool.spawn {
            begun.append(Int(clock.elapsed / .seconds(1)))
            try sleep(for: .seconds(10))
          }
        }
      }
      try sleep(for: .seconds(1))
      #expect(pool.waitingCount == 5)
      pool.size = 3
      try sleep(for: .seconds(1))
      #expect(begun == [0, 1, 1] && pool.isFull)
      pool.size = 1
      #expect(pool.freeCount == 0)
      try sleep(for: .seconds(60))
      #expect(begun == [0, 1, 1, 11, 21, 31])
      try pool.join()
      pool.size = nil
      #expect(pool.freeCount == .max)
    }
  }

  @Test func addWaitsForAPlace() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 1)
      try pool.spawn { try sleep(for: .seconds(5)) }
      let other = Greenlet { 3 }
      try #expect(!pool.add(other, timeout: .seconds(1)))
      try #expect(pool.add(other))
      #expect(clock.elapsed == .seconds(5) && pool.isFull)
      try #expect(pool.add(other, timeout: .zero))
      try #expect(other.start().get() == 3)
      #expect(pool.freeCount == 1)
      try #expect(pool.add(other))
      #expect(pool.freeCount == 1)
      let discarded = spawn { try sleep(for: .seconds(5)) }
      try pool.add(discarded)
      pool.discard(discarded)
      #expect(pool.freeCount == 1)
      try discarded.join()
      #expect(pool.freeCount == 1)
    }
  }

  /// eventlet's test_recursive_waitall.
  @Test func aMemberThatWaitsForAllIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let pool = Pool(size: 2)
        try pool.spawn { try pool.join() }
        try pool.join()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("greenlet 2 waits for the end of a group that it is in itself"))
  }

  @Test func aMemberMayWaitForAllForAWhile() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 2)
      let member = try pool.spawn { try pool.join(timeout: .seconds(1)) }
      try #expect(!member.get())
    }
  }

  @Test func aSizeBelowOneIsABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild { _ = Pool(size: 0) }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("a pool cannot have the size 0"))
  }
}
