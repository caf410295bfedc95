// Evergreen: sets of greenlets that belong together, limited or not.
// SPDX-License-Identifier: MIT
//
// A member leaves by a raw link, at its very end: whoever waits for it finds it gone already. What
// groups have in common is here; what a `Pool` does differently is to hand out places.

import EvergreenBase
public import EvergreenHub
public import Greenlets

/// A set of greenlets that are waited for and ended together: what ``Group`` and ``Pool`` have in common.
///
/// Members leave by themselves when they end. Belongs to the hub on which it was made.
public class AnyGroup {
  final let hub = Hub.current
  @exclusivity(unchecked) final var members: Set<AnyGreenlet> = []
  private let empty = Event(isSet: true)
  /// Those that feed a mapping: no members, but killed with them.
  final var helpers: Set<AnyGreenlet> = []
  @exclusivity(unchecked) private var joins: [Join] = []

  private final class Join { var failure: (any Error)? }

  init() {}

  // What the kinds of groups differ in.

  /// Waits for a place. False if the caller is to do the work itself.
  @usableFromInline func takePlace() throws -> Bool { true }
  @usableFromInline func tryTakePlace() -> Bool { true }
  /// A place has become free.
  func givePlace() {}
  /// Whether the caller has a place, and would wait for one while it has.
  var callerHasPlace: Bool { false }
  /// How far a mapping runs ahead that does not say.
  var usualBuffer: Int { 128 }

  // MARK: Members

  /// How many there are, running or ready to.
  public final var count: Int { members.count }
  public final var isEmpty: Bool { members.isEmpty }

  /// The greenlets in it, in the order in which they were made.
  public final var greenlets: [AnyGreenlet] { members.sorted { $0.serial < $1.serial } }

  /// Whether a greenlet is in it.
  public final func contains(_ greenlet: AnyGreenlet) -> Bool { members.contains(greenlet) }

  /// Called whenever a greenlet has left.
  @exclusivity(unchecked) package final var onLeave: (() -> Void)?

  /// Takes in a greenlet for which there is a place.
  @usableFromInline
  final func enroll(_ greenlet: AnyGreenlet) {
    checkIsCurrent()
    if !members.insert(greenlet).inserted { return givePlace() }
    empty.clear()
    _ = greenlet.rawLink { [unowned greenlet] in self.leave(greenlet) }
  }

  private func leave(_ greenlet: AnyGreenlet) {
    if !joins.isEmpty, members.contains(greenlet), let error = greenlet.error,
      !(error is GreenletExit || error is LostInFork)
    {
      for join in joins where join.failure == nil { join.failure = error }
    }
    discard(greenlet)
  }

  /// Takes a greenlet out, which goes on by itself; nothing happens if it is not in it.
  ///
  /// > gevent: `Group.discard(greenlet)`.
  public final func discard(_ greenlet: AnyGreenlet) {
    guard members.remove(greenlet) != nil else { return }
    givePlace()
    if members.isEmpty { empty.set() }
    onLeave?()
  }

  // MARK: Waiting

  /// Waits until the group has been empty at least once.
  ///
  /// - Parameters:
  ///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
  ///   - raisingErrors: Whether to throw, after the wait, the error of the member that failed first
  ///     during it. Those that had failed before have left, and are not seen.
  /// - Returns: Whether it has; `false` if `timeout` ran out first.
  /// - Throws: What is thrown into the caller; with `raisingErrors`, a member's error.
  /// - Precondition: Not called without a timeout by a member.
  ///
  /// > Switch point: Yes, unless it is empty.
  ///
  /// > gevent: `Group.join(timeout=None, raise_error=False)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func join(timeout: Duration? = nil, raisingErrors: Bool = false) throws -> Bool {
    checkIsCurrent()
    if timeout == nil, !members.isEmpty { try refuseMember() }
    guard raisingErrors else { return try empty.wait(timeout: timeout) }
    let join = Join()
    joins.append(join)
    defer { joins.removeAll { $0 === join } }
    let wasEmpty = try empty.wait(timeout: timeout)
    if let failure = join.failure { throw failure }
    return wasEmpty
  }

  final func checkIsCurrent() { hub.checkIsCurrent(self is Pool ? "a Pool" : "a Group") }

  private func refuseMember() throws {
    guard let me = AnyGreenlet.currentIfAny, members.contains(me) else { return }
    try hub.checkForDueError()
    fatal("\(me) waits for the end of a group that it is in itself, which would be for ever")
  }

  // MARK: Ending

  /// Ends all its greenlets, also those that are added meanwhile, and the mappings that it runs.
  ///
  /// - Parameters:
  ///   - error: What is thrown into them.
  ///   - waiting: Whether to wait until all have ended.
  ///   - timeout: The longest wait for all of them together; `nil` waits for ever.
  /// - Returns: Whether the group is empty.
  /// - Throws: What is thrown into the caller while it waits. To a caller that is in the group
  ///   itself, `error`, when the others have ended.
  ///
  /// > Switch point: Yes, if it waits.
  ///
  /// > gevent: `Group.kill(exception=GreenletExit, block=True, timeout=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func kill(
    _ error: any Error = GreenletExit(), waiting: Bool = true, timeout: Duration? = nil
  ) throws -> Bool {
    checkIsCurrent()
    let deadline = Deadline(after: timeout, on: hub)
    let me: AnyGreenlet? = waiting ? Greenlet.current : nil
    for helper in helpers { helper.requestEnd(with: GreenletExit()) }
    while members.contains(where: { $0 !== me }) {
      let victims = greenlets.filter { $0 !== me }
      for victim in victims { victim.requestEnd(with: error) }
      if !waiting { break }
      // Those that were there; newcomers are seen in the next round.
      for member in victims {
        guard try member.join(until: deadline) else { return false }
      }
    }
    if let me, members.contains(me) { throw error }
    return members.isEmpty
  }

  /// Ends one greenlet, if it is in the group.
  ///
  /// - Parameters:
  ///   - greenlet: Whom to end; one that is not in the group is left alone.
  ///   - error: What is thrown into it.
  ///   - waiting: Whether to wait until it has ended.
  ///   - timeout: The longest wait for that.
  /// - Returns: Whether it has ended, or was not in the group.
  /// - Throws: As ``AnyGreenlet/kill(_:waiting:timeout:)``.
  ///
  /// > Switch point: Yes, if it waits.
  ///
  /// > gevent: `Group.killone(greenlet, exception, block, timeout)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public final func killOne(
    _ greenlet: AnyGreenlet, with error: any Error = GreenletExit(), waiting: Bool = true,
    timeout: Duration? = nil
  ) throws -> Bool {
    guard members.contains(greenlet) else { return true }
    return try greenlet.kill(error, waiting: waiting, timeout: timeout)
  }
}
