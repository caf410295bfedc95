// Evergreen: results of greenlets in the order in which they were spawned.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import Greenlets

/// Greenlets of one type of result, which are asked for it in the order of their spawning.
///
/// ```swift
/// let pile = GreenPile<Page>(Pool(size: 10))
/// for url in urls { try pile.spawn { try fetch(url) } }  // waits while ten are at work
/// while let page = try pile.next() { index(page) }
/// ```
///
/// Several piles may share a pool. Where the work is the same for each element of a sequence, `imap`
/// does this and bounds what is buffered; a pile keeps all results until they are asked for. When it
/// goes, it ends those of its greenlets whose result nobody has got. Belongs to the hub on which it was
/// made.
///
/// > eventlet: `GreenPile`.
public final class GreenPile<Output> {
  private let group: AnyGroup
  private let hub = Hub.current
  private var greenlets = Ring<Greenlet<Output>>()

  /// - Parameter group: Where its greenlets run; others may too.
  public init(_ group: AnyGroup) { self.group = group }

  /// - Parameter size: How many may run at a time, 1 or more; `nil` for no limit.
  public convenience init(size: Int? = nil) { self.init(Pool(size: size)) }

  deinit {
    guard hub.isCurrent else { return }
    while greenlets.count > 0 { greenlets.removeFirst().requestEnd(with: GreenletExit()) }
  }

  /// How many results are to come.
  public var count: Int { greenlets.count }
  public var isEmpty: Bool { greenlets.count == 0 }

  /// Waits for a place and spawns a greenlet.
  ///
  /// In a full pool that the caller is in, `body` runs in the caller; see
  /// ``Pool/spawn(stackSize:file:line:_:)``.
  ///
  /// - Parameters:
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: What it runs. Its error is thrown by ``next()``, and not reported.
  /// - Throws: What is thrown into the caller while it waits; then nothing was spawned.
  ///
  /// > Switch point: Yes, if the pool is full.
  ///
  /// > eventlet: `GreenPile.spawn(function)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func spawn(
    file: StaticString = #fileID, line: UInt = #line, _ body: @escaping () throws -> Output
  ) throws {
    let hasPlace = try group.takePlace()
    let greenlet = Greenlet(file: file, line: line, body)
    greenlet.isSilent = true
    greenlets.append(greenlet)
    if !hasPlace { return try greenlet.runHere() }
    group.enroll(greenlet)
    greenlet.start()
  }

  /// Waits for the result of the greenlet that was spawned first of those that are left.
  ///
  /// - Returns: The result; `nil` if none is left.
  /// - Throws: The greenlet's error, `GreenletExit` if it was killed; the next ones can be asked for
  ///   still. What is thrown into the caller while it waits; then no result is lost.
  ///
  /// > Switch point: Yes, unless the result is there.
  ///
  /// > eventlet: `GreenPile.next()`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func next() throws -> Output? {
    hub.checkIsCurrent("a GreenPile")
    while let first = greenlets.first {
      try first.join(until: .never)
      // Others may have asked too.
      if greenlets.first === first { return try greenlets.removeFirst().get() }
    }
    return nil
  }
}
