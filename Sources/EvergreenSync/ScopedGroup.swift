// Evergreen: greenlets that do not outlive the block which spawns them.
// SPDX-License-Identifier: MIT
//
// What a group is cancelled by, and what comes of it:
//
// 1. A child fails: its error is kept, the other children are killed, and the body gets
//    `GroupCancelled` at its next switch point.
// 2. The body fails, or is killed or timed out: the children are killed.
// 3. The caller is killed or timed out while it waits for the children: they are killed.
// 4. Somebody calls `cancel()`.
//
// Then the end of all children is waited for under a shield: what comes into the caller meanwhile is
// thrown at its next switch point after the block. A caller that waits for a child which can never end
// gets its `LoopExit`; the child gets a second kill before.
//
// Which error: what came from outside goes on as it is, or the block whose timeout it is would not know
// its own; the errors of children beside it have nobody, and are reported. Else, all are collected, a
// single one is thrown as it is.

import CGreenlet
import EvergreenBase
public import EvergreenHub
import Greenlets

/// Runs `body` with a group for greenlets, and ends when they have ended.
///
/// ```swift
/// let (user, orders) = try withGroup(timeout: .seconds(2)) { group in
///   let user = group.spawn { try fetchUser(id) }
///   let orders = group.spawn { try fetchOrders(id) }
///   return (try user.get(), try orders.get())
/// }
/// ```
///
/// When a child fails, the other children are killed, and so is what `body` waits for. When `body`
/// throws, or the caller is killed or timed out, the children are killed. In any case the call waits for
/// the end of all of them, however long their clean-up takes. So a child is bound by every timeout that
/// the caller is in.
///
/// - Parameters:
///   - timeout: The longest time for `body` and all children; after it they are killed. `nil` for ever.
///   - body: Spawns children in the group; they may do so too.
/// - Returns: What `body` returns.
/// - Throws: The error of a child or of `body`, as it is, if there was one; if there were several, a
///   ``GroupError`` with all of them in the order of time. But what was thrown into the caller, a kill or
///   the ``Timeout`` of this or an enclosing block, goes on alone, and errors of children beside it are
///   reported through ``Hub/onError``. `GreenletExit` of a child that was killed is no error.
///   ``GroupCancelled`` if ``ScopedGroup/cancel()`` was called before `body` had returned.
///
/// > Switch point: As `body`; and at its end, unless all children have ended.
///
/// > gevent: has none; trio has `open_nursery()`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func withGroup<R>(
  timeout: Duration? = nil, _ body: (ScopedGroup) throws -> R
) throws -> R {
  guard let timeout else { return try ScopedGroup().run(body) }
  return try withTimeout(timeout) { try ScopedGroup().run(body) }
}

/// The children of a ``withGroup(timeout:_:)`` block.
public final class ScopedGroup: WaitListOwner {
  private let hub = Hub.current
  @exclusivity(unchecked) package var waiters = WaitList()
  private let cancellation: GroupCancelled
  @exclusivity(unchecked) private var children: Set<AnyGreenlet> = []
  private var failures: [Failure] = []
  private var bodyHasEnded = false
  private var hasEnded = false
  /// What was thrown into the caller.
  private var interruption: (any Error)?

  private struct Failure {
    let error: any Error
    /// `nil` for the body.
    let child: AnyGreenlet?
  }

  /// Whether its greenlets have been told to end.
  public private(set) var isCancelled = false

  fileprivate init() { cancellation = GroupCancelled(in: Greenlet.current) }

  /// How many children have not ended.
  public var count: Int { children.count }
  public var isEmpty: Bool { children.isEmpty }

  /// The children that have not ended, in the order in which they were made.
  public var greenlets: [AnyGreenlet] { children.sorted { $0.serial < $1.serial } }

  /// Spawns a child. In a group that has been cancelled it never runs.
  ///
  /// Whoever uses a group after its block gets a child that never runs either, and fails with an error
  /// that says so.
  ///
  /// - Parameters:
  ///   - stackSize: As for the function `spawn`.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: What it runs.
  /// - Returns: The child, which has not run yet.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  @inlinable
  public func spawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) -> Greenlet<Success> {
    let child = Greenlet(stackSize: stackSize, file: file, line: line, body)
    adopt(child)
    return child.start()
  }

  @usableFromInline
  func adopt(_ child: AnyGreenlet) {
    hub.checkIsCurrent("the group of a withGroup block")
    if hasEnded { return child.requestEnd(with: GroupHasEnded()) }
    children.insert(child)
    _ = child.rawLink { [unowned child] in self.leave(child) }
    if isCancelled { child.requestEnd(with: GreenletExit()) }
  }

  private func leave(_ child: AnyGreenlet) {
    children.remove(child)
    // In the child of a fork the others have ended without having failed.
    if let error = child.error, !(error is GreenletExit || error is LostInFork),
      interruption == nil
    {
      child.isSilent = true
      note(Failure(error: error, child: child))
      cancel()
    }
    if children.isEmpty { waiters.signalAll() }
  }

  /// Ends the children, and the body at its next switch point unless it has returned.
  ///
  /// What the body has returned is what `withGroup` returns; a body that is cut short gives
  /// ``GroupCancelled``.
  ///
  /// > Switch point: No.
  public func cancel() {
    hub.checkIsCurrent("the group of a withGroup block")
    if isCancelled { return }
    isCancelled = true
    if !bodyHasEnded { cancellation.interrupt() }
    for child in greenlets { child.requestEnd(with: GreenletExit()) }
    waiters.signalAll()
  }

  /// The same error may come by several ways: a child fails with what it got from another one.
  private func note(_ failure: Failure) {
    if !failures.contains(where: { isSame($0.error, failure.error) }) { failures.append(failure) }
  }

  // MARK: The block

  fileprivate func run<R>(_ body: (ScopedGroup) throws -> R) throws -> R {
    let begin = evg_thread_self().pointee.switches
    defer { hasEnded = true }
    let result: Result<R, any Error>
    do {
      result = .success(try body(self))
    } catch {
      result = .failure(error)
    }
    bodyHasEnded = true
    cancellation.end()
    if case .failure(let error) = result { bodyHasFailed(with: error, since: begin) }
    try waitForChildren()
    try throwFailures()
    return try result.get()
  }

  private func bodyHasFailed(with error: any Error, since begin: UInt64) {
    if error as? GroupCancelled !== cancellation {
      if AnyGreenlet.hasBeenThrown(error, since: begin) {
        interruption = error
      } else if !isCancelled || !(error is GreenletExit) {  // else from a child that was killed
        note(Failure(error: error, child: nil))
      }
    }
    cancel()
  }

  private func waitForChildren() throws {
    while !children.isEmpty && !isCancelled {
      do {
        try wait()
      } catch {
        interruption = error
        cancel()
      }
    }
    var isRepeated = false
    while !children.isEmpty {
      do {
        try shielded { while !children.isEmpty { try wait() } }
      } catch {
        // The standstill, or the end of the hub.
        interruption = interruption ?? error
        if isRepeated || !(error is LoopExit) { break }
        isRepeated = true
        for child in greenlets { child.requestEnd(with: GreenletExit()) }
      }
    }
  }

  private func wait() throws {
    _ = try hub.wait(WaitReason("the children of a group"), until: .never, in: self)
  }

  private func throwFailures() throws {
    if let interruption {
      let lost = failures
      failures = []
      shielded {
        for failure in lost {
          if let child = failure.child { hub.reportError(failure.error, of: child) }
        }
      }
      throw interruption
    }
    if failures.count > 1 { throw GroupError(errors: failures.map(\.error)) }
    if let failure = failures.first { throw failure.error }
  }
}

/// Whether it is one error that came twice: the same box, or an equal value.
private func isSame(_ one: any Error, _ other: any Error) -> Bool {
  if unsafeBitCast(one, to: UInt.self) == unsafeBitCast(other, to: UInt.self) { return true }
  guard let one = one as? any Hashable, let other = other as? any Hashable else { return false }
  return AnyHashable(one) == AnyHashable(other)
}

/// Several greenlets of one group failed.
public struct GroupError: Error, CustomStringConvertible {
  /// What they failed with, in the order of time.
  public let errors: [any Error]

  public var description: String {
    "\(errors.count) greenlets of a group failed: "
      + errors.map { "\($0)" }.joined(separator: "; ")
  }
}

/// A group was used after the end of its `withGroup` block.
public struct GroupHasEnded: Error, Hashable, Sendable, CustomStringConvertible {
  package init() {}

  public var description: String {
    "a greenlet was spawned in a group after the end of its withGroup block; it never runs"
  }
}
