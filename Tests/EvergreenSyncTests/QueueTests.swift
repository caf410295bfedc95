// Evergreen: tests of queues.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite struct QueueTests {
  @Test func passesOnInOrder() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      for number in 1...100 { try queue.put(number) }
      #expect(queue.count == 100)
      #expect(queue.first == 1)
      #expect(queue.capacity == nil)
      #expect(!queue.isFull)
      let got = try (1...100).map { _ in try queue.get() }
      #expect(got == Array(1...100))
      #expect(queue.isEmpty)
      #expect(queue.tryGet() == nil)
    }
  }

  @Test func holdsUpPuttersWhileItIsFull() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 2)
      var log: [String] = []
      let producer = spawn {
        for number in 1...5 {
          try queue.put(number)
          log.append("put \(number)")
        }
      }
      try Greenlet.yield()
      #expect(log == ["put 1", "put 2"])
      #expect(queue.isFull)
      #expect(queue.balance == 1)
      let isPut = try queue.tryPut(99)
      #expect(!isPut)
      for number in 1...5 {
        let got = try queue.get()
        #expect(got == number)
        try Greenlet.yield()
      }
      try producer.get()
      #expect(log.count == 5)
    }
  }

  @Test func servesGettersAndPuttersInTheOrderInWhichTheyCame() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 1)
      var log: [Int] = []
      let getters = (0..<3).map { place in
        spawn { log.append(10 * place + (try queue.get())) }
      }
      try Greenlet.yield()
      #expect(queue.balance == -3)
      for number in 1...3 { try queue.put(number) }
      // Whoever comes now is behind those that wait, and what was put is theirs.
      #expect(queue.tryGet() == nil)
      try joinAll(getters, raisingErrors: true)
      #expect(log == [1, 12, 23])

      try queue.put(0)
      let putters = (1...3).map { number in spawn { try queue.put(number) } }
      try Greenlet.yield()
      let isPut = try queue.tryPut(99)
      #expect(!isPut)
      let got = try (0...3).map { _ in try queue.get() }
      #expect(got == [0, 1, 2, 3])
      try joinAll(putters, raisingErrors: true)
    }
  }

  @Test func oneOfTwoWaitersDiesAndNothingIsLost() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      let first = spawn { try queue.get() }
      let second = spawn { try queue.get() }
      try Greenlet.yield()
      try first.kill()
      try queue.put(1)
      let got = try second.get()
      #expect(got == 1)
      #expect(first.value == nil)
      #expect(queue.balance == 0)
    }
  }

  @Test func whatHasBeenHandedOverIsKeptThoughItsGetterIsKilled() async throws {
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

  @Test func aPutterThatDiesHasPutNothing() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 1)
      try queue.put(1)
      let victim = spawn { try queue.put(2) }
      let other = spawn { try queue.put(3) }
      try Greenlet.yield()
      try victim.kill()
      let got = try (queue.get(), queue.get())
      #expect(got == (1, 3))
      _ = try other.get()
      #expect(queue.isEmpty)
    }
  }

  @Test func answersWhenTimeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let queue = Queue<Int>(capacity: 1)
      let nothing = try queue.get(timeout: .seconds(3))
      #expect(nothing == nil)
      #expect(clock.elapsed == .seconds(3))
      let unseen = try queue.get(timeout: .zero)
      #expect(unseen == nil)
      try queue.put(1)
      let isPut = try queue.put(2, timeout: .seconds(3))
      #expect(!isPut)
      #expect(clock.elapsed == .seconds(6))
      #expect(queue.count == 1)
      let got = try queue.get(timeout: .seconds(3))
      #expect(got == 1)
      #expect(queue.isEmpty)
      #expect(throws: Timeout.self) { try withTimeout(.seconds(1)) { _ = try queue.get() } }
      #expect(queue.balance == 0)
    }
  }

  @Test func aTimeoutThatComesWithTheItemLeavesItToTheGetter() async throws {
    try await runGreenInVirtualTime { _ in
      let queue = Queue<Int>()
      let getter = spawn { try queue.get(timeout: .seconds(1)) }
      spawn(after: .seconds(1)) { try queue.put(7) }
      let got = try getter.get()
      // Whichever was first: the item is with the getter or in the queue.
      #expect(got == 7 || queue.first == 7)
      #expect((got == 7) != (queue.first == 7))
    }
  }

  @Test func manyOfBothSidesLoseAndDoubleNothing() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 3)
      let consumers = (0..<5).map { _ in
        spawn {
          var got: [Int] = []
          for number in queue { got.append(number) }
          return got
        }
      }
      let producers = (0..<7).map { place in
        spawn { for number in 0..<100 { try queue.put(100 * place + number) } }
      }
      try joinAll(producers, raisingErrors: true)
      queue.shutDown()
      let got = try consumers.map { try $0.get() }
      #expect(got.joined().sorted() == Array(0..<700))
      for numbers in got {
        for place in 0..<7 {
          let own = numbers.filter { $0 / 100 == place }
          #expect(own == own.sorted(), "the items of one producer are out of order")
        }
      }
    }
  }

  // MARK: The end

  @Test func whatIsThereCanBeGotAfterTheEnd() async throws {
    try await runGreen {
      let queue = Queue<Int>(capacity: 2)
      try queue.put(1)
      try queue.put(2)
      let putter = spawn { try queue.put(3) }
      try Greenlet.yield()
      queue.shutDown()
      #expect(queue.isShutDown)
      #expect(throws: QueueShutDown.self) { try queue.put(4) }
      #expect(throws: QueueShutDown.self) { _ = try queue.tryPut(4) }
      try putter.join()
      #expect(putter.error is QueueShutDown)
      #expect(Array(queue) == [1, 2])
      #expect(throws: QueueShutDown.self) { _ = try queue.get() }
      #expect(throws: QueueShutDown.self) { _ = try queue.get(timeout: .zero) }
      #expect(queue.tryGet() == nil)
      queue.shutDown()  // once more changes nothing
    }
  }

  @Test func itsEndWakesThoseWhoWait() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      let getters = (0..<3).map { _ in spawn { try queue.get() } }
      let loop = spawn { for _ in queue {} }
      try Greenlet.yield()
      queue.shutDown()
      try joinAll(getters)
      for getter in getters { #expect(getter.error is QueueShutDown) }
      try loop.get()
    }
  }

  @Test func anImmediateEndThrowsAwayWhatIsThere() async throws {
    try await runGreen {
      final class Item {
        let isGone: () -> Void; init(_ isGone: @escaping () -> Void) { self.isGone = isGone };
        deinit { isGone() }
      }
      var gone = 0
      let queue = Queue<Item>(capacity: 2)
      try queue.put(Item { gone += 1 })
      try queue.put(Item { gone += 1 })
      let putter = spawn { try queue.put(Item { gone += 1 }) }
      try Greenlet.yield()
      queue.shutDown(immediately: true)
      #expect(queue.isEmpty)
      #expect(throws: QueueShutDown.self) { _ = try queue.get() }
      try putter.join()
      #expect(putter.error is QueueShutDown)
      try Greenlet.yield()
      #expect(gone == 3)
    }
  }

  @Test func aKillEndsALoopAndIsThrownBehindIt() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      var isBehind = false
      let loop = spawn {
        for _ in queue {}
        isBehind = true
        try Greenlet.yield()
        Issue.record("the kill was swallowed")
      }
      try Greenlet.yield()
      try loop.kill()
      #expect(isBehind)
      #expect(loop.error is GreenletExit)
      #expect(queue.balance == 0)
    }
  }

  @Test func givesMemoryAndItemsBack() async throws {
    try await runGreen {
      final class Item {
        nonisolated(unsafe) static var live = 0; init() { Item.live += 1 };
        deinit { Item.live -= 1 }
      }
      do {
        let queue = Queue<Item>()
        for _ in 0..<10_000 { try queue.put(Item()) }
        for _ in 0..<9_990 { _ = try queue.get() }
        #expect(Item.live == 10)
      }
      #expect(Item.live == 0)
    }
  }

  @Test func refusesACapacityOfNothing() async throws {
    await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild { _ = Queue<Int>(capacity: 0) }
    }
  }
}
