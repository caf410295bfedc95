// Evergreen: items in the order in which they came, in memory that goes round.
// SPDX-License-Identifier: MIT

/// A first-in, first-out buffer that grows as needed, and gives memory back when it has been emptied.
@usableFromInline
struct Ring<Element>: ~Copyable {
  // A power of two, so that going round is a mask.
  @usableFromInline var memory: UnsafeMutablePointer<Element>
  @usableFromInline var mask: Int
  @usableFromInline var begin = 0
  @usableFromInline var count = 0

  @usableFromInline static var leastRoom: Int { 8 }
  /// What an empty one may keep.
  @usableFromInline static var mostSpareRoom: Int { 4096 }

  @inlinable
  init() {
    memory = .allocate(capacity: Self.leastRoom)
    mask = Self.leastRoom - 1
  }

  @inlinable
  deinit {
    for place in 0..<count { (memory + ((begin + place) & mask)).deinitialize(count: 1) }
    memory.deallocate()
  }

  @inlinable
  var first: Element? { count > 0 ? memory[begin] : nil }

  @inlinable
  @inline(__always)
  mutating func append(_ element: __owned Element) {
    if count > mask { move(to: 2 * (mask + 1)) }
    (memory + ((begin + count) & mask)).initialize(to: element)
    count += 1
  }

  /// - Precondition: There is one.
  @inlinable
  @inline(__always)
  mutating func removeFirst() -> Element {
    let element = (memory + begin).move()
    begin = (begin + 1) & mask
    count -= 1
    if count == 0, mask >= Self.mostSpareRoom { move(to: Self.leastRoom) }
    return element
  }

  @inlinable
  @inline(never)
  mutating func move(to room: Int) {
    let fresh = UnsafeMutablePointer<Element>.allocate(capacity: room)
    let untilEnd = min(count, mask + 1 - begin)
    fresh.moveInitialize(from: memory + begin, count: untilEnd)
    (fresh + untilEnd).moveInitialize(from: memory, count: count - untilEnd)
    memory.deallocate()
    memory = fresh
    mask = room - 1
    begin = 0
  }
}
