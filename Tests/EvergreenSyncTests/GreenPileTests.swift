// Evergreen: tests of results in the order of spawning.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct GreenPileTests {
  struct Failure: Error {}

  @Test func resultsComeInTheOrderOfSpawning() async throws {
    try await runGreenInVirtualTime { clock in
      let pile = GreenPile<Int>(size: 3)
      for seconds in [3, 1, 2] {
        try pile.spawn {
          try sleep(for: .seconds(seconds))
          return seconds
        }
      }
      #expect(pile.count == 3)
      try #expect([pile.next(), pile.next(), pile.next(), pile.next()] == [3, 1, 2, nil])
      #expect(clock.elapsed == .seconds(3) && pile.isEmpty)
      try pile.spawn { 7 }
      try #expect(pile.next() == 7)
    }
  }

  @Test func spawningWaitsForThePool() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool(size: 2)
      let piles = (0..<2).map { _ in GreenPile<Int>(pool) }
      for number in 0..<6 {
        try piles[number % 2].spawn {
          #expect(pool.count <= 2)
          try sleep(for: .seconds(1))
          return number
        }
      }
      #expect(clock.elapsed == .seconds(2))
      try #expect(piles[1].next() == 1)
      try #expect(piles[0].next() == 0)
      try #expect(piles[0].next() == 2)
      try pool.join()
      try #expect(piles[0].next() == 4)
    }
  }

  @Test func anErrorComesInItsPlaceAndIsNotReported() async throws {
    try await runGreen {
      Hub.current.onError = { greenlet, error in Issue.record("\(greenlet): \(error)") }
      let pile = GreenPile<Int>()
      try pile.spawn { 1 }
      try pile.spawn { throw Failure() }
      try pile.spawn { 3 }
      try #expect(pile.next() == 1)
      #expect(throws: Failure.self) { try pile.next() }
      try #expect(pile.next() == 3)
    }
  }

  @Test func whoIsTimedOutLosesNoResult() async throws {
    try await runGreenInVirtualTime { _ in
      let pile = GreenPile<Int>()
      try pile.spawn {
        try sleep(for: .seconds(5))
        return 1
      }
      #expect(throws: Timeout.self) { try withTimeout(.seconds(1)) { try pile.next() } }
      try #expect(pile.next() == 1)
    }
  }

  @Test func oneThatGoesEndsItsOwnAlone() async throws {
    try await runGreenInVirtualTime { clock in
      let pool = Pool()
      let other = try pool.spawn { try sleep(for: .seconds(1)) }
      do {
        let pile = GreenPile<Void>(pool)
        for _ in 0..<3 { try pile.spawn { try sleep(for: .seconds(60)) } }
        try Greenlet.yield()
        #expect(pool.count == 4)
      }
      try Greenlet.yield()
      #expect(pool.greenlets == [other])
      try #expect(pool.join())
      #expect(other.isSuccessful && clock.elapsed == .seconds(1))
    }
  }

  @Test func aMemberOfThePoolMayUseOneInIt() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 1)
      let sum = try pool.apply {
        let pile = GreenPile<Int>(pool)
        for number in 1...4 { try pile.spawn { number } }
        var sum = 0
        while let number = try pile.next() { sum += number }
        return sum
      }
      #expect(sum == 10)
    }
  }
}
