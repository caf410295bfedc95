// Evergreen: generators, sequences whose body is written as a loop that hands out values.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// A sequence made by a body that yields its elements one by one, from any depth of calls.
///
/// ```swift
/// let squares = Generator { yield in
///   for n in 1... { try yield(n * n) }
/// }
/// for square in squares.prefix(3) { print(square) }  // 1, 4, 9
/// ```
///
/// The body runs on a stack of its own, only while an element is asked for. Dropping the generator
/// unwinds the body with ``GreenletExit``. A generator can be iterated once. It may block like any
/// code of the greenlet that asks for elements.
///
/// > Switch point: ``next()`` is none of the hub's by itself; whatever the body does may be.
public final class Generator<Element>: Sequence, IteratorProtocol {
  /// What body and consumer share; the body must not hold the generator itself.
  private final class Slot {
    var element: Element?
    var error: (any Error)?
    var consumer: RawGreenlet?
  }

  private let slot = Slot()
  private let greenlet: RawGreenlet

  /// Why the body ended early, if it threw; ``next()`` then returns `nil`.
  public var error: (any Error)? { slot.error }

  /// - Parameters:
  ///   - stackSize: Bytes of stack for the body.
  ///   - body: Calls its argument with each element; that throws ``GreenletExit`` when the
  ///     generator was dropped.
  public init(
    stackSize: Int = 256 * 1024,
    _ body: @escaping (_ yield: (Element) throws -> Void) throws -> Void
  ) {
    let slot = slot
    greenlet = RawGreenlet(stackSize: stackSize) { _ in
      do {
        try body { element in
          // Its core: this stack must not keep alive who holds the generator. None: dropped already.
          guard let consumer = slot.consumer?.core else { throw GreenletExit() }
          slot.element = element
          try consumer.resume()
        }
      } catch is GreenletExit where slot.consumer == nil {  // dropped; else somebody was killed
      } catch {
        slot.error = error
      }
      return nil
    }
    greenlet.core.parent = nil  // the maker may hold this on its stack, and would hold itself
  }

  /// The next element, or `nil` when the body has ended.
  ///
  /// It cannot throw. If a kill or the timeout of an enclosing block hit the body while it blocked,
  /// the body ends, and the caller gets the error at its own next switch point.
  ///
  /// - Precondition: No other greenlet, nor the body itself, is asking already.
  public func next() -> Element? {
    if let consumer = slot.consumer { fatal(alreadyRunning(for: consumer)) }
    let before = evg_thread_self().pointee.switches
    if let element = advance() { return element }
    if let error = slot.error, let postpone = evg_thread_self().pointee.postpone {
      withUnsafePointer(to: error) { postpone($0, before + 1) }
    }
    return nil
  }

  /// The next element, or `nil` when the body has ended.
  ///
  /// - Throws: What the body threw, once; ``SwitchError`` if another greenlet, or the body itself,
  ///   is asking already.
  public func nextOrThrow() throws -> Element? {
    if let consumer = slot.consumer { throw SwitchError(alreadyRunning(for: consumer)) }
    if let element = advance() { return element }
    if let error = slot.error {
      slot.error = nil
      throw error
    }
    return nil
  }

  private func alreadyRunning(for consumer: RawGreenlet) -> String {
    consumer === RawGreenlet.current || greenlet === RawGreenlet.current
      ? "the body of a generator asks it for an element, which would be for ever"
      : "a generator is asked for an element while its body still runs for another greenlet"
  }

  private func advance() -> Element? {
    if greenlet.isDead { return nil }
    let consumer = RawGreenlet.current
    slot.consumer = consumer
    greenlet.core.parent = consumer
    defer {
      slot.consumer = nil
      greenlet.core.parent = nil
    }
    do {
      try greenlet.switch()
    } catch {
      slot.error = error
    }
    let element = slot.element
    slot.element = nil
    return element
  }
}
