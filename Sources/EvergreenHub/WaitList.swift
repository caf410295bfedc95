// Evergreen: those who wait for one thing, first come, first served.
// SPDX-License-Identifier: MIT
//
// A place in the list is a node in the stack frame of the greenlet that waits: joining and leaving
// allocate nothing, and who leaves early takes the place along. The one that wakes sets
// `isSignaled`; the one that was woken looks at that first, so what was won counts even if a kill
// or a timeout came before the greenlet ran.

package import CGreenlet

package struct WaitNode {
  package var next: UnsafeMutablePointer<WaitNode>?
  package var previous: UnsafeMutablePointer<WaitNode>?
  package let context: UnsafeMutablePointer<evg_context>
  /// What was waited for has happened.
  package var isSignaled = false
  package var isListed = false

  package init(context: UnsafeMutablePointer<evg_context>) { self.context = context }
}

extension UnsafeMutablePointer<WaitNode> {
  /// Tells the waiter that it has got what it waits for. The node must be in no list.
  @inline(__always)
  package func signal() {
    pointee.isSignaled = true
    _ = evg_wake(pointee.context)
  }
}

/// Small, because every greenlet has one: the first node's `previous` is the last node.
package struct WaitList {
  package private(set) var first: UnsafeMutablePointer<WaitNode>?

  package init() {}

  package var isEmpty: Bool { first == nil }

  @inline(__always)
  package mutating func append(_ node: UnsafeMutablePointer<WaitNode>) {
    node.pointee.next = nil
    node.pointee.isListed = true
    guard let first else {
      node.pointee.previous = node
      self.first = node
      return
    }
    let last = first.pointee.previous.unsafelyUnwrapped
    last.pointee.next = node
    node.pointee.previous = last
    first.pointee.previous = node
  }

  /// Takes a node out, wherever it stands. No-op if it has been taken out already.
  @inline(__always)
  package mutating func remove(_ node: UnsafeMutablePointer<WaitNode>) {
    guard node.pointee.isListed, let first else { return }
    node.pointee.isListed = false
    let next = node.pointee.next
    let previous = node.pointee.previous.unsafelyUnwrapped
    if node == first { self.first = next } else { previous.pointee.next = next }
    if let next { next.pointee.previous = previous } else { first.pointee.previous = previous }
  }

  /// Wakes the one that has waited longest. False if nobody waits.
  @discardableResult
  package mutating func signalFirst() -> Bool {
    guard let node = first else { return false }
    remove(node)
    node.signal()
    return true
  }

  package mutating func signalAll() {
    while signalFirst() {}
  }

  package var count: Int {
    var count = 0
    var node = first
    while let one = node {
      count += 1
      node = one.pointee.next
    }
    return count
  }
}
