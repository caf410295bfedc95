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
