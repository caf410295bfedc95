// Evergreen: the end of a result that other threads hold.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import Synchronization

/// Completes an ``AsyncResult`` from any thread or task, once.
///
/// ```swift
/// let answer = AsyncResult<Int>()
/// let completer = answer.completer
/// DispatchQueue.global().async { completer.set(compute()) }
/// let value = try answer.get()
/// ```
///
/// As long as somebody holds it, and has not completed it, the hub knows that something may come and does
/// not take a standstill for a deadlock. If the last who holds it lets go without, those who wait get
/// ``CompleterDropped``.
///
/// > gevent: `AsyncResult.set` from another thread.
public final class Completer<Value>: Sendable {
  private let isUsed = Atomic(false)
  private let target: Target
  private let door: MailboxCore

  /// Touched on the hub alone.
  private struct Target: @unchecked Sendable {
    // Unchecked: see above.
    let result: AsyncResult<Value>
  }

  private struct Outcome: @unchecked Sendable {
    // Unchecked: it was `sending`, or is an error.
    let result: Result<Value, any Error>
  }

  fileprivate init(_ result: AsyncResult<Value>, on hub: Hub) {
    target = Target(result: result)
    door = hub.backDoor
    hub.externalWakers += 1
  }

  deinit {
    if !isUsed.load(ordering: .acquiring) {
      deliver(Outcome(result: .failure(CompleterDropped())))
    }
  }

  /// Sets the value and wakes those who wait.
  ///
  /// Callable from any thread and from tasks.
  ///
  /// - Returns: Whether it counts: `false` if it was completed before, or if the hub has ended. If the
  ///   hub itself has set the result meanwhile, that stays.
  ///
  /// > Switch point: No.
  @discardableResult
  public func set(_ value: sending Value) -> Bool { complete(Outcome(result: .success(value))) }

  /// Sets an error, which those who wait get; else as ``set(_:)``.
  ///
  /// > Switch point: No.
  @discardableResult
  public func set(throwing error: any Error) -> Bool {
    complete(Outcome(result: .failure(error)))
  }

  private func complete(_ outcome: Outcome) -> Bool {
    if isUsed.exchange(true, ordering: .acquiringAndReleasing) { return false }
    return deliver(outcome)
  }

  @discardableResult
  private func deliver(_ outcome: Outcome) -> Bool {
    door.post { [target] in
      Hub.current.externalWakers -= 1
      target.result.trySet(outcome.result)
    }
  }
}

extension Completer where Value == Void {
  /// Wakes those who wait; else as ``set(_:)``.
  ///
  /// > Switch point: No.
  @discardableResult
  public func set() -> Bool { set(()) }
}

extension AsyncResult {
  /// What completes it from other threads: the same one as long as somebody holds it.
  ///
  /// > Switch point: No.
  public var completer: Completer<Value> {
    hub.checkIsCurrent("an AsyncResult")
    if let living = livingCompleter as? Completer<Value> { return living }
    let completer = Completer(self, on: hub)
    livingCompleter = completer
    return completer
  }
}

/// Whoever was to complete an ``AsyncResult`` has let go of its ``Completer`` without doing so.
public struct CompleterDropped: Error, Hashable, Sendable, CustomStringConvertible {
  public init() {}

  public var description: String {
    "nobody will complete this result: its completer was dropped"
  }
}
