// Evergreen: many readers or one writer.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub

/// Lets in any number of readers at a time, or one writer alone.
///
/// Fair: all come in in the order in which they came, readers that follow each other together. A writer
/// that waits holds up the readers that come behind it, so neither starves.
///
/// Belongs to the hub on which it was made.
///
/// > gevent: has none.
public final class ReadWriteLock {
  private let hub = Hub.current
  private var queue: [Turn] = []
  /// Those inside.
  public private(set) var readers = 0
  public private(set) var isWriting = false

  private final class Turn: WaitListOwner {
    let isWriter: Bool
    var waiters = WaitList()
    init(isWriter: Bool) { self.isWriter = isWriter }
  }

  public init() {}

  /// Runs `body` beside other readers.
  ///
  /// - Parameters:
  ///   - timeout: The longest wait for its turn; `nil` waits for ever.
  ///   - body: May wait.
  /// - Returns: What `body` returns.
  /// - Throws: A ``Timeout`` if its turn has not come in time; what is thrown into the caller; what
  ///   `body` throws.
  /// - Precondition: The caller is not inside already: it would wait for itself behind a writer.
  ///
  /// > Switch point: Yes, unless it may come in at once.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withReadLock<R>(timeout: Duration? = nil, _ body: () throws -> R) throws -> R {
    hub.checkIsCurrent("a ReadWriteLock")
    if isWriting || !queue.isEmpty {
      try wait(Turn(isWriter: false), timeout)
    } else {
      readers += 1
    }
    defer {
      readers -= 1
      letIn()
    }
    return try body()
  }

  /// Runs `body` alone.
  ///
  /// - Parameters:
  ///   - timeout: The longest wait for its turn; `nil` waits for ever.
  ///   - body: May wait.
  /// - Returns: What `body` returns.
  /// - Throws: A ``Timeout`` if its turn has not come in time; what is thrown into the caller; what
  ///   `body` throws.
  /// - Precondition: The caller is not inside already.
  ///
  /// > Switch point: Yes, unless nobody is inside.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func withWriteLock<R>(timeout: Duration? = nil, _ body: () throws -> R) throws -> R {
    hub.checkIsCurrent("a ReadWriteLock")
    if isWriting || readers > 0 || !queue.isEmpty {
      try wait(Turn(isWriter: true), timeout)
    } else {
      isWriting = true
    }
    defer {
      isWriting = false
      letIn()
    }
    return try body()
  }

  private func wait(_ turn: Turn, _ timeout: Duration?) throws {
    queue.append(turn)
    do {
      guard
        try hub.wait(
          WaitReason("a ReadWriteLock"), until: Deadline(after: timeout, on: hub), in: turn)
      else { throw Timeout(of: timeout) }
    } catch {
      queue.removeAll { $0 === turn }
      letIn()  // a writer that has gone may have held up readers
      throw error
    }
  }

  /// Whoever is next comes in, and is counted now: nobody overtakes.
  private func letIn() {
    while let next = queue.first, !isWriting, readers == 0 || !next.isWriter {
      queue.removeFirst()
      guard next.waiters.signalFirst() else { continue }  // it stayed in the parent of a fork
      if next.isWriter { isWriting = true } else { readers += 1 }
    }
  }
}
