// Evergreen: tests of the threads that do blocking work.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Lets threads wait for the test.
private final class Gate: Sendable {
  private let signal = ThreadSignal()
  private let isOpen = Atomic(false)
  private let inside = Atomic(0)

  var arrived: Int { inside.load(ordering: .acquiring) }

  func open() {
    isOpen.store(true, ordering: .releasing)
    signal.wakeAll()
  }

  func pass() {
    inside.add(1, ordering: .acquiringAndReleasing)
    while true {
      let seen = signal.generation
      if isOpen.load(ordering: .acquiring) { return }
      _ = signal.wait(since: seen, atMost: .seconds(60))
    }
  }
}

private func threadNumber() -> UInt { UInt(bitPattern: pthread_self().hashValue) }

/// Lets the loop turn until something that threads bring about has come true.
private func poll(_ condition: () -> Bool) throws {
  while !condition() { try sleep(for: .milliseconds(1)) }
}

@Suite(.timeLimit(.minutes(5))) struct ThreadPoolTests {
  struct Failure: Error, Equatable { var number = 0 }

  @Test func returnsResultsAndThrowsErrors() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 2)
      defer { pool.shutDown() }
      try #expect(pool.run { 6 * 7 } == 42)
      try #expect(pool.run { "text" } == "text")
      #expect(throws: Failure(number: 3)) { try pool.run { throw Failure(number: 3) } }
      try #expect(pool.run { Optional<Int>.none } == nil)
      try #expect(ThreadPool.run { 1 } == 1)
    }
  }

  @Test func runsOnAnotherThread() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let here = threadNumber()
      try #expect(pool.run { threadNumber() } != here)
    }
  }

  @Test func othersRunMeanwhile() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      let worker = spawn { try pool.run { gate.pass() } }
      try poll { gate.arrived == 1 }
      for _ in 0..<100 { try Greenlet.yield() }
      #expect(!worker.isReady)
      gate.open()
      try worker.get()
    }
  }

  @Test func growsAsWorkComesAndNoFurther() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 4)
      defer { pool.shutDown() }
      let gate = Gate()
      let workers = (0..<10).map { number in
        spawn {
          try pool.run {
            gate.pass()
            return number
          }
        }
      }
      try poll { gate.arrived == 4 }
      try idle()
      #expect(pool.threadCount == 4)
      #expect(pool.backlog == 6)
      #expect(gate.arrived == 4)
      gate.open()
      try #expect(workers.map { try $0.get() } == Array(0..<10))
      #expect(pool.backlog == 0)
      #expect(pool.threadCount <= 4)
    }
  }

  @Test func moreThreadsMayBeAllowedLater() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      let workers = (0..<3).map { _ in pool.spawn { gate.pass() } }
      try poll { gate.arrived == 1 && pool.backlog == 2 }
      #expect(pool.threadCount == 1)
      pool.maxThreads = 3
      try poll { gate.arrived == 3 }
      #expect(pool.threadCount == 3)
      gate.open()
      for worker in workers { try worker.get() }
    }
  }

  @Test func threadsThatAreTooManyEnd() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 3, idleTimeout: .seconds(600))
      defer { pool.shutDown() }
      let gate = Gate()
      let workers = (0..<3).map { number in
        pool.spawn {
          gate.pass()
          return number
        }
      }
      try poll { gate.arrived == 3 }
      pool.maxThreads = 1
      #expect(pool.threadCount == 3, "work that is under way is not disturbed")
      gate.open()
      let values = try workers.map { try $0.get() }
      #expect(values == [0, 1, 2])
      try poll { pool.threadCount == 1 }
      try #expect(pool.run { 5 } == 5)
    }
  }

  @Test func anIdleThreadIsUsedAgain() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 8, idleTimeout: .seconds(60))
      defer { pool.shutDown() }
      for _ in 0..<200 {
        try pool.run {}
        // The thread goes idle shortly after its result has come.
        try sleep(for: .microseconds(200))
      }
      #expect(pool.threadCount < 8)
    }
  }

  @Test func idleThreadsEnd() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 4, idleTimeout: .milliseconds(10))
      let gate = Gate()
      let workers = (0..<4).map { _ in spawn { try pool.run { gate.pass() } } }
      try poll { gate.arrived == 4 }
      #expect(pool.threadCount == 4)
      gate.open()
      try joinAll(workers)
      try poll { pool.threadCount == 0 }
      try #expect(pool.run { 5 } == 5)  // and come back
      pool.shutDown()
    }
  }

  @Test(arguments: [Duration.milliseconds(-500), .seconds(Int64.min), .zero])
  func withoutIdleTimeThreadsEndAtOnce(_ idleTimeout: Duration) async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1, idleTimeout: idleTimeout)
      for number in 0..<20 { try #expect(pool.run { number } == number) }
      try poll { pool.threadCount == 0 }
      pool.shutDown()
    }
  }

  @Test func idleThreadsMayStayForEver() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1, idleTimeout: .seconds(Int64.max))
      for number in 0..<20 { try #expect(pool.run { number } == number) }
      try sleep(for: .milliseconds(5))
      #expect(pool.threadCount == 1)
      pool.shutDown()
      try poll { pool.threadCount == 0 }
    }
  }

  @Test func keepsNothingOfWhatIsDone() async throws {
    final class Held: Sendable {}
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      weak var watched: Held?
      do {
        let held = Held()
        watched = held
        let gate = Gate()
        let last = Held()
        // A backlog, so that what is done lies before what is not.
        let workers =
          [spawn { try pool.run { gate.pass() } }]
          + (0..<50).map { _ in spawn { try pool.run { _ = held } } }
          + [spawn { try pool.run { _ = last } }]
        try poll { gate.arrived == 1 }
        gate.open()
        try joinAll(workers)
      }
      try poll { watched == nil }
    }
  }

  @Test func whoIsToEndDoesNoMoreWork() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let ran = Counter()
      let isKilled = Event()
      let victim = spawn {
        try isKilled.wait()  // has been set at the same moment, so the kill comes next
        defer { _ = try? pool.run { ran.add() } }
        try pool.run { ran.add() }
      }
      try Greenlet.yield()
      try victim.kill(waiting: false)
      isKilled.set()
      try victim.join()
      #expect(ran.value == 1)  // what `defer` does, after the kill
    }
  }

  @Test func aJobThatTrapsSaysWhere() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      signal(SIGILL) { _ in
        write(STDERR_FILENO, "caught", 6)
        _exit(1)
      }
      signal(SIGTRAP) { _ in
        write(STDERR_FILENO, "caught", 6)
        _exit(1)
      }
      try await runGreenInChild {
        let numbers: [Int] = []
        _ = try ThreadPool.run { numbers[numbers.count] }
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("caught"))
  }

  @Test func threadsThatEndLoseNoWork() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 2, idleTimeout: .microseconds(50))
      defer { pool.shutDown() }
      for number in 0..<500 {
        try #expect(pool.run { number } == number)
        if number % 3 == 0 { try sleep(for: .microseconds(50)) }
      }
    }
  }

  @Test func workFromThePoolsOwnThreadRunsInPlace() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let (outer, inner) = try pool.run {
        (threadNumber(), try pool.run { try pool.run { threadNumber() } })
      }
      #expect(outer == inner)
    }
  }

  @Test func theWorkOfAnotherPoolDoesNotRunInPlace() async throws {
    try await runGreen {
      let one = ThreadPool(maxThreads: 1)
      let other = ThreadPool(maxThreads: 1)
      defer {
        one.shutDown()
        other.shutDown()
      }
      let (outer, inner) = try one.run {
        // A thread of a pool may have a hub of its own for the time.
        try Hub.withHub { _ in (threadNumber(), try other.run { threadNumber() }) }
      }
      #expect(outer != inner)
    }
  }

  @Test func whoIsKilledLeavesTheWorkToEndByItself() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      let ended = Counter()
      let victim = spawn {
        try pool.run {
          gate.pass()
          ended.add()
        }
      }
      try poll { gate.arrived == 1 }
      try victim.kill()
      #expect(victim.error is GreenletExit)
      #expect(ended.value == 0)
      gate.open()
      try #expect(pool.run { 7 } == 7)
      #expect(ended.value == 1)
    }
  }

  @Test func aTimeoutAbandonsToo() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { try pool.run { gate.pass() } }
      }
      gate.open()
      try #expect(pool.run { 7 } == 7)
    }
  }

  /// Or a server that does not answer, and whom nobody asks any more, would keep others from theirs.
  @Test func abandonedWorkMayHaveThreadsOfItsOwnUpToABound() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1, maxAbandoned: 2)
      defer { pool.shutDown() }
      let gate = Gate()
      for count in 1...2 {
        let victim = spawn { try pool.run { gate.pass() } }
        try poll { gate.arrived == count }
        #expect(pool.threadCount == count)
        try victim.kill()
        try #expect(pool.run { 7 } == 7)
        #expect(pool.threadCount == count + 1)
      }
      let last = spawn { try pool.run { gate.pass() } }
      try poll { gate.arrived == 3 }
      let next = spawn { try pool.run { 8 } }
      try sleep(for: .milliseconds(20))
      #expect(!next.isReady, "work that somebody waits for counts")
      try last.kill()
      try sleep(for: .milliseconds(20))
      #expect(!next.isReady && pool.threadCount == 3, "that was the last")
      gate.open()
      try #expect(next.get() == 8)
      // Those who were too many end.
      let order = Counter()
      try (0..<20).map { _ in spawn { try pool.run { order.add() } } }.forEach { try $0.get() }
      try poll { pool.threadCount == 1 }
      #expect(order.value == 20)
    }
  }

  @Test func whatWaitsForAThreadGetsOneWhenWorkIsAbandoned() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1, maxAbandoned: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      defer { gate.open() }
      let victim = spawn { try pool.run { gate.pass() } }
      try poll { gate.arrived == 1 }
      let next = spawn { try pool.run { 8 } }
      try Greenlet.yield()
      #expect(pool.backlog == 1)
      try victim.kill()
      try #expect(next.get(timeout: .seconds(20)) == 8)
    }
  }

  @Test func abandonedWorkThatHasNotBegunIsNotDone() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let gate = Gate()
      let ran = Counter()
      let first = spawn { try pool.run { gate.pass() } }
      try poll { gate.arrived == 1 }
      let victim = spawn { try pool.run { ran.add() } }
      try idle()
      #expect(pool.backlog == 1)
      try victim.kill()
      gate.open()
      try first.get()
      try pool.run {}
      #expect(ran.value == 0)
    }
  }

  @Test func aResultThatCameBeforeTheKillIsKept() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      for _ in 0..<200 {
        let release = Event()
        var result: Int?
        let victim = spawn {
          result = try pool.run { 5 }
          try release.wait()
        }
        try Greenlet.yield()
        for _ in 0..<Int.random(in: 0..<40) { try Greenlet.yield() }
        try victim.kill()
        #expect(result == nil || result == 5)
        #expect(victim.error is GreenletExit)
      }
    }
  }

  @Test func shuttingDownFailsWhatWaitsAndLetsTheRestEnd() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      let gate = Gate()
      let running = spawn {
        try pool.run {
          gate.pass()
          return 5
        }
      }
      try poll { gate.arrived == 1 }
      let waiting = spawn { try pool.run { 6 } }
      try idle()
      pool.shutDown()
      #expect(throws: ThreadPoolClosed()) { try waiting.get() }
      #expect(throws: ThreadPoolClosed()) { _ = try pool.run { 7 } }
      gate.open()
      try #expect(running.get() == 5)
      try poll { pool.threadCount == 0 }
      pool.shutDown()
    }
  }

  @Test func theLastReferenceShutsDown() async throws {
    try await runGreen {
      var pool: ThreadPool? = ThreadPool(maxThreads: 1)
      weak let watched = pool
      try pool?.run {}
      pool = nil
      #expect(watched == nil)
    }
  }

  @Test func servesSeveralHubs() async throws {
    try await runGreen {
      let hosts = ThreadPool(maxThreads: 4)
      let pool = ThreadPool(maxThreads: 3)
      defer {
        hosts.shutDown()
        pool.shutDown()
      }
      let sums = (0..<4).map { number in
        spawn {
          try hosts.run {
            try Hub.withHub { _ in
              let workers = (0..<50).map { one in spawn { try pool.run { number * 100 + one } } }
              return try workers.map { try $0.get() }.reduce(0, +)
            }
          }
        }
      }
      try #expect(sums.map { try $0.get() } == (0..<4).map { $0 * 5000 + 1225 })
    }
  }

  @Test func aJobUnderWayIsNoDeadlock() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      let event = Event()
      spawn {
        try pool.run { _ = usleep(30_000) }
        event.set()
      }
      // Nothing but the thread can wake the main greenlet.
      try #expect(event.wait())
    }
  }

  @Test func afterTheJobADeadlockIsSeenAgain() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      defer { pool.shutDown() }
      try pool.run {}
      #expect(throws: LoopExit.self) { try Event().wait() }
      let gate = Gate()
      let victim = spawn { try pool.run { gate.pass() } }
      try poll { gate.arrived == 1 }
      try victim.kill()
      gate.open()
      #expect(throws: LoopExit.self) { try Event().wait() }
    }
  }

  @Test func theHubMayEndBeforeTheJob() async throws {
    let pool = ThreadPool(maxThreads: 1)
    let gate = Gate()
    let isDone = Counter()
    try await runGreen {
      spawn {
        try pool.run {
          gate.pass()
          isDone.add()
        }
      }
      try poll { gate.arrived == 1 }
    }
    gate.open()
    // The next hub waits behind the old one's job.
    try await runGreen { try pool.run {} }
    #expect(isDone.value == 1)
    pool.shutDown()
  }

  @Test func manyGreenletsAndThreadsAndKills() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 4, idleTimeout: .milliseconds(1))
      defer { pool.shutDown() }
      var sum = 0
      let workers = (0..<500).map { number in
        spawn {
          let result = try pool.run { number }
          sum += result
        }
      }
      for _ in 0..<50 {
        try Greenlet.yield()
        try workers.randomElement()!.kill(waiting: false)
      }
      try joinAll(workers)
      let expected = workers.indices.filter { workers[$0].error == nil }.reduce(0, +)
      #expect(sum >= expected)
      #expect(pool.backlog <= 500)
    }
  }

  @Test func noThreadsAreABug() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      _ = ThreadPool(maxThreads: 0)
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("a thread pool cannot have 0 threads"))
  }
}

/// A number that threads share.
private final class Counter: Sendable {
  private let number = Atomic(0)

  var value: Int { number.load(ordering: .acquiring) }
  func add() { number.add(1, ordering: .releasing) }
}
