// Evergreen: tests of locks, in threads and in forks.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenTesting
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite(.timeLimit(.minutes(1))) struct GuardedTests {
  @Test func guardsItsValue() {
    struct Failure: Error {}
    let lock = Guarded(0)
    let threads = (0..<4).map { _ in
      startThread { for _ in 0..<10_000 { lock.withLock { $0 += 1 } } }
    }
    for thread in threads { pthread_join(thread, nil) }
    #expect(lock.withLock { $0 } == 40_000)
    #expect(throws: Failure.self) { try lock.withLock { _ in throw Failure() } }
    #expect(lock.withLock { $0 } == 40_000)  // free again
  }

  @Test func dropsItsValue() {
    final class Witness {}
    weak var witness: Witness?
    do {
      let lock = Guarded(Witness())
      witness = lock.withLock { $0 }
      #expect(witness != nil)
    }
    #expect(witness == nil)
  }

  /// Other threads change values all the time, two locks at a time in one order and the other.
  @Test func areFreeAndWholeInAForkedChild() async {
    await #expect(processExitsWith: .success) {
      let one = Guarded((0, 0))
      let other = Guarded((0, 0))
      let isOver = Atomic(false)
      let rounds = Guarded([0, 0, 0])
      let threads = (0..<3).map { number in
        startThread {
          while !isOver.load(ordering: .relaxed) {
            if number == 0 {
              one.withLock { one in
                one.0 += 1
                other.withLock { other in
                  other.0 += 1
                  other.1 += 1
                }
                one.1 += 1
              }
            } else {
              other.withLock {
                $0.0 += 1
                $0.1 += 1
              }
              let short = Guarded(number)
              short.withLock { $0 += 1 }
            }
            rounds.withLock { $0[number] += 1 }
          }
        }
      }
      // A type that another thread is about to make would never be made in the child.
      while rounds.withLock({ $0.contains(0) }) { usleep(1000) }
      for _ in 0..<100 {
        let child = forkProcess()
        if child == 0 {
          let isWhole = one.withLock { $0.0 == $0.1 } && other.withLock { $0.0 == $0.1 }
          let fresh = Guarded(1)
          _exit(isWhole && fresh.withLock { $0 } == 1 ? 0 : 1)
        }
        var status: Int32 = 0
        waitpid(child, &status, 0)
        if status != 0 { exit(1) }
      }
      isOver.store(true, ordering: .relaxed)
      for thread in threads { pthread_join(thread, nil) }
      exit(one.withLock { $0.0 == $0.1 } ? 0 : 2)
    }
  }
}

@Suite(.timeLimit(.minutes(1))) struct ThreadSignalTests {
  @Test func aWakeUpBetweenLookingAndWaitingIsNotLost() {
    let signal = ThreadSignal()
    let seen = signal.generation
    signal.wakeOne()
    #expect(signal.wait(since: seen, atMost: .zero))
    #expect(!signal.wait(since: signal.generation, atMost: .milliseconds(1)))
  }

  @Test(arguments: [Duration.milliseconds(-500), .seconds(Int64.min)])
  func aTimeThatHasPassedIsNoWait(_ duration: Duration) {
    let signal = ThreadSignal()
    for _ in 0..<100 { #expect(!signal.wait(since: signal.generation, atMost: duration)) }
  }

  @Test func waitsAsLongAsItTakes() {
    let signal = ThreadSignal()
    let seen = signal.generation
    let thread = startThread { signal.wakeOne() }
    #expect(signal.wait(since: seen, atMost: .seconds(Int64.max)))
    pthread_join(thread, nil)
  }

  @Test(.disabled(if: Sanitizer.thread, "it ends a forked child that starts a thread"))
  func worksInAForkedChild() async {
    await #expect(processExitsWith: .success) {
      let signal = ThreadSignal()
      let waiting = Atomic(0)
      for _ in 0..<3 {
        _ = startThread {
          waiting.add(1, ordering: .relaxed)
          _ = signal.wait(since: signal.generation, atMost: .seconds(3600))
        }
      }
      while waiting.load(ordering: .relaxed) < 3 { usleep(1000) }
      usleep(50_000)  // until they wait, most likely: the child must not count on them
      let child = forkProcess()
      if child == 0 {
        for _ in 0..<20 {
          let seen = signal.generation
          let thread = startThread {
            if !signal.wait(since: seen, atMost: .seconds(20)) { _exit(1) }
          }
          usleep(2_000)  // as above
          signal.wakeOne()
          pthread_join(thread, nil)
        }
        _exit(0)
      }
      var status: Int32 = 0
      waitpid(child, &status, 0)
      exit(status == 0 ? 0 : 1)
    }
  }
}
