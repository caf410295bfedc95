// Evergreen: what is to be thrown into a greenlet at its next switch point.
// SPDX-License-Identifier: MIT
//
// Under a shield, what comes from outside of it is held apart, so that switch points need not know of
// shields: they look whether anything is due, as ever. Which timeouts come from outside is told by the
// number of shields under which they began.

import CGreenlet

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// An error that a block throws into its own greenlet, from outside of what runs there, and takes back
/// at its end: a timeout, the cancellation of a group. The object is its identity.
package protocol Revocable: AnyObject, Error {
  /// The block has ended.
  var isOver: Bool { get }
  /// How many shields the block began under, which do not hold it back.
  var shields: UInt32 { get }
  /// What the greenlet is to see now.
  func takeThrown() -> any Error
  /// It was thrown, has reached nobody, and can be taken back again.
  func isDueAgain(in greenlet: AnyGreenlet)
}

/// What has been due, and was thrown.
struct ThrownError {
  let error: any Error
  /// What threw it, if it can be taken back; the error may be another one.
  let revocable: (any Revocable)?
  let isKill: Bool
  /// The switches of the thread when it was thrown.
  let time = evg_thread_self().pointee.switches

  /// Whether it is the error that was caught. What can be taken back is told from others by its
  /// identity, other errors by their type: to be caught and thrown on may put a value into a new box.
  func isSame(as caught: any Error) -> Bool {
    if let one = error as? any Revocable { return caught as? any Revocable === one }
    return type(of: error) == type(of: caught)
  }
}

/// That something was thrown, without holding it.
struct Delivery {
  private let object: ObjectIdentifier?
  private let type: any Error.Type
  let time: UInt64

  init(of thrown: ThrownError) {
    object = (thrown.error as? any Revocable).map { ObjectIdentifier($0) }
    type = Swift.type(of: thrown.error)
    time = thrown.time
  }

  /// As ``ThrownError/isSame(as:)``.
  func isSame(as caught: any Error) -> Bool {
    guard let object else { return Swift.type(of: caught) == type }
    return (caught as? any Revocable).map { ObjectIdentifier($0) } == object
  }
}

/// Errors that are to be thrown at a greenlet's next switch point: a kill first, then the others in the
/// order in which they came.
struct DueErrors {
  struct Due {
    let error: any Error
    /// The same, if it can be taken back.
    let revocable: (any Revocable)?

    /// What is neither a kill nor of a block is the hub's, and no shield keeps it out.
    func comesFromOutside(of shields: UInt32) -> Bool {
      revocable.map { $0.shields < shields } ?? false
    }
  }

  private var killer: (any Error)?
  private var others: [Due]?
  private(set) var isAny = false
  /// How many calls of foreign code have failed because of the first of them.
  private(set) var strikes = 0
  var hasStruck: Bool { strikes > 0 && isAny }

  /// How many shields are up.
  private(set) var shields: UInt32 = 0
  private var held: Held?

  /// What came from outside of the shields; apart, because few greenlets ever have one.
  private final class Held {
    var killer: (any Error)?
    var others: [Due] = []
    var strikes = 0
  }

  var hasKill: Bool { killer != nil || held?.killer != nil }

  mutating func kill(with error: any Error) {
    if shields > 0 {
      held!.killer = error
    } else {
      killer = error
      isAny = true
    }
  }

  mutating func append(_ due: Due) {
    if shields > 0 && due.comesFromOutside(of: shields) {
      held!.others.append(due)
    } else {
      others = (others ?? []) + [due]
      isAny = true
    }
  }

  mutating func strike() -> Int32 {
    strikes += 1
    return killer == nil && others![0].revocable is Timeout ? ETIMEDOUT : ECANCELED
  }

  /// Whether it is this timeout that calls of foreign code have failed for.
  func hasStruck(_ timeout: Timeout) -> Bool {
    hasStruck && killer == nil && others?.first?.revocable === timeout
  }

  mutating func take() -> ThrownError {
    defer { isAny = killer != nil || others != nil }
    strikes = 0
    if let error = killer {
      killer = nil
      return ThrownError(error: error, revocable: nil, isKill: true)
    }
    let due = others!.removeFirst()
    if others!.isEmpty { others = nil }
    return ThrownError(
      error: due.revocable?.takeThrown() ?? due.error, revocable: due.revocable, isKill: false)
  }

  /// What was taken has not reached anybody. A kill that came since takes the place of an older
  /// one.
  mutating func putBack(_ thrown: ThrownError) {
    if thrown.isKill {
      if !hasKill { kill(with: thrown.error) }
      return
    }
    let due = Due(error: thrown.revocable ?? thrown.error, revocable: thrown.revocable)
    if due.comesFromOutside(of: shields) {
      held!.others.insert(due, at: 0)
    } else {
      others = [due] + (others ?? [])
      isAny = true
    }
  }

  /// Takes back what a block that has ended may have thrown.
  mutating func remove(_ revocable: any Revocable) {
    if hasStruck && killer == nil && others?.first?.revocable === revocable { strikes = 0 }
    others?.removeAll { $0.revocable === revocable }
    if others?.isEmpty == true { others = nil }
    held?.others.removeAll { $0.revocable === revocable }
    isAny = killer != nil || others != nil
  }

  // MARK: Shields

  mutating func raiseShield() {
    let held = held ?? Held()
    self.held = held
    held.strikes += strikes
    strikes = 0
    shields += 1
    if let error = killer {
      killer = nil
      held.killer = error
    }
    if let all = others {
      held.others += all.filter { $0.comesFromOutside(of: shields) }
      others = all.filter { !$0.comesFromOutside(of: shields) }
      if others!.isEmpty { others = nil }
    }
    isAny = others != nil
  }

  /// - Parameter all: Not only the innermost one.
  mutating func dropShield(all: Bool = false) {
    guard shields > 0, let held else { return }  // all have been broken
    shields = all ? 0 : shields - 1
    let free = held.others.filter { !$0.comesFromOutside(of: shields) }
    if !free.isEmpty {
      others = free + (others ?? [])
      held.others.removeAll { !$0.comesFromOutside(of: shields) }
    }
    if shields == 0 {
      killer = held.killer
      self.held = nil
    }
    isAny = killer != nil || others != nil
    if shields == 0 && isAny { strikes += held.strikes }
  }
}
