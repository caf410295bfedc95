// Evergreen: async code runs green code and awaits it.
// SPDX-License-Identifier: MIT
//
// The task itself comes over to the hub, where its job runs in a greenlet: so the task locals that are
// bound in the task are seen without being copied, and if the hub has ended the task is told by finding
// itself elsewhere. No continuation can be lost, for there is none.

import EvergreenBase
import EvergreenHub
import Greenlets

extension HubExecutor {
  /// Runs green code in a greenlet on the hub, and awaits its result.
  ///
  /// ```swift
  /// let page = try await hub.run { try http.get("http://127.0.0.1:8080/") }
  /// ```
  ///
  /// The task locals that the caller sees are seen inside, also by greenlets that `body` spawns.
  /// Cancelling the task kills the greenlet: ``GreenletExit`` is thrown where it waits, and comes out
  /// here as `CancellationError`. What `body` has returned by then is kept.
  ///
  /// - Parameter body: May wait; ``Hub/current`` is the hub.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws; `CancellationError`; ``HubEnded`` if the hub has ended before `body`
  ///   has begun. If it ends later, `body` is killed as all its greenlets are.
  ///
  /// > gevent: has none; asyncio's `run_coroutine_threadsafe` is the same between threads.
  public func run<R>(_ body: @escaping @Sendable () throws -> sending R) async throws -> sending R {
    let call = RunCall(on: core)
    let result = try await withTaskExecutorPreference(self) {
      try await withTaskCancellationHandler {
        try Carried(value: call.run(body))
      } onCancel: {
        call.cancel()
      }
    }
    return result.value
  }
}

/// A value that goes from one isolation to another, and is used by nobody but the receiver.
struct Carried<Value>: @unchecked Sendable {
  // Unchecked: what is put in was `sending`.
  nonisolated(unsafe) let value: Value
}

private final class RunCall: @unchecked Sendable {
  // Unchecked: `greenlet` belongs to the hub's thread.
  private let core: ExecutorCore
  private var greenlet: AnyGreenlet?

  init(on core: ExecutorCore) { self.core = core }

  func run<R>(_ body: () throws -> sending R) throws -> sending R {
    guard core.isOnHub else { throw HubEnded() }
    if Task.isCancelled { throw CancellationError() }
    greenlet = AnyGreenlet.currentIfAny
    defer { greenlet = nil }
    do {
      return try body()
    } catch {
      if error is GreenletExit, Task.isCancelled { throw CancellationError() }
      throw error
    }
  }

  func cancel() {
    core.door.post { [self] in _ = try? greenlet?.kill(waiting: false) }
  }
}
