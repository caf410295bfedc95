// Evergreen: quick looks at the coordination primitives.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

@Suite struct PrimitivesTests {
  @Test func queuesPassOnInOrderWithBackPressure() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 2)
      var log: [String] = []
      let producer = spawn {
        for number in 1...5 {
          try queue.put(number)
          log.append("put \(number)")
        }
        queue.shutDown()
      }
      let consumer = spawn {
        for number in queue { log.append("got \(number)") }
        log.append("end")
      }
      try joinAll([producer, consumer], raisingErrors: true)
      #expect(log.filter { $0.hasPrefix("got") } == (1...5).map { "got \($0)" })
      #expect(log.last == "end")
      #expect(throws: QueueShutDown.self) { try queue.put(6) }
      #expect(throws: QueueShutDown.self) { try queue.get() }
    }
  }

  @Test func oneOfTwoWaitersDies() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      let first = spawn { try queue.get() }
      let second = spawn { try queue.get() }
      try Greenlet.yield()
      try queue.put(1)
      try first.kill(waiting: false)  // it has won already
      try queue.put(2)
      let got = try second.get()
      #expect(got == 2)
      try first.join()
      #expect(first.value == 1)
    }
  }

  @Test func priorities() async throws {
    try await runGreen {
      let queue = PriorityQueue<Int>()
      for number in [3, 1, 2, 5, 4, 1] { try queue.put(number) }
      queue.shutDown()
      #expect(Array(queue) == [1, 1, 2, 3, 4, 5])
      let stack = LifoQueue<Int>()
      for number in 1...3 { try stack.put(number) }
      stack.shutDown()
      #expect(Array(stack) == [3, 2, 1])
    }
  }

  @Test func channels() async throws {
    try await runGreen {
      let channel = Channel<Int>()
      var log: [String] = []
      let sender = spawn {
        for number in 1...3 {
          try channel.put(number)
          log.append("put \(number)")
        }
        channel.shutDown()
      }
      let receiver = spawn { for number in channel { log.append("got \(number)") } }
      try joinAll([sender, receiver], raisingErrors: true)
      #expect(log.filter { $0.hasPrefix("got") } == ["got 1", "got 2", "got 3"])
      let isPut = try Channel<Int>().put(1, timeout: .milliseconds(1))
      #expect(!isPut)
      let nothing = try Channel<Int>().get(timeout: .milliseconds(1))
      #expect(nothing == nil)
    }
  }

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
