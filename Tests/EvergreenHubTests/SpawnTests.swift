// Evergreen: tests of spawning, and of the order in which greenlets run
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite("Spawning", .timeLimit(.minutes(1)))
struct SpawnTests {
  @Test func neverRunsTheChildBeforeTheCallerGivesWay() async throws {
    try await runGreen {
      let log = Log()
      let child = spawn { log.add("child") }
      log.add("caller")
      #expect(!child.isReady)
      #expect(child.isActive)
      try child.join()
      #expect(log.entries == ["caller", "child"])
    }
  }

  @Test func startsChildrenInTheOrderOfSpawning() async throws {
    try await runGreen {
      let log = Log()
      let children = (0..<1000).map { number in spawn { log.add("\(number)") } }
      try joinAll(children)
      #expect(log.entries == (0..<1000).map(String.init))
    }
  }

  @Test func startsGrandchildrenAfterTheChildren() async throws {
    try await runGreen {
      let log = Log()
      let children = (0..<3).map { number in
        spawn {
          log.add("child \(number)")
          return spawn { log.add("grandchild \(number)") }
        }
      }
      for child in children { try child.get().join() }
      #expect(
        log.entries == [
          "child 0", "child 1", "child 2", "grandchild 0", "grandchild 1", "grandchild 2",
        ])
    }
  }

  @Test func greenletsAlternateStrictlyAroundYield() async throws {
    try await runGreen {
      let log = Log()
      let both = [1, 2].map { number in
        spawn {
          log.add("\(number)A")
          try Greenlet.yield()
          log.add("\(number)B")
        }
      }
      try joinAll(both)
      #expect(log.entries == ["1A", "2A", "1B", "2B"])
    }
  }

  @Test func greenletsAlternateStrictlyAroundManyYields() async throws {
    try await runGreen {
      let log = Log()
      let all = (0..<3).map { number in
        spawn {
          for round in 0..<1000 {
            log.add("\(round)-\(number)")
            try Greenlet.yield()
          }
        }
      }
      try joinAll(all)
      #expect(log.entries == (0..<1000).flatMap { round in (0..<3).map { "\(round)-\($0)" } })
    }
  }

  @Test func theWakerKeepsRunning() async throws {
    try await runGreen {
      let log = Log()
      let event = Event()
      let waiters = (0..<3).map { number in
        spawn {
          try event.wait()
          log.add("waiter \(number)")
        }
      }
      try Greenlet.yield()
      event.set()
      spawn { log.add("spawned later") }
      log.add("waker")
      try joinAll(waiters)
      try Greenlet.yield()
      #expect(log.entries == ["waker", "waiter 0", "waiter 1", "waiter 2", "spawned later"])
    }
  }

  @Test func startTwiceRunsOnce() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = Greenlet { log.add("run") }
      #expect(!greenlet.isActive)
      #expect(!greenlet.isReady)
      greenlet.start().start()
      #expect(greenlet.isActive)
      try greenlet.join()
      greenlet.start()
      greenlet.start(after: .zero)
      try Greenlet.yield()
      try sleep(for: .milliseconds(1))
      #expect(log.entries == ["run"])
      #expect(!greenlet.isActive)
    }
  }

  @Test func doesNotRunWithoutAStart() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = Greenlet { log.add("run") }
      try idle()
      #expect(log.entries.isEmpty)
      #expect(!greenlet.isReady && !greenlet.isActive && !greenlet.isSuccessful)
      #expect(greenlet.id == 0)
    }
  }

  @Test func currentIsTheRunningGreenlet() async throws {
    try await runGreen {
      let main = Hub.current.main!
      #expect(Greenlet.current === main)
      #expect(main.id == 0)
      #expect(main.name == "main")
      let box = Box<AnyGreenlet?>(nil)
      let child = spawn {
        box.value = Greenlet.current
        try sleep(for: .milliseconds(1))
        #expect(Greenlet.current === box.value)
      }
      try child.join()
      #expect(box.value === child)
      #expect(Greenlet.current === main)
    }
  }

  // MARK: Later

  @Test func startsAfterAWhileAndNotBefore() async throws {
    try await runGreenInVirtualTime { clock in
      let late = spawn(after: .seconds(3600)) { clock.elapsed }
      #expect(late.isActive && !late.isReady)
      try sleep(for: .seconds(3599))
      #expect(!late.isReady)
      try #expect(late.get() == .seconds(3600))
    }
  }

  @Test(arguments: [Duration.zero, .seconds(-1)])
  func startsInItsTurnAfterNoTime(_ delay: Duration) async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let late = spawn(after: delay) { log.add("late") }
      log.add("caller")
      try late.join()
      #expect(log.entries == ["caller", "late"])
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func startOfADelayedOneBringsItForward() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let greenlet = Greenlet { log.add("run") }.start(after: .seconds(100))
      greenlet.start()
      try greenlet.join()
      #expect(clock.elapsed == .zero)
      try sleep(for: .seconds(200))
      #expect(log.entries == ["run"])
    }
  }

  @Test func delayedOnesStartInTheOrderOfTheirTimes() async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let delays = [5, 1, 4, 2, 3, 2]
      let all = delays.enumerated().map { index, delay in
        spawn(after: .seconds(delay)) { log.add("\(delay)#\(index)") }
      }
      try joinAll(all)
      #expect(log.entries == ["1#1", "2#3", "2#5", "3#4", "4#2", "5#0"])
    }
  }

  // MARK: Who it is

  @Test func smallIDsAreUniqueAndUsedAgain() async throws {
    try await runGreen {
      var most = 0
      for _ in 0..<100 {
        let all = (0..<10).map { _ in spawn { try Greenlet.yield() } }
        #expect(Set(all.map(\.id)).count == 10)
        #expect(!all.contains { $0.id == 0 })
        most = max(most, all.map(\.id).max()!)
        try joinAll(all)
      }
      #expect(most < 100)
    }
  }

  @Test func namesAreTheIDUntilOneIsSet() async throws {
    try await runGreen {
      let greenlet = spawn { try sleep(for: .milliseconds(1)) }
      #expect(greenlet.name == "greenlet-\(greenlet.id)")
      #expect(greenlet.description == "greenlet \(greenlet.id)")
      greenlet.name = "fetcher"
      #expect(greenlet.name == "fetcher")
      #expect(greenlet.description == "greenlet \(greenlet.id) \"fetcher\"")
      try greenlet.join()
      #expect(greenlet.name == "fetcher")
      let early = Greenlet {}
      early.name = "early"
      #expect(early.start().name == "early")
      try early.join()
    }
  }

  @Test func knowsWhereAndByWhomItWasSpawned() async throws {
    try await runGreen {
      let line = #line + 1
      let child = spawn {
        let grandchild = spawn { try sleep(for: .milliseconds(1)) }
        #expect(grandchild.spawnedBy === Greenlet.current)
        return grandchild
      }
      #expect(child.spawnedAt == "EvergreenHubTests/SpawnTests.swift:\(line)")
      #expect(child.spawnedBy === Hub.current.main)
      let grandchild = try child.get()
      #expect(grandchild.spawnedAt == "EvergreenHubTests/SpawnTests.swift:\(line + 1)")
      #expect(grandchild.spawnedBy == nil, "its spawner has ended")
      try grandchild.join()
      #expect(child.spawnedBy == nil, "it has ended itself")
      #expect(Hub.current.main.spawnedBy == nil)
    }
  }

  @Test func equalityAndHashAreIdentity() async throws {
    try await runGreen {
      let one: AnyGreenlet = spawn {}
      let other: AnyGreenlet = spawn {}
      #expect(one == one)
      #expect(one != other)
      #expect(Set([one, other, one]).count == 2)
    }
  }

  @Test func takesAStackOfTheSizeAskedFor() async throws {
    try await runGreen {
      func deep(_ level: Int) -> Int {
        withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 16) { memory in
          // System calls that fail keep the optimizer from seeing that the memory is not needed.
          _ = read(-1, memory.baseAddress, memory.count)
          let below = level == 0 ? 0 : deep(level - 1)
          _ = read(-1, memory.baseAddress, memory.count)
          return below + 1
        }
      }
      let big = spawn(stackSize: 4 * 1024 * 1024) {
        let depth = deep(1000)
        #expect(Greenlet.current.stackHighWater > 1_000_000)
        return depth
      }
      try #expect(big.get() == 1001)
      #expect(big.stackHighWater == 0, "it has none any more")
      let small = spawn {}
      #expect(small.stackHighWater == 0, "it has none yet")
      try small.join()
    }
  }

  @Test func errnoBelongsToTheGreenlet() async throws {
    try await runGreen {
      let all = (1...4).map { number in
        spawn {
          for _ in 0..<10 {
            setErrno(Int32(number))
            try Greenlet.yield()
            #expect(getErrno() == Int32(number))
          }
        }
      }
      try joinAll(all, raisingErrors: true)
    }
  }
}
