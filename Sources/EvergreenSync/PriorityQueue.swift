// Evergreen: a queue that gives the least item first.
// SPDX-License-Identifier: MIT

/// A ``Queue`` that gives the least item first; of equal ones, the one that was put first.
///
/// > gevent: `gevent.queue.PriorityQueue`.
public final class PriorityQueue<Element: Comparable>: Queue<Element> {
  private typealias Entry = (item: Element, number: UInt64)

  /// Each is before those at twice its place plus 1 and 2.
  @exclusivity(unchecked) private var heap: [Entry] = []
  @exclusivity(unchecked) private var numbers: UInt64 = 0

  /// - Parameter capacity: As ``Queue/init(capacity:)`` says.
  public init(capacity: Int? = nil) {
    super.init(limit: Self.limit(of: capacity), isPlain: false)
  }

  @usableFromInline override var kind: StaticString { "a PriorityQueue" }
  @usableFromInline override var next: Element? { heap.first?.item }

  private static func isBefore(_ one: Entry, _ other: Entry) -> Bool {
    if one.item < other.item { return true }
    if other.item < one.item { return false }
    return one.number < other.number
  }

  @usableFromInline
  override func insert(_ item: Element) {
    heap.append((item, numbers))
    numbers += 1
    var place = heap.count - 1
    while place > 0 {
      let parent = (place - 1) / 2
      guard Self.isBefore(heap[place], heap[parent]) else { return }
      heap.swapAt(place, parent)
      place = parent
    }
  }

  @usableFromInline
  override func removeNext() -> Element {
    heap.swapAt(0, heap.count - 1)
    let least = heap.removeLast().item
    var place = 0
    while true {
      var child = 2 * place + 1
      if child >= heap.count { return least }
      if child + 1 < heap.count, Self.isBefore(heap[child + 1], heap[child]) { child += 1 }
      guard Self.isBefore(heap[child], heap[place]) else { return least }
      heap.swapAt(place, child)
      place = child
    }
  }
}
