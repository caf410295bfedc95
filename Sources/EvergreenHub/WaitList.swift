// Evergreen: those who wait for one thing, first come, first served.
// SPDX-License-Identifier: MIT
//
// A place in the list is a node in the stack frame of the greenlet that waits: joining and leaving
// allocate nothing, and who leaves early takes the place along. The one that wakes sets
// `isSignaled`; the one that was woken looks at that first, so what was won counts even if a kill
// or a timeout came before the greenlet ran.
//
// In the child of a fork the nodes of greenlets that stayed in the parent are in the lists still.
// They count as gone: who looks at a list or signals it passes them over.

package import CGreenlet

package struct WaitNode {
  package var next: UnsafeMutablePointer<WaitNode>?
  package var previous: UnsafeMutablePointer<WaitNode>?
  package let context: UnsafeMutablePointer<evg_context>
  /// What was waited for has happened.
  package var isSignaled = false
  package var isListed = false
  /// Its greenlet waits for several things, and takes one of those that were promised.
  package var isTentative = false

  package init(context: UnsafeMutablePointer<evg_context>) { self.context = context }
}

extension UnsafeMutablePointer<WaitNode> {
  /// Its greenlet stayed in the parent of this process.
  @inline(__always)
  fileprivate var isLost: Bool { pointee.context.pointee.state == EVG_LOST }

  /// Tells the waiter that it has got what it waits for. The node must be in no list.
  @inline(__always)
  package func signal() {
    pointee.isSignaled = true
    _ = evg_wake(pointee.context)
  }
}

/// Small, because every greenlet has one: the first node's `previous` is the last node.
package struct WaitList {
  private var head: UnsafeMutablePointer<WaitNode>?

  package init() {}

  /// The one that has waited longest.
  @inline(__always)
  package var first: UnsafeMutablePointer<WaitNode>? {
    var node = head
    while let one = node, one.isLost { node = one.pointee.next }
    return node
  }

  @inline(__always)
  package var isEmpty: Bool { first == nil }

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
  @inline(__always)
  package mutating func remove(_ node: UnsafeMutablePointer<WaitNode>) {
    guard node.pointee.isListed, let head else { return }
    node.pointee.isListed = false
    let next = node.pointee.next
    let previous = node.pointee.previous.unsafelyUnwrapped
    if node == head { self.head = next } else { previous.pointee.next = next }
    if let next { next.pointee.previous = previous } else { head.pointee.previous = previous }
  }

  /// Wakes the one that has waited longest. False if nobody waits.
  @discardableResult
  package mutating func signalFirst() -> Bool {
    while let node = head {
      remove(node)
      if node.isLost { continue }
      node.signal()
      return true
    }
    return false
  }

  package mutating func signalAll() {
    while signalFirst() {}
  }

  package var count: Int {
    var count = 0
    var node = head
    while let one = node {
      if !one.isLost { count += 1 }
      node = one.pointee.next
    }
    return count
  }
}
