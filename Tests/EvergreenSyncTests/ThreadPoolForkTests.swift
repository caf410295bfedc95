// Evergreen: tests of thread pools in forked children.
// SPDX-License-Identifier: MIT
//
// The thread sanitizer ends a forked child that starts a thread.

import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite(.timeLimit(.minutes(2)), .disabled(if: Sanitizer.thread, "it cannot start threads there"))
struct ThreadPoolForkTests {
  @Test func aPoolStartsAnewInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let pool = ThreadPool(maxThreads: 2, idleTimeout: .seconds(3600))
        try pool.run {}  // leaves an idle thread
        try check(pool.threadCount == 1)
        let isOpen = Atomic(false)
        let runs = Atomic(0)
        let jobs = (0..<5).map { number in
          spawn {
            try pool.run {
              while !isOpen.load(ordering: .relaxed) { usleep(1000) }
              runs.add(1, ordering: .relaxed)
              return number
            }
          }
        }
        while pool.backlog < 3 { try sleep(for: .milliseconds(1)) }
        try spawn {
          try inForkedChild {
            try check(pool.threadCount == 0 && pool.backlog == 0)
            try check(jobs.allSatisfy { $0.error is LostInFork })
            isOpen.store(true, ordering: .relaxed)
            let mine = (0..<10).map { number in spawn { try pool.run { number * 2 } } }
            try check(mine.map { try $0.get() } == (0..<10).map { $0 * 2 })
            try check(pool.threadCount <= 2)
            try check(runs.load(ordering: .relaxed) == 0)
            // Nobody waits for the jobs of the parent.
            try check(thrownBy { try Event().wait() } is LoopExit)
            pool.shutDown()
            try check(thrownBy { try pool.run {} } is ThreadPoolClosed)
          }
        }.get()
        try check(pool.backlog == 3)
        isOpen.store(true, ordering: .relaxed)
        try check(jobs.map { try $0.get() } == Array(0..<5))
        pool.shutDown()
      }
    }
  }

  @Test func poolsThatAreBusyOnOtherThreadsAreFreeInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let pool = ThreadPool(maxThreads: 4)
        let isOver = Box(false)
        let users = (0..<8).map { _ in spawn { while !isOver.value { try pool.run {} } } }
        for _ in 0..<30 {
          try inForkedChild {
            for number in 0..<10 { try check(pool.run { number } == number) }
          }
        }
        isOver.value = true
        for user in users { try user.get() }
        pool.shutDown()
      }
    }
  }

  @Test(.disabled(if: Sanitizer.any, "they look for the parent's threads when the child exits"))
  func aJobMayFork() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let pool = ThreadPool(maxThreads: 1)
        let child = try pool.run { forkProcess() }
        // There the job returns, nobody waits for it, and the only thread ends.
        try check(ForkedChild(processID: child).wait() == 0)
        try check(pool.run { 1 } == 1)
        pool.shutDown()
      }
    }
  }
}

private final class Box<Value> {
  var value: Value
  init(_ value: Value) { self.value = value }
}

private func thrownBy(_ body: () throws -> Void) -> (any Error)? {
  do {
    try body()
    return nil
  } catch {
    return error
  }
}
