// Evergreen: items in the order in which they came, in memory that goes round.
// SPDX-License-Identifier: MIT

/// A first-in, first-out buffer that grows as needed.
struct Ring<Element>: ~Copyable {
  // A power of two, so that going round is a mask.
  private var memory: UnsafeMutablePointer<Element>
  private var mask: Int
  private var begin = 0
  private(set) var count = 0

  init() {
    memory = .allocate(capacity: 8)
    mask = 7
  }

  deinit {
    for place in 0..<count { (memory + (begin + place) & mask).deinitialize(count: 1) }
    memory.deallocate()
  }

  var first: Element? { count > 0 ? memory[begin] : nil }

  mutating func append(_ element: Element) {
    if count > mask { grow() }
    (memory + ((begin + count) & mask)).initialize(to: element)
    count += 1
  }

  /// - Precondition: There is one.
  mutating func removeFirst() -> Element {
    let element = (memory + begin).move()
    begin = (begin + 1) & mask
    count -= 1
    return element
  }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<Element>.allocate(capacity: 2 * (mask + 1))
    let untilEnd = mask + 1 - begin
    larger.moveInitialize(from: memory + begin, count: untilEnd)
    (larger + untilEnd).moveInitialize(from: memory, count: begin)
    memory.deallocate()
    memory = larger
    mask = 2 * mask + 1
    begin = 0
  }
}
