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

package struct WaitList {
  package private(set) var first: UnsafeMutablePointer<WaitNode>?
  private var last: UnsafeMutablePointer<WaitNode>?

  package init() {}

  package var isEmpty: Bool { first == nil }

  @inline(__always)
  package mutating func append(_ node: UnsafeMutablePointer<WaitNode>) {
    node.pointee.previous = last
    node.pointee.next = nil
    node.pointee.isListed = true
    if let last { last.pointee.next = node } else { first = node }
    last = node
  }

  @inline(__always)
  /// Takes a node out, wherever it stands. No-op if it has been taken out already.
  package mutating func remove(_ node: UnsafeMutablePointer<WaitNode>) {
    guard node.pointee.isListed else { return }
    node.pointee.isListed = false
    let (previous, next) = (node.pointee.previous, node.pointee.next)
    if let previous { previous.pointee.next = next } else { first = next }
    if let next { next.pointee.previous = previous } else { last = previous }
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
