// Evergreen: items from hand to hand.
// SPDX-License-Identifier: MIT

/// Passes each item from one greenlet to another: who puts waits until somebody gets it. A ``Queue``
/// without room.
///
/// ```swift
/// let numbers = Channel<Int>()
/// spawn { for number in 1...3 { try numbers.put(number) }; numbers.shutDown() }
/// for number in numbers { print(number) }
/// ```
///
/// > gevent: `gevent.queue.Channel`.
public final class Channel<Element>: Queue<Element> {
  public init() { super.init(limit: 0, isPlain: true) }

  @usableFromInline override var kind: StaticString { "a Channel" }
}
