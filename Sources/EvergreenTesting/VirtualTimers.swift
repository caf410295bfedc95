// Evergreen: timers by their deadlines.
// SPDX-License-Identifier: MIT
//
// A binary heap. A timer must be found when it is stopped: its place lies in the timer itself, where
// libev's loop would have its links.

import CLibev

/// Timers in the order of their deadlines; those with the same deadline in the order of `rank`.
struct VirtualTimers {
  typealias Timer = UnsafeMutablePointer<evg_timer>

  private struct Entry {
    let deadline: UInt64
    let rank: UInt64
    let timer: Timer

    static func < (one: Entry, other: Entry) -> Bool {
      (one.deadline, one.rank) < (other.deadline, other.rank)
    }
  }
  private var heap: [Entry] = []

  var count: Int { heap.count }
  var isEmpty: Bool { heap.isEmpty }
  var first: Timer? { heap.first?.timer }
  var all: [Timer] { heap.map(\.timer) }

  mutating func insert(_ timer: Timer, rank: UInt64) {
    timer.pointee.armed = true
    heap.append(Entry(deadline: timer.pointee.deadline, rank: rank, timer: timer))
    note(heap.count - 1)
    rise(heap.count - 1)
  }

  /// No-op if it is not armed.
  mutating func remove(_ timer: Timer) {
    guard timer.pointee.armed else { return }
    timer.pointee.armed = false
    let place = place(of: timer)
    let last = heap.removeLast()
    if place == heap.count { return }
    heap[place] = last
    note(place)
    rise(place)
    sink(self.place(of: last.timer))
  }

  mutating func removeAll() {
    for entry in heap { entry.timer.pointee.armed = false }
    heap = []
  }

  private func place(of timer: Timer) -> Int {
    Int(bitPattern: UnsafeRawPointer(timer.pointee.node.next)) - 1
  }

  private func note(_ place: Int) {
    // Never zero, and never followed.
    heap[place].timer.pointee.node.next = UnsafeMutablePointer(bitPattern: place + 1)!
  }

  private mutating func exchange(_ one: Int, _ other: Int) {
    heap.swapAt(one, other)
    note(one)
    note(other)
  }

  private mutating func rise(_ start: Int) {
    var place = start
    while place > 0, heap[place] < heap[(place - 1) / 2] {
      exchange(place, (place - 1) / 2)
      place = (place - 1) / 2
    }
  }

  private mutating func sink(_ start: Int) {
    var place = start
    while true {
      var child = 2 * place + 1
      if child >= heap.count { return }
      if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
      if !(heap[child] < heap[place]) { return }
      exchange(place, child)
      place = child
    }
  }
}
