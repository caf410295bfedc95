// Evergreen: a queue that knows which items have been dealt with.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub

/// A ``Queue`` that knows which items have been dealt with.
///
/// ```swift
/// spawn { for job in jobs { defer { jobs.taskDone() }; try run(job) } }
/// try jobs.join()  // every job that was put has been run
/// ```
///
/// > gevent: `gevent.queue.JoinableQueue`.
public final class JoinableQueue<Element>: Queue<Element> {
  private var joiners = WaitList()

  /// Items that were put and for which ``taskDone()`` has not been called.
  public private(set) var unfinished = 0

  /// - Parameter capacity: As ``Queue/init(capacity:)`` says.
  public init(capacity: Int? = nil) {
    super.init(limit: Self.limit(of: capacity), isPlain: false)
  }

  @usableFromInline override var kind: StaticString { "a JoinableQueue" }

  @usableFromInline
  override func insert(_ item: Element) {
    super.insert(item)
    unfinished += 1
  }

  @usableFromInline override func passesByHand() { unfinished += 1 }

  /// Says that an item which was got has been dealt with.
  ///
  /// - Precondition: Not called more often than items were put.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `JoinableQueue.task_done()`.
  public func taskDone() {
    hub.checkIsCurrent(kind)
    require(unfinished > 0, "taskDone was called more often than items were put")
    finish(1)
  }

  private func finish(_ count: Int) {
    unfinished -= count
    if unfinished == 0 { joiners.signalAll() }
  }

  /// Waits until all items have been dealt with.
  ///
  /// - Parameter timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  /// - Returns: Whether they have; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless they have been.
  ///
  /// > gevent: `JoinableQueue.join(timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func join(timeout: Duration? = nil) throws -> Bool {
    hub.checkIsCurrent(kind)
    if unfinished == 0 { return true }
    return try hub.wait(
      WaitReason("the work on the items of a queue"), until: Deadline(after: timeout, on: hub),
      enlist: { joiners.append($0) }, delist: { joiners.remove($0) })
  }

  /// Items that are thrown away need not be dealt with.
  override func discard() {
    let discarded = count
    super.discard()
    if discarded > 0 { finish(discarded) }
  }
}
