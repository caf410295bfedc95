// Evergreen: a greenlet waits for async code.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase
public import EvergreenHub
import Synchronization

extension Hub {
  /// Runs async code in a task, and waits for its result; other greenlets run meanwhile.
  ///
  /// ```swift
  /// let hub = Hub.current
  /// let user = try hub.await { try await client.user(named: "ann") }
  /// ```
  ///
  /// The code runs on Swift's pool, or on `executor`. It sees the task locals that the caller sees, so
  /// log metadata and tracing contexts go with it. A kill or a timeout of the caller cancels the task.
  /// It does not wait for a task that does not heed that, or a timeout would not be one: such a task
  /// ends by itself and what it returns is dropped. With `waitingForCancelled` it is waited for, so that
  /// nothing of it goes on when the call is over. A result that has come beats the kill.
  ///
  /// While it waits the hub knows that something may come, and does not take it for a deadlock.
  ///
  /// - Parameters:
  ///   - executor: Where the code runs: ``executor`` for the hub's own thread; `nil` for Swift's pool.
  ///   - priority: Of the task; `nil` for the usual one.
  ///   - waitingForCancelled: Whether a kill or a timeout waits until the cancelled task has ended.
  ///   - operation: The code. `@MainActor` code needs a main queue that somebody serves; see
  ///     ``serveMainQueue()``.
  /// - Returns: What `operation` returns.
  /// - Throws: What `operation` throws; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: has none; `ThreadPool.apply` comes near.
  @available(*, noasync, message: "in async code, await it directly")
  public func `await`<R>(
    on executor: (any TaskExecutor)? = nil, priority: TaskPriority? = nil,
    waitingForCancelled: Bool = false,
    _ operation: @escaping @Sendable () async throws -> sending R
  ) throws -> R {
    checkIsCurrent("a hub")
    try checkForDueError()
    let answer = Answer<R>()
    let door = backDoor
    externalWakers += 1
    let task = Task(executorPreference: executor, priority: priority) {
      do {
        answer.result = .success(try await operation())
      } catch {
        answer.result = .failure(error)
      }
      answer.deliver(through: door)
    }
    do {
      _ = try wait(WaitReason("a task"), until: .never, in: answer)
    } catch {
      task.cancel()
      if waitingForCancelled, !answer.isThere {
        stayFirmly(WaitReason("a cancelled task"), in: answer)
      }
      throw error
    }
    return try answer.take()
  }
}

/// What the greenlet and the task share: the task writes the result before it posts, the greenlet reads
/// it after the post; the rest is the hub's alone.
private final class Answer<R>: WaitListOwner, @unchecked Sendable {
  var waiters = WaitList()
  var isThere = false
  var result: Result<R, any Error>?

  func deliver(through door: MailboxCore) {
    if let hub = Hub.currentIfAny, hub.backDoor === door { return arrive() }
    door.post { self.arrive() }
  }

  private func arrive() {
    Hub.currentIfAny?.externalWakers -= 1
    isThere = true
    waiters.signalFirst()
  }

  func take() throws -> R {
    defer { result = nil }
    return try result.unsafelyUnwrapped.get()
  }
}
