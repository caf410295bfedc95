// Evergreen: tests of queues as asynchronous sequences, and the reverse
// SPDX-License-Identifier: MIT

import EvergreenConcurrency
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("HubStream", .timeLimit(.minutes(1)))
struct HubStreamTests {
  @Test func asyncCodeReadsAQueueToItsEnd() async throws {
    try await runGreen {
      let hub = Hub.current
      let queue = Queue<Int>(capacity: 3)
      let stream = hub.stream(from: queue)
      spawn {
        for number in 0..<100 { try queue.put(number) }
        queue.shutDown()
      }
      let all = try hub.await {
        var all: [Int] = []
        for try await number in stream { all.append(number) }
        return all
      }
      #expect(all == Array(0..<100))
    }
  }

  @Test func aChannelToo() async throws {
    try await runGreen {
      let hub = Hub.current
      let channel = Channel<Int>()
      let stream = hub.stream(from: channel)
      spawn {
        for number in 0..<20 { try channel.put(number) }
        channel.shutDown()
      }
      let sum = try hub.await { try await stream.reduce(0, +) }
      #expect(sum == 190)
    }
  }

  @Test func itTakesNothingAhead() async throws {
    try await runGreen {
      let hub = Hub.current
      let queue = Queue<Int>()
      for number in 0..<10 { _ = try queue.tryPut(number) }
      let stream = hub.stream(from: queue)
      let first = try hub.await { try await stream.first { _ in true } }
      #expect(first == 0)
      #expect(queue.count == 9)
    }
  }

  @Test func cancellationEndsItAndLosesNothing() async throws {
    try await runGreen {
      let hub = Hub.current
      let queue = Queue<Int>()
      let stream = hub.stream(from: queue)
      let reader = spawn {
        try hub.await(waitingForCancelled: true) { for try await _ in stream {} }
      }
      try sleep(for: .milliseconds(5))
      try reader.kill()
      _ = try queue.tryPut(1)
      try sleep(for: .milliseconds(2))
      #expect(queue.count == 1)
    }
  }

  @Test func severalTasksShareTheItems() async throws {
    try await runGreen {
      let hub = Hub.current
      let queue = Queue<Int>(capacity: 4)
      let stream = hub.stream(from: queue)
      spawn {
        for number in 1...300 { try queue.put(number) }
        queue.shutDown()
      }
      let sums = try (0..<3).map { _ in spawn { try hub.await { try await stream.reduce(0, +) } } }
        .map { try $0.get() }
      #expect(sums.reduce(0, +) == 300 * 301 / 2)
    }
  }

  @Test func aHubThatHasEndedIsAnError() async throws {
    let stream = try await runGreen { Hub.current.stream(from: Queue<Int>()) }
    await #expect(throws: HubEnded.self) { for try await _ in stream {} }
  }

  // MARK: The reverse

  static func numbers(_ range: Range<Int>, _ log: SharedLog = SharedLog()) -> AsyncStream<Int> {
    let next = Shared(range.lowerBound)
    return AsyncStream(
      unfolding: {
        let number = next.change { value in
          defer { value += 1 }
          return value
        }
        if number >= range.upperBound || Task.isCancelled { return nil }
        log.add("\(number)")
        return number
      }, onCancel: { log.add("cancelled") })
  }

  @Test func aQueueOfAnAsyncSequence() async throws {
    try await runGreen {
      let queue = Queue(from: Self.numbers(0..<100), capacity: 4)
      #expect(Array(queue) == Array(0..<100))
      #expect(queue.isShutDown)
    }
  }

  @Test func noMoreIsAskedForThanThereIsRoom() async throws {
    try await runGreen {
      let log = SharedLog()
      let queue = Queue<Int>(capacity: 4)
      let feeder = Hub.current.feed(queue, from: Self.numbers(0..<1000, log))
      try sleep(for: .milliseconds(20))
      #expect(queue.count == 4)
      #expect(log.entries.count == 5)
      queue.shutDown()  // the consumer wants no more
      try feeder.join()
      #expect(feeder.error == nil)
    }
  }

  @Test func aKillOfTheFeederCancelsTheTask() async throws {
    try await runGreen {
      let log = SharedLog()
      let queue = Queue<Int>(capacity: 4)
      let (stream, continuation) = AsyncStream<Int>.makeStream()
      continuation.onTermination = { if case .cancelled = $0 { log.add("cancelled") } }
      let feeder = Hub.current.feed(queue, from: stream)
      continuation.yield(1)
      #expect(try queue.get() == 1)
      try feeder.kill()
      #expect(throws: QueueShutDown.self) { try queue.get() }
      while log.entries.isEmpty { try sleep(for: .milliseconds(1)) }
      #expect(log.entries == ["cancelled"])
    }
  }

  @Test func anErrorOfTheSequenceIsTheFeeders() async throws {
    try await runGreen {
      let hub = Hub.current
      hub.onError = { _, _ in }
      let (stream, continuation) = AsyncThrowingStream<Int, any Error>.makeStream()
      continuation.yield(1)
      continuation.finish(throwing: OneError(number: 3))
      let queue = Queue<Int>(capacity: 4)
      let feeder = hub.feed(queue, from: stream)
      #expect(Array(queue) == [1])
      try feeder.join()
      #expect(feeder.error as? OneError == OneError(number: 3))
    }
  }
}
