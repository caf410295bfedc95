// Evergreen: tests of many readers or one writer.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct ReadWriteLockTests {
  @Test func readersAreInsideTogetherAndAWriterAlone() async throws {
    try await forSeeds(50) { simulation in
      let lock = ReadWriteLock()
      var (readers, writers, most) = (0, 0, 0)
      let all = (0..<12).map { number in
        spawn {
          if number.isMultiple(of: 4) {
            try lock.withWriteLock {
              writers += 1
              #expect(writers == 1 && readers == 0 && lock.isWriting && lock.readers == 0)
              try sleep(for: .seconds(1))
              writers -= 1
            }
          } else {
            try lock.withReadLock {
              readers += 1
              most = max(most, readers)
              #expect(writers == 0 && !lock.isWriting)
              try sleep(for: .seconds(1))
              readers -= 1
            }
          }
        }
      }
      try joinAll(all, raisingErrors: true)
      #expect(most > 1 && lock.readers == 0 && !lock.isWriting)
    }
  }

  @Test func allComeInInTheirOrder() async throws {
    try await runGreen {
      let lock = ReadWriteLock()
      let end = Event()
      var order: [String] = []
      func enter(_ name: String) throws {
        order.append(name)
        try Greenlet.yield()
      }
      let first = spawn { try lock.withReadLock { _ = try end.wait() } }
      try waitUntilBlocked()
      let others = [
        spawn { try lock.withWriteLock { try enter("w1") } },
        spawn { try lock.withReadLock { try enter("r1") } },
        spawn { try lock.withReadLock { try enter("r2") } },
        spawn { try lock.withWriteLock { try enter("w2") } },
        spawn { try lock.withReadLock { try enter("r3") } },
      ]
      try waitUntilBlocked()
      #expect(order.isEmpty)  // a writer that waits holds up the readers behind it
      end.set()
      try joinAll(others + [first], raisingErrors: true)
      #expect(order == ["w1", "r1", "r2", "w2", "r3"])
    }
  }

  @Test(arguments: WaitEnd.allCases)
  func aWriterThatGivesUpLetsTheReadersBehindItIn(_ end: WaitEnd) async throws {
    try await runGreenInVirtualTime { clock in
      let lock = ReadWriteLock()
      let reader = spawn { try lock.withReadLock { try sleep(for: .seconds(100)) } }
      try waitUntilBlocked()
      let writer = spawn {
        switch end {
        case .kill: try lock.withWriteLock { Issue.record("came in") }
        case .timeout: try lock.withWriteLock(timeout: .seconds(1)) { Issue.record("came in") }
        case .enclosingTimeout:
          try withTimeout(.seconds(1)) { try lock.withWriteLock { Issue.record("came in") } }
        }
      }
      try waitUntilBlocked()
      let behind = spawn { try lock.withReadLock { clock.elapsed } }
      try waitUntilBlocked()
      #expect(!behind.isReady)
      if end == .kill { try writer.kill() }
      try #expect(behind.get() == (end == .kill ? .zero : .seconds(1)))
      #expect(end == .kill ? writer.error is GreenletExit : writer.error is Timeout)
      try reader.get()
    }
  }

  @Test func aTurnThatMeetsAKillIsGivenBack() async throws {
    try await forSeeds(50) { _ in
      let lock = ReadWriteLock()
      let victim = spawn { try lock.withWriteLock { try Greenlet.yield() } }
      let holder = spawn { try lock.withWriteLock { try Greenlet.yield() } }
      let killer = spawn { try victim.kill(waiting: false) }
      try joinAll([victim, holder, killer])
      try lock.withWriteLock(timeout: .zero) {}
      #expect(lock.readers == 0 && !lock.isWriting)
    }
  }

  @Test func timeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let lock = ReadWriteLock()
      let writer = spawn { try lock.withWriteLock { try sleep(for: .seconds(100)) } }
      try waitUntilBlocked()
      #expect(throws: Timeout.self) { try lock.withReadLock(timeout: .seconds(2)) {} }
      #expect(throws: Timeout.self) { try lock.withWriteLock(timeout: .seconds(3)) {} }
      #expect(throws: Timeout.self) { try lock.withReadLock(timeout: .zero) {} }
      #expect(clock.elapsed == .seconds(5))
      try writer.kill()
      struct Failure: Error {}
      #expect(throws: Failure.self) { try lock.withReadLock(timeout: .zero) { throw Failure() } }
      try #expect(lock.withWriteLock { 7 } == 7)
    }
  }

  @Test func anotherThreadIsRefused() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let lock = ReadWriteLock()
        try ThreadPool.run { try lock.withReadLock {} }
      }
    }
    expectSentence("belongs to the hub of another thread", in: result)
  }
}
