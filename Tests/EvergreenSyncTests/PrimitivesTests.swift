// Evergreen: quick looks at the coordination primitives.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

@Suite struct PrimitivesTests {
  @Test func locksAndConditions() async throws {
    try await runGreen {
      let condition = Condition()
      var ready = false
      let waiter = spawn { try condition.withLock { try condition.wait { ready } } }
      let killed = spawn { try condition.withLock { try condition.wait { ready } } }
      try Greenlet.yield()
      try killed.kill()
      try condition.withLock {
        ready = true
        condition.notifyAll()
      }
      let isTrue = try waiter.get()
      #expect(isTrue)
      #expect(!condition.lock.isLocked)
      let lock = RLock()
      try lock.withLock { try lock.withLock { #expect(lock.depth == 2) } }
      #expect(!lock.isLocked)
    }
  }

  @Test func barriersBreak() async throws {
    try await runGreen {
      let barrier = Barrier(parties: 3)
      let comers = (0..<3).map { _ in spawn { try barrier.wait() } }
      let missing = try comers.map { try $0.get() }
      #expect(Set(missing) == [0, 1, 2])
      let one = spawn { try barrier.wait() }
      let other = spawn { try barrier.wait(timeout: .milliseconds(5)) }
      try joinAll([one, other])
      #expect(one.error is BrokenBarrier)
      #expect(other.error is Timeout)
      #expect(barrier.isBroken)
      barrier.reset()
      #expect(!barrier.isBroken)
    }
  }

  @Test func readersAndWriters() async throws {
    try await runGreen {
      let lock = ReadWriteLock()
      var most = 0
      var inside = 0
      let readers = (0..<3).map { _ in
        spawn {
          try lock.withReadLock {
            inside += 1
            most = max(most, inside)
            try sleep(for: .milliseconds(2))
            inside -= 1
          }
        }
      }
      let writer = spawn { try lock.withWriteLock { #expect(inside == 0) } }
      try joinAll(readers, raisingErrors: true)
      try writer.get()
      #expect(most == 3)
    }
  }

  @Test func lazyValues() async throws {
    try await runGreen {
      var made = 0
      let lazy = GreenletLazy<Int> {
        made += 1
        try sleep(for: .milliseconds(2))
        return 7
      }
      let askers = (0..<3).map { _ in spawn { try lazy.get() } }
      let answers = try askers.map { try $0.get() }
      #expect(answers == [7, 7, 7])
      #expect(made == 1)
      let result = AsyncResult<Int>()
      let getter = spawn { try result.get() }
      result.set(3)
      let three = try getter.get()
      #expect(three == 3)
      #expect(!result.trySet(.success(4)))
    }
  }
}
