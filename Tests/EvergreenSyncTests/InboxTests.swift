// Evergreen: tests of messages from other threads
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite("Inbox", .timeLimit(.minutes(1)))
struct InboxTests {
  @Test func messagesArriveInOrder() async throws {
    try await runGreen {
      let inbox = Inbox<Int>()
      let sender = inbox.sender
      let thread = startThread {
        for number in 0..<1000 { _ = try? sender.send(number) }
        sender.shutDown()
      }
      #expect(Array(inbox) == Array(0..<1000))
      #expect(throws: QueueShutDown.self) { try inbox.get() }
      pthread_join(thread, nil)
    }
  }

  @Test(arguments: [nil, 1, 3, 64], [1, 3])
  func nothingIsLostOrDoubledAmongManySenders(capacity: Int?, receivers: Int) async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: capacity)
      let sender = inbox.sender
      let threads = Threads(
        (0..<4).map { part in
          startThread { for number in 0..<500 { _ = try? sender.send(part * 500 + number) } }
        })
      var got: [Int] = []
      let receiving = (0..<receivers).map { _ in
        spawn {
          while got.count < 2000, let one = try inbox.get(timeout: .seconds(30)) { got.append(one) }
        }
      }
      while got.count < 2000 { try sleep(for: .milliseconds(1)) }
      try killAll(receiving)
      threads.join()
      #expect(got.sorted() == Array(0..<2000))
      for part in 0..<4 where receivers == 1 {
        let own = got.filter { $0 / 500 == part }
        #expect(own == own.sorted())
      }
      #expect(inbox.isEmpty)
    }
  }

  @Test func aFullOneSaysNoAndASenderThreadWaits() async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 2)
      let sender = inbox.sender
      #expect(try sender.trySend(1))
      #expect(try sender.trySend(2))
      #expect(try !sender.trySend(3))
      #expect(try !sender.send(3, timeout: .milliseconds(1)))
      let log = Guarded<[String]>([])
      let thread = startThread {
        let isSent = try? sender.send(3)
        log.withLock { $0.append("sent \(isSent as Any)") }
      }
      try sleep(for: .milliseconds(5))
      #expect(log.withLock { $0 } == [])
      #expect(try inbox.get() == 1)
      pthread_join(thread, nil)
      #expect(log.withLock { $0 } == ["sent Optional(true)"])
      #expect(inbox.count == 2)
      #expect([inbox.tryGet(), inbox.tryGet(), inbox.tryGet()] == [2, 3, nil])
    }
  }

  @Test func aThreadsTimeoutIsKept() async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 1)
      let sender = inbox.sender
      try sender.trySend(1)
      let outcome = AsyncResult<Bool>()
      let completer = outcome.completer
      let thread = startThread {
        let begin = ContinuousClock.now
        let isSent = (try? sender.send(2, timeout: .milliseconds(5))) ?? true
        completer.set(!isSent && begin.duration(to: .now) >= .milliseconds(5))
      }
      #expect(try outcome.get())
      pthread_join(thread, nil)
      #expect(try inbox.get() == 1)
      #expect(inbox.tryGet() == nil)
      #expect(try sender.trySend(3))  // no room was lost
      #expect(try inbox.get() == 3)
    }
  }

  @Test func aSendersGreenletWaitsCooperatively() async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 1)
      let sender = inbox.sender
      let sending = spawn { for number in 0..<100 { try sender.send(number) } }
      var got: [Int] = []
      while got.count < 100 { got.append(try inbox.get()) }
      #expect(got == Array(0..<100))
      try sending.join()
    }
  }

  @Test func aKilledSenderSendsNothingAndKeepsNoRoom() async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 1)
      let sender = inbox.sender
      try sender.send(0)
      let victims = (1...3).map { number in spawn { try sender.send(number) } }
      try Greenlet.yield()
      try victims[0].kill()
      #expect(try inbox.get() == 0)  // the room is the second one's
      try victims[1].kill()  // at the same moment
      var rest: [Int] = []
      while let one = try inbox.get(timeout: .milliseconds(20)) { rest.append(one) }
      #expect(rest == [3] || rest == [2, 3])
      try victims[2].join()
      #expect(try sender.trySend(9))
      #expect(try !sender.trySend(10))
    }
  }

  @Test func getHasATimeoutAndTryGetLooks() async throws {
    try await runGreen {
      let inbox = Inbox<Int>()
      let sender = inbox.sender
      #expect(inbox.tryGet() == nil)
      #expect(try inbox.get(timeout: .milliseconds(1)) == nil)
      try sender.trySend(5)
      #expect(inbox.tryGet() == 5)  // without a turn of the loop
    }
  }

  @Test func holdingTheSenderIsNoDeadlock() async throws {
    try await runGreen {
      let inbox = Inbox<Int>()
      var sender: InboxSender<Int>? = inbox.sender
      let waiter = spawn { try inbox.get() }
      #expect(try !waiter.join(timeout: .milliseconds(5)))
      #expect(sender != nil)
      sender = nil
      #expect(throws: LoopExit.self) { try waiter.join() }
      try waiter.kill()
    }
  }

  @Test func shuttingDownWakesSendersAndReceivers() async throws {
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 1)
      let sender = inbox.sender
      try sender.send(1)
      let outcome = AsyncResult<Bool>()
      let completer = outcome.completer
      let thread = startThread {
        do { _ = try sender.send(2) } catch { completer.set(error is QueueShutDown) }
      }
      try sleep(for: .milliseconds(3))
      inbox.shutDown()
      #expect(try outcome.get())
      pthread_join(thread, nil)
      #expect(try inbox.get() == 1)  // what was sent can be got
      #expect(throws: QueueShutDown.self) { try inbox.get() }
    }
  }

  @Test func whoeverSendsToAnEndedHubIsTold() async throws {
    let sender = try await runGreen { () -> InboxSender<Int> in
      let inbox = Inbox<Int>()
      let sender = inbox.sender
      try Hub.current.onSignal(SIGUSR1, keepsRunning: false) { _ = inbox }  // until the end
      return sender
    }
    #expect(throws: (any Error).self) { try sender.trySend(1) }
    #expect(throws: (any Error).self) { try sender.trySend(1) }
  }

  @Test func anEndingHubWakesAThreadThatWaitsForRoom() async throws {
    let outcome = Guarded<String?>(nil)
    try await runGreen {
      let inbox = Inbox<Int>(capacity: 1)
      let sender = inbox.sender
      try sender.send(1)
      let thread = startThread {
        do { _ = try sender.send(2) } catch {
          outcome.withLock { $0 = "\(type(of: error))" }
        }
      }
      pthread_detach(thread)
      try sleep(for: .milliseconds(3))
    }
    while outcome.withLock({ $0 }) == nil { try await Task.sleep(for: .milliseconds(1)) }
  }

  /// test__semaphore.py: TestSemaphoreMultiThread, where each semaphore belongs to one hub and others
  /// reach it through the mailbox.
  @Test func threadsDuelForAPermit() async throws {
    try await runGreen {
      let semaphore = Loan(Semaphore(value: 1))
      let mailbox = Hub.current.mailbox
      let inside = Loan(Counts())
      let answers = (0..<4).map { _ in AsyncResult<Int>() }
      let threads = Threads(
        answers.map(\.completer).map { completer in
          startThread {
            for number in 0..<200 {
              mailbox.post {
                try semaphore.value.withPermit {
                  inside.value.now += 1
                  inside.value.most = max(inside.value.most, inside.value.now)
                  try Greenlet.yield()
                  inside.value.now -= 1
                  inside.value.through += 1
                }
                if number == 199 { completer.set(200) }
              }
            }
          }
        })
      for answer in answers { _ = try answer.get(timeout: .seconds(30)) }
      threads.join()

      while inside.value.through < 800 { try sleep(for: .milliseconds(1)) }
      #expect(inside.value.most == 1)
      #expect(semaphore.value.value == 1)
    }
  }
}

final class Counts {
  var now = 0
  var most = 0
  var through = 0
}

/// Carries a reference through another thread, which does not touch it.
struct Loan<Value>: @unchecked Sendable {
  // Unchecked: see above.
  let value: Value
  init(_ value: Value) { self.value = value }
}
