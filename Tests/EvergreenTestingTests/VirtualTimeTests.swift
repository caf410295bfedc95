// Evergreen: tests of time that passes when everybody waits for it.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(2))) struct VirtualTimeTests {
  @Test func aThousandHoursTakeNoTimeAndAreExact() async throws {
    try await runGreenInVirtualTime { clock in
      let began = ContinuousClock.now
      for hour in 1...1000 {
        try sleep(for: .seconds(3600))
        #expect(clock.elapsed == .seconds(3600 * hour))
      }
      #expect(ContinuousClock.now - began < .seconds(20))
    }
  }

  @Test func timersFireInTheOrderOfTheirDeadlinesAndEqualOnesInThatOfTheirStart() async throws {
    try await runGreenInVirtualTime { clock in
      var random = SeededRandom(seed: 5)
      let delays = (0..<500).map { _ in random.next(below: 50) + 1 }
      var order: [Int] = []
      let sleepers = delays.enumerated().map { number, delay in
        spawn {
          try sleep(for: .seconds(delay))
          #expect(clock.elapsed == .seconds(delay))
          order.append(number)
        }
      }
      try joinAll(sleepers)
      #expect(order == delays.indices.sorted { (delays[$0], $0) < (delays[$1], $1) })
    }
  }

  @Test func timersThatAreStoppedDoNotFire() async throws {
    try await runGreenInVirtualTime { clock in
      var random = SeededRandom(seed: 6)
      let event = Event()
      let waiters = (0..<300).map { _ in
        let timeout = Duration.seconds(random.next(below: 100) + 1)
        return (timeout, spawn { try event.wait(timeout: timeout) })
      }
      try sleep(for: .milliseconds(50_500))
      let killed = waiters.indices.filter { $0.isMultiple(of: 3) && !waiters[$0].1.isReady }
      for index in killed { try waiters[index].1.kill() }
      event.set()
      for (index, (timeout, waiter)) in waiters.enumerated() where !killed.contains(index) {
        try #expect(waiter.get() == (timeout > .seconds(50)))
      }
      #expect(clock.elapsed == .milliseconds(50_500))
    }
  }

  @Test func aCrowdOfTimersIsNoBurden() async throws {
    try await runGreenInVirtualTime { clock in
      var random = SeededRandom(seed: 7)
      let began = ContinuousClock.now
      let timeouts = (0..<30_000).map { _ in
        Timeout.start(after: .seconds(3600 + random.next(below: 100_000)))
      }
      for timeout in timeouts.shuffled(using: &random) { timeout.cancel() }
      try sleep(for: .seconds(1))
      #expect(clock.elapsed == .seconds(1))
      #expect(ContinuousClock.now - began < .seconds(20))
    }
  }
}

@Suite(.timeLimit(.minutes(2))) struct WaitUntilBlockedTests {
  @Test func letsTheOthersDoAllThatTheyCanDoNow() async throws {
    try await runGreenInVirtualTime { clock in
      let (begin, end) = (Event(), Event())
      var steps = 0
      let worker = spawn {
        try begin.wait()
        for _ in 0..<100 {
          steps += 1
          try Greenlet.yield()
        }
        try spawn { steps += 1 }.get()
        try end.wait()
        steps += 1
      }
      try waitUntilBlocked()
      #expect(steps == 0)
      begin.set()
      try waitUntilBlocked()
      #expect(steps == 101 && !worker.isReady)
      end.set()
      try waitUntilBlocked()
      #expect(steps == 102 && worker.isReady)
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func timeDoesNotPassButWhatIsDueFires() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { try sleep(for: .seconds(1)) }
      try waitUntilBlocked()
      #expect(!sleeper.isReady && clock.elapsed == .zero)
      clock.advance(by: .seconds(1))
      try waitUntilBlocked()
      #expect(sleeper.isReady && clock.elapsed == .seconds(1))
    }
  }

  @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
  func allThatIsDueFiresUnderAnySeed(seed: UInt64) async throws {
    try await simulate(seed: seed) { simulation in
      let sleepers = (0..<20).map { number in
        spawn {
          try sleep(for: .seconds(1 + number % 3))
          try Greenlet.yield()
        }
      }
      try waitUntilBlocked()
      simulation.clock.advance(by: .seconds(2))
      try waitUntilBlocked()
      #expect(sleepers.filter(\.isReady).count == 14)
      try joinAll(sleepers)
    }
  }

  @Test func worksInRealTime() async throws {
    try await runGreen {
      let event = Event()
      let waiter = spawn { try event.wait(timeout: .seconds(60)) }
      try waitUntilBlocked()
      #expect(!waiter.isReady)
      event.set()
      try waitUntilBlocked()
      #expect(waiter.value == true)
    }
  }

  @Test func whatHasBeenPostedIsDone() async throws {
    try await runGreen {
      let done = Event()
      let mailbox = Hub.current.mailbox
      nonisolated(unsafe) let event = done
      mailbox.post { event.set() }
      try waitUntilBlocked()
      #expect(done.isSet)
    }
  }

  @Test func aKillIsThrown() async throws {
    try await runGreen {
      let waiter = spawn {
        while true { try waitUntilBlocked() }
      }
      try Greenlet.yield()
      try waiter.kill()
      #expect(waiter.error is GreenletExit)
    }
  }
}
