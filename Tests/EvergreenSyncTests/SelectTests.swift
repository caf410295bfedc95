// Evergreen: tests of select.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

@Suite struct SelectTests {
  @Test func doesWhatCanBeDoneAtOnce() async throws {
    try await runGreen {
      let (numbers, words) = (Queue<Int>(), Queue<String>(capacity: 1))
      try words.put("full")
      try numbers.put(1)
      let text = try select(
        .get(from: numbers) { "number \($0)" },
        .put("more", into: words) { "put" },
        .after(.seconds(1)) { "late" })
      #expect(text == "number 1")
      #expect(words.count == 1)
      let other = try select(
        .get(from: numbers) { "number \($0)" }, .otherwise { "nothing" })
      #expect(other == "nothing")
      #expect(numbers.balance == 0)
    }
  }

  @Test func waitsForTheFirstAndTouchesNoOther() async throws {
    try await runGreen {
      let channels = (0..<3).map { _ in Channel<Int>() }
      let chooser = spawn {
        try select(channels.map { channel in .get(from: channel) { $0 } })
      }
      try Greenlet.yield()
      #expect(channels.map(\.balance) == [-1, -1, -1])
      let isPut = try channels[1].tryPut(7)
      #expect(isPut)
      // It has chosen, though it has not run yet: the others find nobody.
      let others = try [channels[0].tryPut(8), channels[1].tryPut(9), channels[2].tryPut(10)]
      #expect(others == [false, false, false])
      #expect(channels.map(\.balance) == [0, 0, 0])
      let got = try chooser.get()
      #expect(got == 7)
    }
  }

  @Test func putsIntoTheFirstThatTakesIt() async throws {
    try await runGreen {
      let (one, other) = (Channel<Int>(), Queue<Int>(capacity: 1))
      try other.put(0)
      let chooser = spawn {
        try select(.put(1, into: one) { "one" }, .put(2, into: other) { "other" })
      }
      try Greenlet.yield()
      #expect(other.tryGet() == 0)
      #expect(one.tryGet() == nil)
      let chosen = try chooser.get()
      #expect(chosen == "other")
      #expect(other.tryGet() == 2)
    }
  }

  @Test func twoThatChooseMeet() async throws {
    try await runGreen {
      let (one, other) = (Channel<Int>(), Channel<Int>())
      let sender = spawn {
        try select(.put(1, into: one) { 1 }, .put(2, into: other) { 2 })
      }
      let receiver = spawn {
        try select(.get(from: one) { $0 }, .get(from: other) { $0 })
      }
      let (sent, got) = try (sender.get(), receiver.get())
      #expect(sent == got)
      #expect(one.balance == 0 && other.balance == 0)
    }
  }

  @Test func oneThatChoosesDoesNotMeetItself() async throws {
    try await runGreenInVirtualTime { _ in
      let channel = Channel<Int>()
      let chosen = try select(
        .put(1, into: channel) { "put" }, .get(from: channel) { _ in "got" },
        .after(.seconds(1)) { "late" })
      #expect(chosen == "late")
      #expect(channel.balance == 0)
    }
  }

  @Test func waitsForTimeAndWhatIsReady() async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      let worker = spawn {
        try sleep(for: .seconds(2)); return 5
      }
      let numbers = Channel<Int>()
      func choose() throws -> String {
        try select(
          .ready(event) { _ in "event" }, .ready(worker) { "worker \($0.value ?? 0)" },
          .get(from: numbers) { "\($0)" }, .after(.seconds(1)) { "late" })
      }
      let first = try choose()
      #expect(first == "late")
      #expect(clock.elapsed == .seconds(1))
      let second = try select(
        .ready(worker) { "worker \($0.value ?? 0)" }, .after(.seconds(5)) { "" })
      #expect(second == "worker 5")
      #expect(clock.elapsed == .seconds(2))
      let pulse = spawn {
        try select(.ready(event) { _ in "event" }, .get(from: numbers) { "\($0)" })
      }
      try Greenlet.yield()
      event.set()
      event.clear()
      let third = try pulse.get()
      #expect(third == "event")
      #expect(numbers.balance == 0)
    }
  }

  @Test func isFairAmongTheReady() async throws {
    try await runGreen {
      let queues = (0..<4).map { _ in Queue<Int>() }
      for queue in queues[..<3] { for number in 0..<3_000 { try queue.put(number) } }
      var counts = [0, 0, 0, 0]
      for _ in 0..<3_000 {
        try select(
          queues.indices.map { place in .get(from: queues[place]) { _ in counts[place] += 1 } })
      }
      for count in counts[..<3] { #expect((800...1_200).contains(count), "\(counts)") }
      #expect(counts[3] == 0)
    }
  }

  @Test func whoChoosesHasHisPlaceAmongTheOthers() async throws {
    try await runGreen {
      let channel = Channel<Int>()
      var log: [String] = []
      spawn { log.append("plain \(try channel.get())") }
      spawn { try select(.get(from: channel) { log.append("select \($0)") }) }
      spawn { log.append("plain \(try channel.get())") }
      for number in 1...3 { try channel.put(number) }
      try Greenlet.yield()
      #expect(log == ["plain 1", "select 2", "plain 3"])
    }
  }

  @Test func seesTheEndOfAQueue() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      let waiting = spawn { try select(.get(from: queue) { "\($0)" }) }
      let asking = spawn { try select(.next(of: queue) { $0.map(String.init) ?? "end" }) }
      try Greenlet.yield()
      queue.shutDown()
      try waiting.join()
      #expect(waiting.error is QueueShutDown)
      let answer = try asking.get()
      #expect(answer == "end")
      #expect(throws: QueueShutDown.self) { try select(.put(1, into: queue) {}) }
      let channel = Channel<Int>()
      let putting = spawn { try select(.put(1, into: channel) {}) }
      try Greenlet.yield()
      channel.shutDown()
      try putting.join()
      #expect(putting.error is QueueShutDown)
    }
  }

  @Test func aKillLeavesNothingBehind() async throws {
    try await runGreen {
      let (queue, channel, event) = (Queue<Int>(), Channel<Int>(), Event())
      let victim = spawn {
        try select(
          .get(from: queue) { _ in }, .put(1, into: channel) {}, .ready(event) { _ in })
      }
      try Greenlet.yield()
      try victim.kill()
      #expect(queue.balance == 0 && channel.balance == 0)
      try queue.put(1)
      #expect(queue.count == 1)
      #expect(channel.tryGet() == nil)
      event.set()
    }
  }

  @Test func whatWasChosenIsDoneThoughAKillComesBeforeItRuns() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      var got = 0
      let victim = spawn {
        try select(.get(from: queue) { got = $0 })
        try Greenlet.yield()
        Issue.record("the kill was swallowed")
      }
      try Greenlet.yield()
      try queue.put(3)
      try victim.kill()
      #expect(got == 3)
      #expect(queue.isEmpty)
    }
  }

  @Test func refusesNoCasesAtAll() async throws {
    await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild { try select([SelectCase<Void>]()) }
    }
  }
}
