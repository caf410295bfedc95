// Evergreen: tests of doing the same with each element of a sequence.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct MappedResultsTests {
  struct Failure: Error, Hashable { var number = 0 }

  /// Counts how many elements have been taken from it.
  final class Numbers: Sequence, IteratorProtocol {
    var taken = 0
    let end: Int
    init(upTo end: Int = .max) { self.end = end }
    func next() -> Int? {
      if taken == end { return nil }
      taken += 1
      return taken - 1
    }
  }

  static func groups() -> [AnyGroup] { [Group(), Pool(), Pool(size: 1), Pool(size: 3)] }

  @Test func mapKeepsTheOrder() async throws {
    try await runGreenInVirtualTime { _ in
      for group in Self.groups() {
        let squares = try group.map(0..<20) { number in
          try sleep(for: .milliseconds(number % 5))
          return number * number
        }
        #expect(squares == (0..<20).map { $0 * $0 })
        #expect(group.isEmpty)
        try #expect(group.map([Int]()) { $0 }.isEmpty)
      }
    }
  }

  @Test func mapOfAPoolRunsSoManyAtATime() async throws {
    try await runGreenInVirtualTime { clock in
      let numbers = Numbers(upTo: 30)
      var running = 0
      var most = 0
      _ = try Pool(size: 3).map(numbers) { number in
        running += 1
        most = max(most, running)
        #expect(numbers.taken <= number + 5)
        try sleep(for: .seconds(1))
        running -= 1
      }
      #expect(most == 3 && clock.elapsed == .seconds(10))
    }
  }

  @Test func theFirstErrorInTimeEndsAMap() async throws {
    try await runGreenInVirtualTime { clock in
      var reports: [Failure?] = []
      Hub.current.onError = { reports.append($1 as? Failure) }
      let pool = Pool()
      var cleaned = 0
      #expect(throws: Failure(number: 1)) {
        try pool.map([60, 5, 1, 60]) { seconds in
          defer {
            shielded { try? sleep(for: .seconds(1)) }
            cleaned += 1
          }
          do { try sleep(for: .seconds(seconds)) } catch  where seconds == 5 {
            throw Failure(number: 7)
          }
          throw Failure(number: seconds)
        }
      }
      #expect(reports == [Failure(number: 7)])  // it has nobody else
      #expect(cleaned == 4 && pool.isEmpty)
      #expect(clock.elapsed == .seconds(3))  // the first one cleans up, the others begin to then
    }
  }

  @Test func aKilledCallerOfMapLeavesNothing() async throws {
    try await runGreenInVirtualTime { clock in
      for group in Self.groups() {
        let mapper = spawn { try group.map(0..<100) { _ in try sleep(for: .seconds(60)) } }
        try sleep(for: .seconds(1))
        #expect(!group.isEmpty)
        try mapper.kill()
        #expect(group.isEmpty)
        try Greenlet.yield()
        #expect(group.isEmpty)
      }
      #expect(clock.elapsed == .seconds(4))
    }
  }

  @Test func forEachVisitsAll() async throws {
    try await runGreenInVirtualTime { _ in
      for group in Self.groups() {
        var sum = 0
        try group.forEach(1...300) { sum += $0 }
        #expect(sum == 45_150)
        #expect(throws: Failure.self) { try group.forEach(Numbers()) { _ in throw Failure() } }
        #expect(group.isEmpty)
      }
    }
  }

  @Test func imapGivesResultsInTheOrderOfTheInput() async throws {
    try await runGreenInVirtualTime { clock in
      let results = Pool(size: 3).imap([3, 1, 2]) { seconds in
        try sleep(for: .seconds(seconds))
        return seconds
      }
      try #expect(results.next() == 3)
      try #expect(results.collect() == [1, 2])
      #expect(clock.elapsed == .seconds(3))
      try #expect(results.next() == nil)
      try #expect(results.next() == nil)
    }
  }

  @Test func imapUnorderedGivesThemAsTheyCome() async throws {
    try await runGreenInVirtualTime { clock in
      let results = Group().imapUnordered([3, 1, 2]) { seconds in
        try sleep(for: .seconds(seconds))
        return seconds
      }
      try #expect(results.next() == 1)
      #expect(clock.elapsed == .seconds(1))
      try #expect(results.collect() == [2, 3])
    }
  }

  @Test func itRunsAheadByItsBufferOnly() async throws {
    try await runGreenInVirtualTime { _ in
      for isOrdered in [true, false] {
        for group in Self.groups() {
          let numbers = Numbers()
          let results =
            isOrdered
            ? group.imap(numbers, maxBuffered: 5) { $0 }
            : group.imapUnordered(numbers, maxBuffered: 5) { $0 }
          try sleep(for: .seconds(1))
          #expect(numbers.taken == 5)
          for expected in 0..<20 { try #expect(results.next() == expected) }
          try sleep(for: .seconds(1))
          #expect(numbers.taken == 25)
          results.cancel()
          try Greenlet.yield()
          #expect(group.isEmpty)
          try #expect(results.next() == nil)
        }
      }
    }
  }

  @Test func theUsualBufferIsTwiceThePool() async throws {
    try await runGreenInVirtualTime { _ in
      let numbers = Numbers()
      let results = Pool(size: 4).imap(numbers) { $0 }
      try sleep(for: .seconds(1))
      #expect(numbers.taken == 8)
      withExtendedLifetime(results) {}
    }
  }

  @Test func anErrorOfTheWorkComesInItsPlaceAndTheNextOnesFollow() async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { greenlet, error in Issue.record("\(greenlet): \(error)") }
      for group in Self.groups() {
        let results = group.imap([1, 0, 2]) { divisor in
          if divisor == 0 { throw Failure() }
          return 2 / divisor
        }
        try #expect(results.next() == 2)
        #expect(throws: Failure.self) { try results.next() }
        try #expect(results.next() == 1)
        try #expect(results.next() == nil)
        #expect(group.isEmpty)
      }
    }
  }

  @Test func anErrorOfTheInputComesInItsPlaceAndIsTheEnd() async throws {
    try await runGreenInVirtualTime { _ in
      for group in Self.groups() {
        for isOrdered in [true, false] {
          var number = 0
          func pull() throws -> Int? {
            number += 1
            if number == 3 { throw Failure() }
            return number
          }
          let results =
            isOrdered
            ? group.imap(pulling: pull) { $0 * 10 }
            : group.imapUnordered(pulling: pull) { $0 * 10 }
          if isOrdered {
            try #expect(results.next() == 10)
            try #expect(results.next() == 20)
            #expect(throws: Failure.self) { try results.next() }
          } else {
            #expect(throws: Failure.self) { try results.collect() }
          }
          if isOrdered { try #expect(results.next() == nil) }
          #expect(number == 3)
        }
      }
    }
  }

  @Test func aDroppedResultLeavesNoGreenletBehind() async throws {
    try await runGreenInVirtualTime { _ in
      for group in Self.groups() {
        var ended = 0
        do {
          let results = group.imap(Numbers()) { number in
            defer { ended += 1 }
            if number > 0 { try sleep(for: .seconds(60)) }
            return number
          }
          try #expect(results.next() == 0)
        }
        try sleep(for: .milliseconds(1))
        #expect(group.isEmpty)
        let before = ended
        try sleep(for: .seconds(100))
        #expect(ended == before)
      }
    }
  }

  @Test func oneThatIsDroppedAtOnceRunsNothing() async throws {
    try await runGreen {
      let numbers = Numbers()
      _ = Group().imap(numbers) { _ in Issue.record("must not run") }
      try idle()
      #expect(numbers.taken == 0)
    }
  }

  @Test func theInputMayWait() async throws {
    try await runGreenInVirtualTime { clock in
      let queue = Queue<Int>(capacity: 1)
      spawn {
        for number in 1...3 {
          try sleep(for: .seconds(1))
          try queue.put(number)
        }
        queue.shutDown()
      }
      try #expect(Pool(size: 2).imap(queue) { $0 * 2 }.collect() == [2, 4, 6])
      #expect(clock.elapsed == .seconds(3))
    }
  }

  @Test func aDroppedResultLetsAWaitingInputGo() async throws {
    try await runGreen {
      let queue = Queue<Int>()
      do {
        let results = Group().imap(queue) { $0 }
        try queue.put(1)
        try #expect(results.next() == 1)
      }
      try idle()
      try queue.put(2)
      try idle()
      #expect(queue.count == 1)
    }
  }

  @Test func whoIsTimedOutLosesNoResult() async throws {
    try await runGreenInVirtualTime { _ in
      let results = Group().imap([1, 2]) { number in
        try sleep(for: .seconds(number * 10))
        return number
      }
      #expect(throws: Timeout.self) { try withTimeout(.seconds(1)) { try results.next() } }
      try #expect(results.collect() == [1, 2])
    }
  }

  @Test func severalMayTakeResults() async throws {
    try await runGreenInVirtualTime { _ in
      for isOrdered in [true, false] {
        let pool = Pool(size: 5)
        func work(_ number: Int) throws -> Int {
          try sleep(for: .milliseconds(number % 7))
          return number
        }
        let results =
          isOrdered ? pool.imap(0..<100, work) : pool.imapUnordered(0..<100, work)
        var all: [Int] = []
        let takers = (0..<4).map { _ in
          spawn { while let number = try results.next() { all.append(number) } }
        }
        try takers[0].kill()
        try joinAll(takers)
        #expect(all.sorted() == Array(0..<100))
      }
    }
  }

  @Test func killingThePoolEndsTheMapping() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 2)
      let results = pool.imap(Numbers()) { _ in try sleep(for: .seconds(60)) }
      try sleep(for: .seconds(1))
      try #expect(pool.kill())
      try sleep(for: .seconds(1))
      #expect(pool.isEmpty)
      var errors = 0
      while true {
        do { if try results.next() == nil { break } } catch is GreenletExit { errors += 1 }
      }
      #expect(errors == 3)
    }
  }

  @Test func aMemberMayMapInItsOwnPool() async throws {
    try await runGreenInVirtualTime { _ in
      for size in 1...3 {
        let pool = Pool(size: size)
        var running = 0
        var most = 0
        func work(_ number: Int) throws -> Int {
          running += 1
          most = max(most, running)
          try sleep(for: .seconds(1))
          running -= 1
          return number
        }
        let members = try (0..<size).map { _ in
          try pool.spawn {
            try #expect(pool.map(0..<5, work) == Array(0..<5))
            try #expect(pool.imapUnordered(0..<5, work).collect().sorted() == Array(0..<5))
            try #expect(pool.imap(0..<5, work).collect() == Array(0..<5))
            try pool.forEach(0..<5) { _ = try work($0) }
            #expect(throws: Failure.self) { try pool.map(0..<5) { _ in throw Failure() } }
          }
        }
        for member in members { try member.get() }
        #expect(most == size && pool.freeCount == size)
      }
    }
  }

  @Test func aMemberThatIsKilledWhileItMapsIsKilled() async throws {
    try await runGreenInVirtualTime { _ in
      let pool = Pool(size: 1)
      let member = try pool.spawn { try pool.map(0..<5) { _ in try sleep(for: .seconds(60)) } }
      try sleep(for: .seconds(1))
      try member.kill()
      #expect(member.error is GreenletExit && pool.freeCount == 1)
    }
  }
}
