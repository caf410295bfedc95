// Evergreen: queues of greenlets and sequences of async code.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub
public import EvergreenSync
import Greenlets

/// The items of a hub's queue as an asynchronous sequence; made by ``Hub/stream(from:)``.
///
/// It takes an item when one is asked for, not before: the queue's own capacity is what holds back those
/// who put, and nothing is on the way when a task is cancelled. It ends when the queue is shut down and
/// empty, and when the task is cancelled. Several tasks may iterate; each item goes to one of them.
public struct HubStream<Element: Sendable>: AsyncSequence, Sendable {
  private let executor: HubExecutor
  private let source: Source

  /// Asked on the hub alone, and goes there.
  private final class Source: @unchecked Sendable {
    // Unchecked: see above.
    var next: () throws -> Element
    let door: MailboxCore

    init(_ next: @escaping () throws -> Element, _ door: MailboxCore) {
      self.next = next
      self.door = door
    }

    deinit {
      let last = Carried(value: next)
      door.post { _ = last }
    }
  }

  init(on hub: Hub, _ next: @escaping () throws -> Element) {
    executor = hub.executor
    source = Source(next, hub.backDoor)
  }

  public struct AsyncIterator: AsyncIteratorProtocol {
    fileprivate let stream: HubStream

    /// The next item; `nil` at the end.
    ///
    /// - Throws: ``HubEnded``.
    public mutating func next() async throws -> Element? {
      do {
        return try await stream.executor.run { [source = stream.source] in try source.next() }
      } catch {
        if error is QueueShutDown || error is CancellationError { return nil }
        throw error
      }
    }
  }

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(stream: self) }
}

extension Hub {
  /// The items of a queue for async code.
  ///
  /// ```swift
  /// let lines = hub.stream(from: queue)
  /// Task { for try await line in lines { await log.append(line) } }
  /// ```
  ///
  /// - Parameter queue: A queue of this hub, or a channel.
  /// - Returns: The sequence, for any task.
  public func stream<Element: Sendable>(from queue: Queue<Element>) -> HubStream<Element> {
    HubStream(on: self) { try queue.get() }
  }

  /// Puts what an asynchronous sequence gives into a queue, in order, and shuts the queue down at its
  /// end.
  ///
  /// ```swift
  /// let numbers = Queue<Int>(capacity: 16)
  /// let feeder = hub.feed(numbers, from: sequence)
  /// for number in numbers { try work(on: number) }
  /// ```
  ///
  /// No more is asked for than there is room in the queue. Kill the feeder to cancel the sequence's task;
  /// shutting the queue down ends it as well, when the next item comes. An error of the sequence is the
  /// feeder's, and reported as such.
  ///
  /// - Parameters:
  ///   - queue: A queue of this hub.
  ///   - sequence: Iterated in a task, on this hub's thread where it does not say otherwise.
  /// - Returns: The greenlet that waits for the sequence's end.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func feed<Sequence: AsyncSequence & Sendable>(
    _ queue: Queue<Sequence.Element>, from sequence: Sequence
  ) -> Greenlet<Void> where Sequence.Element: Sendable {
    checkIsCurrent("a hub")
    let feeder = spawn { [self] in
      defer { queue.shutDown() }
      let executor = executor
      let target = Carried(value: queue)
      do {
        try self.await(on: executor) {
          for try await item in sequence {
            _ = try await executor.run { try target.value.put(item) }
          }
        }
      } catch {
        if error is QueueShutDown { return }  // by the consumer
        throw error
      }
    }
    feeder.name = "feeder of a queue"
    return feeder
  }
}

extension Queue where Element: Sendable {
  /// A queue of what an asynchronous sequence gives; see ``Hub/feed(_:from:)``.
  ///
  /// Shut it down when the rest is not wanted.
  ///
  /// - Parameters:
  ///   - sequence: Iterated in a task, on the current hub's thread where it does not say otherwise.
  ///   - capacity: How many items may wait here, 1 or more; `nil` for no limit.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public convenience init<Source: AsyncSequence & Sendable>(
    from sequence: Source, capacity: Int? = 16
  ) where Source.Element == Element {
    self.init(capacity: capacity)
    Hub.current.feed(self, from: sequence)
  }
}
