// Evergreen: tests of the kinds of queues.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

@Suite struct LifoQueueTests {
  @Test func givesTheNewestFirst() async throws {
    try await runGreen {
      let queue = LifoQueue<Int>(capacity: 3)
      for number in 1...3 { try queue.put(number) }
      let late = spawn { try queue.put(4) }
      try Greenlet.yield()
      #expect(queue.first == 3)
      let got = try (queue.get(), queue.get())
      #expect(got == (3, 4))
      _ = try late.get()
      queue.shutDown()
      #expect(Array(queue) == [2, 1])
    }
  }
}

@Suite struct PriorityQueueTests {
  private struct Job: Comparable {
    let priority: Int
    let number: Int
    static func < (one: Job, other: Job) -> Bool { one.priority < other.priority }
    static func == (one: Job, other: Job) -> Bool { one.priority == other.priority }
  }

  @Test func givesTheLeastFirstAndEqualOnesInTheirOrder() async throws {
    try await runGreen {
      let queue = PriorityQueue<Job>()
      var jobs: [Job] = []
      for number in 0..<200 { jobs.append(Job(priority: number * 37 % 11, number: number)) }
      for job in jobs { try queue.put(job) }
      #expect(queue.first?.number == 0)
      queue.shutDown()
      let got = Array(queue).map(\.number)
      let expected = jobs.sorted { ($0.priority, $0.number) < ($1.priority, $1.number) }.map(
        \.number)
      #expect(got == expected)
    }
  }

  @Test func handsItemsToThoseWhoWait() async throws {
    try await runGreen {
      let queue = PriorityQueue<Int>()
      let getter = spawn { try (queue.get(), queue.get()) }
      try Greenlet.yield()
      try queue.put(5)
      try queue.put(3)
      try queue.put(4)
      let got = try getter.get()
      #expect(got == (5, 3), "the first was handed over before the others came")
    }
  }
}

@Suite struct JoinableQueueTests {
  @Test func joinWaitsUntilAllItemsHaveBeenDealtWith() async throws {
    try await runGreen {
      let queue = JoinableQueue<Int>(capacity: 2)
      var dealt = 0
      let workers = (0..<2).map { _ in
        spawn {
          for _ in queue {
            try Greenlet.yield()
            dealt += 1
            queue.taskDone()
          }
        }
      }
      for number in 1...7 { try queue.put(number) }
      let isDone = try queue.join()
      #expect(isDone)
      #expect(dealt == 7)
      #expect(queue.unfinished == 0)
      queue.shutDown()
      try joinAll(workers, raisingErrors: true)
    }
  }

  @Test func anItemThatGoesFromHandToHandCounts() async throws {
    try await runGreen {
      let queue = JoinableQueue<Int>()
      let getter = spawn { try queue.get() }
      try Greenlet.yield()
      try queue.put(1)
      #expect(queue.unfinished == 1)
      try getter.join()
      let isDone = try queue.join(timeout: .zero)
      #expect(!isDone)
      queue.taskDone()
      let isDoneNow = try queue.join(timeout: .zero)
      #expect(isDoneNow)
    }
  }

  @Test func joinAnswersWhenTimeRunsOut() async throws {
    try await runGreenInVirtualTime { clock in
      let queue = JoinableQueue<Int>()
      try queue.put(1)
      let isDone = try queue.join(timeout: .seconds(5))
      #expect(!isDone)
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func anImmediateEndReleasesJoiners() async throws {
    try await runGreen {
      let queue = JoinableQueue<Int>()
      for number in 1...3 { try queue.put(number) }
      _ = try queue.get()
      let joiner = spawn { try queue.join() }
      try Greenlet.yield()
      queue.shutDown(immediately: true)
      #expect(!joiner.isReady)
      #expect(queue.unfinished == 1)
      queue.taskDone()
      let isDone = try joiner.get()
      #expect(isDone)
    }
  }

  @Test func refusesMoreThanWasPut() async throws {
    await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild { JoinableQueue<Int>().taskDone() }
    }
  }
}

@Suite struct ChannelTests {
  @Test func whoPutsWaitsUntilSomebodyGets() async throws {
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
      try Greenlet.yield()
      #expect(log == [])
      #expect(channel.balance == 1)
      #expect(channel.isEmpty && channel.isFull && channel.capacity == 0)
      let first = try channel.get()
      log.append("got \(first)")
      try Greenlet.yield()
      #expect(log == ["got 1", "put 1"])
      let rest = Array(channel)
      #expect(rest == [2, 3])
      try sender.get()
    }
  }

  @Test func triesMeetOnlyThoseWhoWait() async throws {
    try await runGreen {
      let channel = Channel<Int>()
      #expect(channel.tryGet() == nil)
      let isPut = try channel.tryPut(1)
      #expect(!isPut)
      let getter = spawn { try channel.get() }
      try Greenlet.yield()
      let isTaken = try channel.tryPut(2)
      #expect(isTaken)
      let got = try getter.get()
      #expect(got == 2)
      let putter = spawn { try channel.put(3) }
      try Greenlet.yield()
      #expect(channel.tryGet() == 3)
      _ = try putter.get()
    }
  }

  @Test func theOneThatGivesUpIsPassedOver() async throws {
    try await runGreenInVirtualTime { _ in
      let channel = Channel<Int>()
      let hasty = spawn { try channel.put(1, timeout: .seconds(1)) }
      let patient = spawn { try channel.put(2, timeout: .seconds(10)) }
      try sleep(for: .seconds(2))
      let got = try channel.get()
      #expect(got == 2)
      let answers = try (hasty.get(), patient.get())
      #expect(answers == (false, true))
    }
  }

  @Test func itsEndWakesBothSides() async throws {
    try await runGreen {
      let full = Channel<Int>()
      let sender = spawn { try full.put(1) }
      let empty = Channel<Int>()
      let getter = spawn { try empty.get() }
      try Greenlet.yield()
      full.shutDown()
      empty.shutDown()
      try joinAll([
        sender,
        spawn {
          _ = try? getter.get(); return true
        },
      ])
      #expect(sender.error is QueueShutDown)
      #expect(getter.error is QueueShutDown)
      #expect(full.tryGet() == nil, "what nobody got was not put")
    }
  }
}
