// Evergreen: what is to be done, first come, first served.
// SPDX-License-Identifier: MIT

/// Work in the order in which it came. It keeps nothing that has been taken.
package struct Backlog<Work> {
  private var work: [Work?] = []
  private var head = 0

  package init() {}

  package var count: Int { work.count - head }
  package var isEmpty: Bool { head == work.count }

  package mutating func append(_ one: Work) { work.append(one) }

  package mutating func popFirst() -> Work? {
    if isEmpty { return nil }
    let first = work[head].take()
    head += 1
    if isEmpty {
      work.removeAll(keepingCapacity: head <= 1024)
      head = 0
    } else if head > 1024, head > work.count / 2 {
      work.removeFirst(head)
      head = 0
    }
    return first
  }

  package mutating func takeAll() -> [Work] {
    defer { self = Backlog() }
    return work[head...].compactMap { $0 }
  }
}
