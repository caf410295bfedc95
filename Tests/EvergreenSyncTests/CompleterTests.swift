// Evergreen: tests of results that other threads complete
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite("Completer", .timeLimit(.minutes(1)))
struct CompleterTests {
  @Test func aThreadCompletesAndTheWaitersGetIt() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let completer = answer.completer
      let waiting = (0..<3).map { _ in spawn { try answer.get() } }
      let thread = startThread { #expect(completer.set(7)) }
      for greenlet in waiting {
        let value = try greenlet.get(timeout: .seconds(30))
        #expect(value == 7)
      }
      pthread_join(thread, nil)
    }
  }

  @Test func anErrorToo() async throws {
    struct Refused: Error {}
    try await runGreen {
      let answer = AsyncResult<Int>()
      let completer = answer.completer
      let thread = startThread { completer.set(throwing: Refused()) }
      #expect(throws: Refused.self) { try answer.get() }
      pthread_join(thread, nil)
    }
  }

  @Test func onlyTheFirstCounts() async throws {
    try await runGreen {
      for _ in 0..<50 {
        let answer = AsyncResult<Int>()
        let completer = answer.completer
        let winners = Guarded<[Int]>([])
        let threads = Threads(
          (0..<4).map { number in
            startThread { if completer.set(number) { winners.withLock { $0.append(number) } } }
          })
        let value = try answer.get()
        threads.join()
        #expect(winners.withLock { $0 } == [value])
      }
    }
  }

  @Test func whatTheHubHasSetStays() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let completer = answer.completer
      answer.set(1)
      completer.set(2)
      try Hub.current.join()
      #expect(answer.value == 1)
    }
  }

  /// Not to be shared, but to be handed over.
  final class Unshared { var number = 3 }

  @Test func aValueThatIsNotSendableIsHandedOver() async throws {
    try await runGreen {
      let answer = AsyncResult<Unshared>()
      let completer = answer.completer
      let thread = startThread { completer.set(Unshared()) }
      let value = try answer.get()
      #expect(value.number == 3)
      pthread_join(thread, nil)
    }
  }

  @Test func whoLetsGoOfItWakesTheWaiters() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let holder = Guarded<Completer<Int>?>(answer.completer)
      let thread = startThread {
        usleep(2000)
        let last = holder.withLock { $0.take() }
        _ = last
      }
      #expect(throws: CompleterDropped.self) { try answer.get() }
      pthread_join(thread, nil)
    }
  }

  @Test func itIsOneAsLongAsSomebodyHoldsIt() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let completer = answer.completer
      #expect(answer.completer === completer)
      #expect(completer.set(1))
      #expect(!answer.completer.set(2))
      let value = try answer.get()
      #expect(value == 1)
    }
  }

  @Test func holdingItIsNoDeadlockAndDroppingItIsOne() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let other = Event()
      var completer: Completer<Int>? = answer.completer
      #expect(try !other.wait(timeout: .milliseconds(2)))
      let waiter = spawn { try answer.get() }
      // It waits, and nobody is told of a deadlock.
      #expect(try !waiter.join(timeout: .milliseconds(5)))
      #expect(completer != nil)
      completer = nil
      try waiter.join()
      #expect(waiter.error is CompleterDropped)
      #expect(throws: LoopExit.self) { try other.wait() }
    }
  }

  @Test func completingAfterTheHubHasEndedIsHarmless() async throws {
    let completer = try await runGreen { AsyncResult<Int>().completer }
    #expect(!completer.set(1))
    #expect(!completer.set(2))
    _ = try await runGreen { AsyncResult<Int>().completer }  // dropped after the end
  }

  @Test func aResultBeatsTheTimeout() async throws {
    try await runGreen {
      let answer = AsyncResult<Int>()
      let completer = answer.completer
      #expect(throws: Timeout.self) { try answer.get(timeout: .milliseconds(1)) }
      completer.set(4)
      let value = try answer.get(timeout: .seconds(30))
      #expect(value == 4)
    }
  }

  /// test__event.py: TestAsyncResultCrossThread, and many of them.
  @Test func manyResultsFromManyThreads() async throws {
    try await runGreen {
      let answers = (0..<400).map { _ in AsyncResult<Int>() }
      let completers = answers.map(\.completer)
      let threads = Threads(
        (0..<4).map { part in
          startThread {
            for number in stride(from: part, to: 400, by: 4) { completers[number].set(number) }
          }
        })
      for (number, answer) in answers.enumerated() {
        let value = try answer.get(timeout: .seconds(30))
        #expect(value == number)
      }
      threads.join()
    }
  }
}

/// Threads that are joined together.
struct Threads {
  private let threads: [pthread_t]

  init(_ threads: [pthread_t]) { self.threads = threads }

  func join() { for thread in threads { pthread_join(thread, nil) } }
}
