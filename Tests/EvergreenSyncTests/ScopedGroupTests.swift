// Evergreen: tests of greenlets that do not outlive their block.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct ScopedGroupTests {
  struct Failure: Error, Hashable { var number = 0 }
  final class Odd: Error {}

  /// Counts an error that is reported, which most of these must not be.
  final class Reports {
    private(set) var all: [any Error] = []
    init() { Hub.current.onError = { self.all.append($1) } }
  }

  @Test func itEndsWhenItsChildrenHave() async throws {
    try await runGreenInVirtualTime { clock in
      var order: [String] = []
      let answer = try withGroup { group in
        group.spawn {
          try sleep(for: .seconds(2))
          order.append("child")
          group.spawn {
            try sleep(for: .seconds(2))
            order.append("grandchild")
          }
        }
        order.append("body")
        return 42
      }
      #expect(answer == 42 && order == ["body", "child", "grandchild"])
      #expect(clock.elapsed == .seconds(4))
      #expect(try withGroup { _ in 1 } == 1)
    }
  }

  @Test func childrenGiveTheirResults() async throws {
    try await runGreenInVirtualTime { clock in
      let sum = try withGroup { group in
        let parts = (1...10).map { number in
          group.spawn {
            try sleep(for: .seconds(1))
            return number
          }
        }
        #expect(group.count == 10 && group.greenlets == parts)
        return try parts.reduce(0) { try $0 + $1.get() }
      }
      #expect(sum == 55 && clock.elapsed == .seconds(1))
    }
  }

  @Test func aFailingChildEndsTheOthersAndTheBody() async throws {
    try await runGreenInVirtualTime { clock in
      let reports = Reports()
      var bodyError: (any Error)?
      var killed: Greenlet<Void>?
      #expect(throws: Failure(number: 1)) {
        try withGroup { group in
          killed = group.spawn { try sleep(for: .seconds(60)) }
          group.spawn {
            try sleep(for: .seconds(1))
            throw Failure(number: 1)
          }
          do { try sleep(for: .seconds(60)) } catch {
            bodyError = error
            throw error
          }
        }
      }
      #expect(clock.elapsed == .seconds(1))
      #expect(bodyError is GroupCancelled && killed?.error is GreenletExit)
      #expect(reports.all.isEmpty)
      try sleep(for: .seconds(1))  // nothing comes later
    }
  }

  @Test func aFailureAfterTheBodyEndsTheOthers() async throws {
    try await runGreenInVirtualTime { clock in
      #expect(throws: Failure.self) {
        try withGroup { group in
          group.spawn { try sleep(for: .seconds(60)) }
          group.spawn {
            try sleep(for: .seconds(1))
            throw Failure()
          }
        }
      }
      #expect(clock.elapsed == .seconds(1))
    }
  }

  @Test func aFailingBodyEndsTheChildren() async throws {
    try await runGreenInVirtualTime { clock in
      var cleaned = false
      var unstarted = true
      #expect(throws: Failure.self) {
        try withGroup { group in
          group.spawn {
            defer {
              shielded { try? sleep(for: .seconds(3)) }
              cleaned = true
            }
            try sleep(for: .seconds(60))
          }
          try Greenlet.yield()
          group.spawn { unstarted = false }
          throw Failure()
        }
      }
      #expect(cleaned && unstarted && clock.elapsed == .seconds(3))
    }
  }

  @Test func severalErrorsAreCollectedInTheOrderOfTime() async throws {
    try await runGreenInVirtualTime { _ in
      let reports = Reports()
      do {
        try withGroup { group in
          let signal = Event()
          for number in 1...2 {
            group.spawn {
              try signal.wait()
              throw Failure(number: number)
            }
          }
          group.spawn {
            do { try sleep(for: .seconds(60)) } catch { throw Failure(number: 3) }
          }
          try Greenlet.yield()
          signal.set()  // both have what they waited for when the first one fails
          do { try sleep(for: .seconds(60)) } catch { throw Failure(number: 4) }
        }
        Issue.record("must throw")
      } catch let error as GroupError {
        let numbers = error.errors.compactMap { ($0 as? Failure)?.number }
        #expect(numbers.prefix(2) == [1, 2] && numbers.sorted() == [1, 2, 3, 4])
        #expect("\(error)".contains("4 greenlets of a group failed"))
      }
      #expect(reports.all.isEmpty)
    }
  }

  @Test func oneErrorThatComesByTwoWaysIsOne() async throws {
    try await runGreenInVirtualTime { _ in
      #expect(throws: Failure(number: 1)) {
        try withGroup { group in
          let child = group.spawn { () throws -> Int in throw Failure(number: 1) }
          group.spawn { _ = try child.get() }
          _ = try child.get()
        }
      }
      let odd = Odd()
      do {
        try withGroup { group in
          let child = group.spawn { throw odd }
          _ = try child.get()
        }
      } catch { #expect(error as? Odd === odd) }
    }
  }

  @Test func aTimeoutOfTheCallerEndsTheChildren() async throws {
    try await runGreenInVirtualTime { clock in
      // In the body, and in the wait for the children.
      for isInBody in [true, false] {
        let begin = clock.elapsed
        var cleaned = 0
        #expect(throws: Timeout.self) {
          try withTimeout(.seconds(1)) {
            try withGroup { group in
              for _ in 0..<3 {
                group.spawn {
                  defer { cleaned += 1 }
                  try sleep(for: .seconds(60))
                }
              }
              if isInBody { try sleep(for: .seconds(60)) }
            }
          }
        }
        #expect(cleaned == 3 && clock.elapsed - begin == .seconds(1))
        let value = try withTimeout(.seconds(1), default: "late") {
          try withGroup { group in
            group.spawn { try sleep(for: .seconds(60)) }
            return "in time"
          }
        }
        #expect(value == "late")
      }
    }
  }

  @Test func aTimeoutThatIsNotReachedDoesNothing() async throws {
    try await runGreenInVirtualTime { clock in
      let answer = try withGroup(timeout: .seconds(5)) { group in
        let child = group.spawn {
          try sleep(for: .seconds(4))
          return 1
        }
        return try child.get()
      }
      #expect(answer == 1 && clock.elapsed == .seconds(4))
      try sleep(for: .seconds(5))
    }
  }

  @Test func aTimeoutOfItsOwnBindsTheChildrenOfChildrenToo() async throws {
    try await runGreenInVirtualTime { clock in
      var ends: [Duration] = []
      #expect(throws: Timeout.self) {
        try withGroup(timeout: .seconds(5)) { group in
          group.spawn {
            try withGroup { inner in
              inner.spawn {
                defer { ends.append(clock.elapsed) }
                try sleep(for: .seconds(60))
              }
            }
          }
        }
      }
      #expect(ends == [.seconds(5)])
    }
  }

  @Test func aKilledCallerIsKilledAndItsChildrenWithIt() async throws {
    struct Special: Error {}
    try await runGreenInVirtualTime { clock in
      for error in [GreenletExit(), Special()] as [any Error] {
        for isInBody in [true, false] {
          let reports = Reports()
          let begin = clock.elapsed
          let caller = spawn {
            try withGroup { group in
              group.spawn {
                do { try sleep(for: .seconds(60)) } catch {
                  shielded { try? sleep(for: .seconds(2)) }
                  throw Failure()
                }
              }
              if isInBody { try sleep(for: .seconds(60)) }
            }
          }
          try sleep(for: .seconds(1))
          try caller.kill(error)
          #expect(type(of: caller.error!) == type(of: error))
          #expect(clock.elapsed - begin == .seconds(3))
          // What the child failed with has nobody but the hub.
          #expect(reports.all.count { $0 is Failure } == 1)
        }
      }
    }
  }

  @Test func aTimeoutDuringTheCleanUpComesAfterIt() async throws {
    try await runGreenInVirtualTime { clock in
      #expect(throws: Failure.self) {
        try withTimeout(.seconds(2)) {
          try withGroup { group in
            group.spawn {
              defer { shielded { try? sleep(for: .seconds(10)) } }
              try sleep(for: .seconds(60))
            }
            group.spawn {
              try sleep(for: .seconds(1))
              throw Failure()
            }
          }
        }
      }
      #expect(clock.elapsed == .seconds(11))
      try Greenlet.yield()
    }
  }

  @Test func cancelEndsTheChildrenAndTheBody() async throws {
    try await runGreenInVirtualTime { clock in
      // The first answer wins.
      let first = try withGroup { group in
        let result = AsyncResult<Int>()
        for seconds in [3, 1, 2] {
          group.spawn {
            try sleep(for: .seconds(seconds))
            result.trySet(.success(seconds))
          }
        }
        defer { group.cancel() }
        return try result.get()
      }
      #expect(first == 1 && clock.elapsed == .seconds(1))
      // By a child, after the body.
      let answer = try withGroup { group in
        group.spawn { try sleep(for: .seconds(60)) }
        group.spawn { group.cancel() }
        return 7
      }
      #expect(answer == 7)
      // By a child, before the end of the body.
      #expect(throws: GroupCancelled.self) {
        try withGroup { group in
          group.spawn { group.cancel() }
          try sleep(for: .seconds(60))
        }
      }
      #expect(clock.elapsed == .seconds(1))
      try Greenlet.yield()
    }
  }

  @Test func inACancelledGroupNobodyIsSpawned() async throws {
    try await runGreen {
      let reports = Reports()
      try withGroup { group in
        group.cancel()
        #expect(group.isCancelled)
        let child = group.spawn { Issue.record("must not run") }
        #expect(child.isReady && child.error is GreenletExit && group.isEmpty)
      }
      #expect(reports.all.isEmpty)
    }
  }

  @Test func aKilledChildIsNoFailure() async throws {
    try await runGreenInVirtualTime { clock in
      try withGroup { group in
        let child = group.spawn { try sleep(for: .seconds(60)) }
        group.spawn { try sleep(for: .seconds(2)) }
        try Greenlet.yield()
        try child.kill()
        #expect(!group.isCancelled)
      }
      #expect(clock.elapsed == .seconds(2))
    }
  }

  @Test func groupsTellTheirCancellationsApart() async throws {
    try await runGreenInVirtualTime { clock in
      var inner: (any Error)?
      #expect(throws: Failure.self) {
        try withGroup { outer in
          outer.spawn {
            try sleep(for: .seconds(1))
            throw Failure()
          }
          do {
            try withGroup { group in
              group.spawn { try sleep(for: .seconds(60)) }
              try sleep(for: .seconds(60))
            }
          } catch {
            inner = error
            throw error
          }
        }
      }
      #expect(inner is GroupCancelled && clock.elapsed == .seconds(1))
      // The inner one alone.
      let answer = try withGroup { _ in
        #expect(throws: Failure.self) { try withGroup { $0.spawn { throw Failure() } } }
        try sleep(for: .seconds(1))
        return 3
      }
      #expect(answer == 3)
    }
  }

  @Test func aShieldedBodyIsNotCutShort() async throws {
    try await runGreenInVirtualTime { clock in
      var isThrough = false
      #expect(throws: Failure.self) {
        try withGroup { group in
          group.spawn { throw Failure() }
          try shielded { try sleep(for: .seconds(5)) }
          isThrough = true
          try sleep(for: .seconds(60))
        }
      }
      #expect(isThrough && clock.elapsed == .seconds(5))
    }
  }

  @Test func aGroupUnderAShieldCancelsItsOwnBody() async throws {
    try await runGreenInVirtualTime { clock in
      #expect(throws: Failure.self) {
        try shielded {
          try withGroup { group in
            group.spawn { throw Failure() }
            try sleep(for: .seconds(60))
          }
        }
      }
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func aGroupThatHasEndedRunsNobody() async throws {
    try await runGreen {
      let reports = Reports()
      let old = try withGroup { $0 }
      let child = old.spawn { Issue.record("must not run") }
      #expect(child.error is GroupHasEnded)
      try Greenlet.yield()
      #expect(reports.all.count == 1 && reports.all.first is GroupHasEnded)
    }
  }

  @Test func aStandstillEndsTheChildrenAndIsThrown() async throws {
    try await runGreen {
      var ended = 0
      #expect(throws: LoopExit.self) {
        try withGroup { group in
          for _ in 0..<3 {
            group.spawn {
              defer { ended += 1 }
              try Event().wait()
            }
          }
        }
      }
      #expect(ended == 3)
      // Also where a child does not mind one kill.
      #expect(throws: LoopExit.self) {
        try withGroup { group in
          group.spawn {
            do { try Event().wait() } catch { try Event().wait() }
          }
        }
      }
    }
  }

  @Test func theHubsEndEndsIt() async throws {
    final class Steps: @unchecked Sendable { var all: [String] = [] }
    let steps = Steps()
    try await runGreenInVirtualTime { _ in
      spawn {
        defer { steps.all.append("caller") }
        try withGroup { group in
          group.spawn {
            defer { steps.all.append("child") }
            try sleep(for: .seconds(60))
          }
        }
      }
      try sleep(for: .seconds(1))
    }
    #expect(steps.all == ["child", "caller"])
  }

  @Test(.disabled(if: Sanitizer.thread, "it cannot start threads there"))
  func inTheChildOfAForkItsChildrenHaveEndedAndNotFailed() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let release = Event()
        try withGroup { group in
          let child = group.spawn { try release.wait() }
          try Greenlet.yield()
          try inForkedChild {
            try check(group.isEmpty && !group.isCancelled && child.error is LostInFork)
            try Greenlet.yield()
          }
          try check(group.count == 1)
          release.set()
        }
      }
    }
  }

  @Test func nothingOfItStays() async throws {
    try await runGreen {
      for _ in 0..<1000 {
        _ = try? withGroup { group in
          group.spawn { throw Odd() }
          group.spawn { try sleep(for: .seconds(60)) }
          try sleep(for: .seconds(60))
        }
      }
      try Greenlet.yield()
      weak var freed: ScopedGroup?
      try withGroup { group in
        freed = group
        group.spawn {}
      }
      try Greenlet.yield()
      #expect(freed == nil)
    }
  }
}
