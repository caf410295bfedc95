// Evergreen: a queue that gives the newest item first.
// SPDX-License-Identifier: MIT

/// A ``Queue`` that gives the newest item first.
///
/// > gevent: `gevent.queue.LifoQueue`.
public final class LifoQueue<Element>: Queue<Element> {
  @exclusivity(unchecked) private var stack: [Element] = []

  /// - Parameter capacity: As ``Queue/init(capacity:)`` says.
  public init(capacity: Int? = nil) {
    super.init(limit: Self.limit(of: capacity), isPlain: false)
  }

  @usableFromInline override var kind: StaticString { "a LifoQueue" }
  @usableFromInline override func insert(_ item: Element) { stack.append(item) }
  @usableFromInline override func removeNext() -> Element { stack.removeLast() }
  @usableFromInline override var next: Element? { stack.last }
}
