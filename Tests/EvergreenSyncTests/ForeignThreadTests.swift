// Evergreen: tests of what becomes of primitives that another thread uses
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

/// A call that another thread must not make.
private struct Misuse: Sendable {
  let testDescription: String
  /// What the advice must name.
  let object: String
  /// Makes the object, on its hub, and gives the call.
  let make: @Sendable () -> () -> Void

  init<Object>(
    _ description: String, _ object: String, of make: @escaping @Sendable () -> Object,
    _ call: @escaping @Sendable (Object) throws -> Void
  ) {
    testDescription = description
    self.object = object
    self.make = {
      let object = make()
      return { try? call(object) }
    }
  }

  static let all: [Misuse] = [
    Misuse("Event.set", "an Event", of: { Event() }) { $0.set() },
    Misuse("Event.clear", "an Event", of: { Event() }) { $0.clear() },
    Misuse("Event.wait", "an Event", of: { Event(isSet: true) }) { try $0.wait() },
    Misuse("AsyncResult.set", "an AsyncResult", of: { AsyncResult<Int>() }) { $0.set(1) },
    Misuse("AsyncResult.get", "an AsyncResult", of: { AsyncResult<Int>() }) { _ = try $0.get() },
    Misuse("AsyncResult.wait", "an AsyncResult", of: { AsyncResult<Int>() }) { try $0.wait() },
    Misuse("AsyncResult.completer", "an AsyncResult", of: { AsyncResult<Int>() }) {
      _ = $0.completer
    },
    Misuse("Semaphore.tryAcquire", "a Semaphore", of: { Semaphore() }) { _ = $0.tryAcquire() },
    Misuse("Semaphore.acquire", "a Semaphore", of: { Semaphore(value: 0) }) { try $0.acquire() },
    Misuse("Semaphore.wait", "a Semaphore", of: { Semaphore() }) { try $0.wait() },
    Misuse("Semaphore.release", "a Semaphore", of: { Semaphore() }) { $0.release() },
    Misuse("Semaphore.withPermit", "a Semaphore", of: { Semaphore() }) { try $0.withPermit {} },
    Misuse("BoundedSemaphore.release", "a Semaphore", of: { BoundedSemaphore() }) { $0.release() },
    Misuse("Lock.tryAcquire", "a Lock", of: { Lock() }) { _ = $0.tryAcquire() },
    Misuse("Lock.acquire", "a Lock", of: { Lock() }) { try $0.acquire() },
    Misuse("Lock.release", "a Lock", of: { Lock() }) { $0.release() },
    Misuse("Lock.withLock", "a Lock", of: { Lock() }) { try $0.withLock {} },
    Misuse("RLock.tryAcquire", "an RLock", of: { RLock() }) { _ = $0.tryAcquire() },
    Misuse("RLock.acquire", "an RLock", of: { RLock() }) { try $0.acquire() },
    Misuse("RLock.release", "an RLock", of: { RLock() }) { $0.release() },
    Misuse("Condition.wait", "a Condition", of: { Condition() }) { try $0.wait() },
    Misuse("Condition.wait(until:)", "a Condition", of: { Condition() }) {
      try $0.wait(until: { true })
    },
    Misuse("Condition.notify", "a Condition", of: { Condition() }) { $0.notify() },
    Misuse("Condition.notifyAll", "a Condition", of: { Condition() }) { $0.notifyAll() },
    Misuse("Barrier.wait", "a Barrier", of: { Barrier(parties: 1) }) { try $0.wait() },
    Misuse("Barrier.abort", "a Barrier", of: { Barrier(parties: 1) }) { $0.abort() },
    Misuse("Barrier.reset", "a Barrier", of: { Barrier(parties: 1) }) { $0.reset() },
    Misuse("ReadWriteLock.withReadLock", "a ReadWriteLock", of: { ReadWriteLock() }) {
      try $0.withReadLock {}
    },
    Misuse("ReadWriteLock.withWriteLock", "a ReadWriteLock", of: { ReadWriteLock() }) {
      try $0.withWriteLock {}
    },
    Misuse("GreenletLazy.get", "a GreenletLazy", of: { GreenletLazy { 1 } }) { _ = try $0.get() },
    Misuse("Once.run", "a Once", of: { Once {} }) { try $0.run() },
    Misuse("Queue.put", "a Queue", of: { Queue<Int>() }) { try $0.put(1) },
    Misuse("Queue.tryPut", "a Queue", of: { Queue<Int>() }) { _ = try $0.tryPut(1) },
    Misuse("Queue.get", "a Queue", of: { Queue<Int>() }) { _ = try $0.get() },
    Misuse("Queue.tryGet", "a Queue", of: { Queue<Int>() }) { _ = $0.tryGet() },
    Misuse("Queue iterated", "a Queue", of: { Queue<Int>() }) { for _ in $0 {} },
    Misuse("Queue.shutDown", "a Queue", of: { Queue<Int>() }) { $0.shutDown() },
    Misuse("JoinableQueue.taskDone", "a JoinableQueue", of: { JoinableQueue<Int>() }) {
      $0.taskDone()
    },
    Misuse("JoinableQueue.join", "a JoinableQueue", of: { JoinableQueue<Int>() }) { try $0.join() },
    Misuse("Channel.put", "a Channel", of: { Channel<Int>() }) { try $0.put(1) },
    Misuse("Channel.get", "a Channel", of: { Channel<Int>() }) { _ = try $0.get() },
    Misuse("Channel.tryGet", "a Channel", of: { Channel<Int>() }) { _ = $0.tryGet() },
    Misuse("Channel.shutDown", "a Channel", of: { Channel<Int>() }) { $0.shutDown() },
    Misuse("Pool.spawn", "a Pool", of: { Pool(size: 1) }) { try $0.spawn {} },
    Misuse("Pool.join", "a Pool", of: { Pool(size: 1) }) { try $0.join() },
    Misuse("Pool.kill", "a Pool", of: { Pool(size: 1) }) { try $0.kill() },
    Misuse("Inbox.get", "an Inbox", of: { Inbox<Int>() }) { _ = try $0.get() },
    Misuse("Inbox.tryGet", "an Inbox", of: { Inbox<Int>() }) { _ = $0.tryGet() },
    Misuse("Inbox.sender", "an Inbox", of: { Inbox<Int>() }) { _ = $0.sender },
    Misuse("Waiter.resume", "a Waiter", of: { Waiter<Int>() }) { $0.resume(returning: 1) },
    Misuse("Waiter.get", "a Waiter", of: { Waiter<Int>() }) { _ = try $0.get() },
    Misuse("Greenlet.kill", "a greenlet", of: { spawn { try sleep(for: .seconds(9)) } }) {
      try $0.kill()
    },
    Misuse("Greenlet.join", "a greenlet", of: { spawn { try sleep(for: .seconds(9)) } }) {
      try $0.join()
    },
  ]
}

/// Makes a call on another thread of a forked child.
///
/// - Returns: What the child said before it ended; `nil` if the call did not end it.
private func lastWords(of misuse: Misuse) throws -> String? {
  let ends = UnsafeMutablePointer<Int32>.allocate(capacity: 2)
  defer { ends.deallocate() }
  try check(pipe(ends) == 0, "no pipe")
  let child = ForkedChild {
    dup2(ends[1], STDERR_FILENO)
    // No backtrace, which takes seconds.
    for number in [SIGILL, SIGTRAP, SIGABRT] { signal(number, SIG_DFL) }
    let call = Loan(misuse.make())
    // With a hub of its own, and it does not belong to that either.
    let thread = startThread { Hub.withHub { _ in call.value() } }
    pthread_join(thread, nil)
  }
  close(ends[1])
  defer { close(ends[0]) }
  var text: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while case let count = read(ends[0], &buffer, buffer.count), count > 0 {
    text += buffer[..<count]
  }
  return try child.wait() == 0 ? nil : String(decoding: text, as: UTF8.self)
}

@Suite("Primitives on another thread", .timeLimit(.minutes(5)))
struct ForeignThreadTests {
  @Test(.disabled(if: Sanitizer.thread, "it ends a forked child that starts a thread"))
  func theirCallsEndWithAdvice() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        var wrong: [String] = []
        for misuse in Misuse.all {
          let text = try lastWords(of: misuse) ?? "nothing"
          if !text.contains("\(misuse.object) belongs to the hub of another thread")
            || !text.contains("mailbox")
          {
            wrong.append("\(misuse.testDescription): \(text)")
          }
        }
        try check(wrong.isEmpty, wrong.joined(separator: "\n"))
      }
    }
  }
}
