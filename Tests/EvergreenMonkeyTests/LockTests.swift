// Evergreen: locks of threads among greenlets.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenMonkey
import EvergreenTesting
import Glibc
import Greenlets
import Testing

/// Memory for one of libc's locks.
private final class Shared<Value>: @unchecked Sendable {
  // Unchecked: what it holds is made for threads.
  let it = UnsafeMutablePointer<Value>.allocate(capacity: 1)
  init(_ value: Value) { it.initialize(to: value) }
  deinit { it.deallocate() }
}

private func makeMutex(_ kind: Int = PTHREAD_MUTEX_NORMAL) -> Shared<pthread_mutex_t> {
  let mutex = Shared(pthread_mutex_t())
  var attributes = pthread_mutexattr_t()
  pthread_mutexattr_init(&attributes)
  pthread_mutexattr_settype(&attributes, Int32(kind))
  pthread_mutex_init(mutex.it, &attributes)
  return mutex
}

private func makeCondition() -> Shared<pthread_cond_t> {
  let condition = Shared(pthread_cond_t())
  pthread_cond_init(condition.it, nil)
  return condition
}

private func makeSemaphore(_ value: UInt32) -> Shared<sem_t> {
  let semaphore = Shared(sem_t())
  sem_init(semaphore.it, 0, value)
  return semaphore
}

private let recursive = PTHREAD_MUTEX_RECURSIVE
private let errorCheck = PTHREAD_MUTEX_ERRORCHECK

/// What threads wait for each other by, between greenlets of one thread, and between those and threads.
@Suite("Locks", .serialized, .timeLimit(.minutes(2)))
struct LockTests {
  private func withLocks(_ body: @escaping @Sendable () throws -> Void) async throws {
    MonkeyPatch.install([.all, .locks])
    defer { MonkeyPatch.uninstall(.locks) }
    try await runGreen(body)
  }

  @Test func aMutexThatAnotherGreenletHasIsWaitedFor() async throws {
    try await withLocks {
      for kind in [PTHREAD_MUTEX_NORMAL, recursive, errorCheck] {
        let mutex = makeMutex(kind)
        var order: [Int] = []
        let greenlets = (0..<5).map { number in
          spawn {
            #expect(pthread_mutex_lock(mutex.it) == 0)
            usleep(2000)  // others run, and do not get it
            order.append(number)
            usleep(2000)
            order.append(number)
            #expect(pthread_mutex_unlock(mutex.it) == 0)
          }
        }
        try joinAll(greenlets, raisingErrors: true)
        #expect(order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
        #expect(pthread_mutex_destroy(mutex.it) == 0)
      }
    }
  }

  @Test func recursiveMutexesBelongToGreenlets() async throws {
    try await withLocks {
      let mutex = makeMutex(recursive)
      #expect(pthread_mutex_lock(mutex.it) == 0)
      #expect(pthread_mutex_lock(mutex.it) == 0)
      let other = spawn {
        #expect(pthread_mutex_trylock(mutex.it) == EBUSY)
        #expect(pthread_mutex_unlock(mutex.it) == EPERM)
        var soon = timespec()
        clock_gettime(CLOCK_REALTIME, &soon)
        #expect(pthread_mutex_timedlock(mutex.it, &soon) == ETIMEDOUT)
        #expect(pthread_mutex_lock(mutex.it) == 0)
        #expect(pthread_mutex_trylock(mutex.it) == 0)
        #expect(pthread_mutex_unlock(mutex.it) == 0)
        #expect(pthread_mutex_unlock(mutex.it) == 0)
      }
      usleep(5000)
      #expect(pthread_mutex_unlock(mutex.it) == 0)
      usleep(5000)
      #expect(!other.isReady, "it is unlocked once, and locked twice")
      #expect(pthread_mutex_unlock(mutex.it) == 0)
      try other.join()
      #expect(other.isSuccessful)
    }
  }

  @Test func errorCheckingMutexesBelongToGreenlets() async throws {
    try await withLocks {
      let mutex = makeMutex(errorCheck)
      #expect(pthread_mutex_lock(mutex.it) == 0)
      #expect(pthread_mutex_lock(mutex.it) == EDEADLK)
      let other = spawn {
        #expect(pthread_mutex_unlock(mutex.it) == EPERM)
        #expect(pthread_mutex_lock(mutex.it) == 0)
        #expect(pthread_mutex_lock(mutex.it) == EDEADLK)
        #expect(pthread_mutex_unlock(mutex.it) == 0)
      }
      usleep(2000)
      #expect(!other.isReady)
      #expect(pthread_mutex_unlock(mutex.it) == 0)
      try other.join()
      #expect(pthread_mutex_unlock(mutex.it) == EPERM)
    }
  }

  @Test func manyGreenletsAndThreadsCountTogether() async throws {
    try await withLocks {
      let mutex = makeMutex()
      let count = Shared(0)
      let add: @Sendable () -> Void = {
        for round in 0..<2000 {
          pthread_mutex_lock(mutex.it)
          count.it.pointee += 1
          if round % 100 == 0 { usleep(10) }
          pthread_mutex_unlock(mutex.it)
        }
      }
      let threads = (0..<2).map { _ in startThread(add) }
      let greenlets = (0..<4).map { _ in spawn { add() } }
      try joinAll(greenlets, raisingErrors: true)
      for thread in threads { pthread_join(thread, nil) }
      #expect(count.it.pointee == 12000)
    }
  }

  @Test func aConditionWakesGreenletsInTheirOrder() async throws {
    try await withLocks {
      let mutex = makeMutex()
      let condition = makeCondition()
      var tickets = 0
      var order: [Int] = []
      let waiting = (0..<4).map { number in
        spawn {
          pthread_mutex_lock(mutex.it)
          while tickets == 0 { pthread_cond_wait(condition.it, mutex.it) }
          tickets -= 1
          order.append(number)
          pthread_mutex_unlock(mutex.it)
        }
      }
      usleep(2000)
      for count in 1...2 {
        pthread_mutex_lock(mutex.it)
        tickets += 1
        pthread_cond_signal(condition.it)
        pthread_mutex_unlock(mutex.it)
        usleep(2000)
        #expect(order == Array(0..<count))
      }
      pthread_mutex_lock(mutex.it)
      tickets += 2
      pthread_cond_broadcast(condition.it)
      pthread_mutex_unlock(mutex.it)
      try joinAll(waiting, raisingErrors: true)
      #expect(order == [0, 1, 2, 3])
    }
  }

  @Test func aSemaphoreLosesNothing() async throws {
    try await withLocks {
      let items = makeSemaphore(0)
      let room = makeSemaphore(3)
      var taken = 0
      let consumers = (0..<3).map { _ in
        spawn {
          for _ in 0..<100 {
            #expect(sem_wait(items.it) == 0)
            taken += 1
            sem_post(room.it)
          }
        }
      }
      let producer = startThread {
        for _ in 0..<300 {
          while sem_wait(room.it) != 0 {}
          sem_post(items.it)
        }
      }
      try joinAll(consumers, raisingErrors: true)
      pthread_join(producer, nil)
      #expect(taken == 300)
      var left: Int32 = -1
      sem_getvalue(items.it, &left)
      #expect(left == 0)
    }
  }

  @Test func readersShareAndWritersDoNot() async throws {
    try await withLocks {
      let lock = Shared(pthread_rwlock_t())
      pthread_rwlock_init(lock.it, nil)
      var inside = 0
      var most = 0
      let readers = (0..<3).map { _ in
        spawn {
          pthread_rwlock_rdlock(lock.it)
          inside += 1
          most = max(most, inside)
          usleep(2000)
          inside -= 1
          pthread_rwlock_unlock(lock.it)
        }
      }
      let writers = (0..<2).map { _ in
        spawn {
          pthread_rwlock_wrlock(lock.it)
          #expect(inside == 0)
          inside += 100
          usleep(2000)
          inside -= 100
          pthread_rwlock_unlock(lock.it)
        }
      }
      try joinAll(readers + writers, raisingErrors: true)
      #expect(most == 3)
    }
  }

  @Test func anInitialisationThatWaitsIsWaitedFor() async throws {
    try await withLocks {
      let others = try turnsOfOthers {
        let once = Shared(pthread_once_t())
        let greenlets = (0..<3).map { _ in spawn { pthread_once(once.it, OnlyOnce.run) } }
        try joinAll(greenlets)
        #expect(OnlyOnce.runs == 1)
      }
      #expect(others > 0)
    }
  }

  private enum OnlyOnce {
    nonisolated(unsafe) static var runs = 0
    static let run: @convention(c) () -> Void = {
      usleep(5000)
      runs += 1
    }
  }

  @Test func othersRunWhileAThreadIsJoined() async throws {
    try await withLocks {
      let turns = try turnsOfOthers {
        let thread = startThread { usleep(20_000) }
        #expect(pthread_join(thread, nil) == 0)
      }
      #expect(turns > 1)
    }
  }

  // MARK: Errors that are due

  @Test func aKillDoesNotBreakIntoAMutex() async throws {
    try await withLocks {
      let mutex = makeMutex()
      pthread_mutex_lock(mutex.it)
      var steps: [String] = []
      let greenlet = spawn {
        #expect(pthread_mutex_lock(mutex.it) == 0)
        steps.append("has it")
        pthread_mutex_unlock(mutex.it)
        try Greenlet.yield()
        steps.append("goes on")
      }
      usleep(2000)
      try greenlet.kill(waiting: false)
      usleep(5000)
      #expect(steps == [])
      pthread_mutex_unlock(mutex.it)
      try greenlet.join()
      #expect(steps == ["has it"])
      #expect(greenlet.error is GreenletExit)
    }
  }

  @Test func aTimeoutWakesAConditionForNothingAndASemaphoreAsASignal() async throws {
    try await withLocks {
      let mutex = makeMutex()
      let condition = makeCondition()
      let semaphore = makeSemaphore(0)
      pthread_mutex_lock(mutex.it)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) {
          #expect(pthread_cond_wait(condition.it, mutex.it) == 0)
        }
      }
      #expect(pthread_mutex_trylock(mutex.it) == EBUSY, "the mutex was taken again")
      pthread_mutex_unlock(mutex.it)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) {
          errno = 0
          #expect(sem_wait(semaphore.it) == -1)
          #expect(errno == EINTR)
        }
      }
    }
  }

  @Test func whoIsKilledPassesASignalOn() async throws {
    try await withLocks {
      let mutex = makeMutex()
      let condition = makeCondition()
      var woken = 0
      let waiting = (0..<2).map { _ in
        spawn {
          pthread_mutex_lock(mutex.it)
          pthread_cond_wait(condition.it, mutex.it)
          woken += 1
          pthread_mutex_unlock(mutex.it)
        }
      }
      usleep(2000)
      try waiting[0].kill(waiting: false)
      pthread_cond_signal(condition.it)
      pthread_cond_signal(condition.it)
      try joinAll(waiting)
      #expect(woken == 2)
    }
  }

  // MARK: For whom

  @Test func locksArePatchedApart() async throws {
    MonkeyPatch.install(.all)
    #expect(!MonkeyPatch.isPatched(.locks))
    try await runGreen {
      let semaphore = makeSemaphore(0)
      let poster = startThread {
        usleep(20_000)
        sem_post(semaphore.it)
      }
      let turns = try turnsOfOthers { while sem_wait(semaphore.it) != 0 {} }
      #expect(turns == 0)
      pthread_join(poster, nil)
    }
  }

  @Test func theLibraryItselfIsLeftAlone() async throws {
    try await withLocks {
      // Its pools and mailboxes have locks of their own, and threads that contend for them.
      let greenlets = (0..<50).map { number in
        spawn {
          var found: UnsafeMutablePointer<addrinfo>?
          #expect(getaddrinfo("localhost", nil, nil, &found) == 0)
          freeaddrinfo(found)
          return number
        }
      }
      let numbers = try greenlets.map { try $0.get() }
      #expect(numbers == Array(0..<50))
    }
  }

  @Test func aForkedChildLocks() async throws {
    try await withLocks {
      let mutex = makeMutex(recursive)
      pthread_mutex_lock(mutex.it)
      let waiting = spawn {
        pthread_mutex_lock(mutex.it)
        pthread_mutex_unlock(mutex.it)
      }
      usleep(2000)
      let child = ForkedChild {
        let own = makeMutex(recursive)
        pthread_mutex_lock(own.it)
        pthread_mutex_lock(own.it)
        let other = spawn { pthread_mutex_trylock(own.it) }
        guard try other.get() == EBUSY else { throw GreenletExit() }
        pthread_mutex_unlock(own.it)
        pthread_mutex_unlock(own.it)
      }
      #expect(try child.wait() == 0)
      pthread_mutex_unlock(mutex.it)
      try waiting.join()
    }
  }
}
