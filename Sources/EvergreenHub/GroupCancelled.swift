// Evergreen: what ends the body of a group that is cancelled.
// SPDX-License-Identifier: MIT

/// The group of a `withGroup` block has been cancelled: thrown into its body at the next switch point.
///
/// Let it pass; `withGroup` takes it back, and throws what the group was cancelled for.
///
/// > gevent: has none; trio's is `Cancelled`.
public final class GroupCancelled: Revocable, CustomStringConvertible, @unchecked Sendable {
  // Unchecked: belongs to the thread of its greenlet, where alone it changes.
  private var greenlet: AnyGreenlet?
  package let shields: UInt32
  package private(set) var isOver = false

  /// - Parameter greenlet: Who runs the body.
  package init(in greenlet: AnyGreenlet) {
    self.greenlet = greenlet
    shields = greenlet.shields
  }

  /// Throws it, once.
  package func interrupt() { greenlet?.interrupt(with: self) }

  /// The body has ended.
  package func end() {
    isOver = true
    greenlet?.takeBack(self)
    greenlet = nil
  }

  package func takeThrown() -> any Error { self }
  package func isDueAgain(in greenlet: AnyGreenlet) {}

  public var description: String { "the group has been cancelled" }
}
