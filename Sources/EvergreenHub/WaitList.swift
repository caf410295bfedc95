// Evergreen: those who wait for one thing, first come, first served.
// SPDX-License-Identifier: MIT
//
// A place in the list is a node in the stack frame of the greenlet that waits: joining and leaving
// allocate nothing, and who leaves early takes the place along. The one that wakes sets
// `isSignaled`; the one that was woken looks at that first, so what was won counts even if a kill
// or a timeout came before the greenlet ran.
//
// Who waits for several things has a node in each of their lists, and all of these are of one group.
//
// In the child of a fork the nodes of greenlets that stayed in the parent are in the lists still.
// They count as gone: who looks at a list or signals it passes them over.

public import CGreenlet

/// The place of one that waits.
@usableFromInline
package struct WaitNode {
  @usableFromInline package var next: UnsafeMutablePointer<WaitNode>?
  @usableFromInline package var previous: UnsafeMutablePointer<WaitNode>?
  /// Whom to wake; `nil` for a node of a group.
  @usableFromInline package let context: UnsafeMutablePointer<evg_context>?
  @usableFromInline package let group: UnsafeMutablePointer<WaitGroup>?
  /// What was waited for has happened.
  @usableFromInline package var isSignaled = false
  @usableFromInline package var isListed = false

  @inlinable
  package init(context: UnsafeMutablePointer<evg_context>) {
    self.context = context
    group = nil
  }

  @inlinable
  package init(in group: UnsafeMutablePointer<WaitGroup>) {
    context = nil
    self.group = group
  }

  /// Who waits, alone or in a group.
  package var greenlet: AnyGreenlet? {
    (context ?? group?.pointee.context).flatMap { Hub.greenlet(of: $0) }
  }
}

/// Several nodes of one greenlet, which waits for the first of them to be signaled, or for one after
/// the other.
@usableFromInline
package struct WaitGroup {
  /// Those that were signaled, in that order, linked by `next`: they are in no list any more.
  package var first: UnsafeMutablePointer<WaitNode>?
  package var last: UnsafeMutablePointer<WaitNode>?
  /// Who waits for the next of them.
  package var context: UnsafeMutablePointer<evg_context>?
  /// Once one node has been signaled, the others are passed over.
  package let takesOne: Bool

  package init(takesOne: Bool) { self.takesOne = takesOne }

  fileprivate var isGone: Bool {
    takesOne && first != nil || context?.pointee.state == UInt8(EVG_LOST)
  }

  fileprivate mutating func signal(_ node: UnsafeMutablePointer<WaitNode>) {
    node.pointee.next = nil
    if let last { last.pointee.next = node } else { first = node }
    last = node
    if let context { _ = evg_wake(context) }
  }

  /// The one that was signaled first, which is taken out.
  package mutating func removeFirst() -> UnsafeMutablePointer<WaitNode>? {
    guard let node = first else { return nil }
    first = node.pointee.next
    if first == nil { last = nil }
    return node
  }
}

extension UnsafeMutablePointer<WaitNode> {
  /// Its greenlet has got something else, or stayed in the parent of this process.
  @inlinable
  @inline(__always)
  var isGone: Bool {
    if let context = pointee.context { return context.pointee.state == UInt8(EVG_LOST) }
    return groupIsGone
  }

  @usableFromInline
  var groupIsGone: Bool { pointee.group.unsafelyUnwrapped.pointee.isGone }

  /// Tells the waiter that it has got what it waits for. The node must be in no list.
  @inlinable
  @inline(__always)
  package func signal() {
    pointee.isSignaled = true
    if let context = pointee.context { _ = evg_wake(context) } else { signalGroup() }
  }

  @usableFromInline
  func signalGroup() { pointee.group.unsafelyUnwrapped.pointee.signal(self) }
}

/// Small, because every greenlet has one: the first node's `previous` is the last node.
@usableFromInline
package struct WaitList {
  @usableFromInline var head: UnsafeMutablePointer<WaitNode>?

  @inlinable
  package init() {}

  /// The one that has waited longest.
  @inlinable
  @inline(__always)
  package var first: UnsafeMutablePointer<WaitNode>? {
    var node = head
    while let one = node, one.isGone { node = one.pointee.next }
    return node
  }

  @inlinable
  @inline(__always)
  package var isEmpty: Bool { first == nil }

  @inlinable
  @inline(__always)
  package mutating func append(_ node: UnsafeMutablePointer<WaitNode>) {
    node.pointee.next = nil
    node.pointee.isListed = true
    guard let head else {
      node.pointee.previous = node
      self.head = node
      return
    }
    let last = head.pointee.previous.unsafelyUnwrapped
    last.pointee.next = node
    node.pointee.previous = last
    head.pointee.previous = node
  }

  /// Takes a node out, wherever it stands. No-op if it has been taken out already.
  @inlinable
  @inline(__always)
  package mutating func remove(_ node: UnsafeMutablePointer<WaitNode>) {
    guard node.pointee.isListed, let head else { return }
    node.pointee.isListed = false
    let next = node.pointee.next
    let previous = node.pointee.previous.unsafelyUnwrapped
    if node == head { self.head = next } else { previous.pointee.next = next }
    if let next { next.pointee.previous = previous } else { head.pointee.previous = previous }
  }

  /// Takes out the one that has waited longest, for the caller to signal.
  @inlinable
  @inline(__always)
  package mutating func removeFirst() -> UnsafeMutablePointer<WaitNode>? {
    while let node = head {
      remove(node)
      if !node.isGone { return node }
    }
    return nil
  }

  /// Wakes the one that has waited longest. False if nobody waits.
  @inlinable
  @discardableResult
  package mutating func signalFirst() -> Bool {
    guard let node = removeFirst() else { return false }
    node.signal()
    return true
  }

  @inlinable
  package mutating func signalAll() {
    while signalFirst() {}
  }

  package var count: Int {
    var count = 0
    var node = head
    while let one = node {
      if !one.isGone { count += 1 }
      node = one.pointee.next
    }
    return count
  }
}
