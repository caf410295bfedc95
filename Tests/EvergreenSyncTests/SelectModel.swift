// Evergreen: what must be true of choices among queues, channels and events.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets

/// Exactly one thing is done, what is not chosen leaves nothing, and nobody waits for what can be done.
final class SelectModel: Model {
  private let queues: [Queue<Int>]
  private let event = Event()
  private let mayEnd: Bool
  private var items = [Items](repeating: Items(), count: 3)

  init(_ random: inout SeededRandom) {
    queues = [
      Queue(capacity: random.next(below: 2) + 1), Channel(),
      random.oneIn(2) ? Channel() : LifoQueue(capacity: 1),
    ]
    mayEnd = random.oneIn(3)
  }

  func step(_ worker: Worker) throws {
    let place = worker.random.next(below: 3)
    let queue = queues[place]
    do {
      switch worker.random.next(below: 16) {
      case 0, 1:
        let item = items[place].make(by: worker)
        var isPut = false
        defer { items[place].settle(item, isPut: isPut) }
        let timeout = worker.timeout()
        isPut = try worker.wait(
          "p\(place)", timeout, isTimeout: { !$0 }, { try queue.put(item, timeout: timeout) })
      case 2, 3: try take(worker.wait("g\(place)") { try queue.get() }, place, worker)
      case 4: if let item = queue.tryGet() { try take(item, place, worker) }
      case 5:
        event.set()
        if worker.random.oneIn(2) { event.clear() }
      case 6: event.clear()
      case 7 where mayEnd && worker.random.oneIn(6): queue.shutDown()
      default: try choose(worker)
      }
    } catch is QueueShutDown {
      try hold(queues.contains(where: \.isShutDown), "shut down by nobody")
    }
  }

  private enum Choice: Equatable { case got(Int, Int), put(Int, Int), event, late, otherwise }

  private func choose(_ worker: Worker) throws {
    var cases: [SelectCase<Choice>] = []
    var label: [String] = []
    var offers: [(place: Int, item: Int)] = []
    for place in queues.indices where worker.random.oneIn(2) {
      cases.append(.get(from: queues[place]) { .got(place, $0) })
      label.append("g\(place)")
    }
    for place in queues.indices where worker.random.oneIn(2) {
      let item = items[place].make(by: worker)
      offers.append((place, item))
      cases.append(.put(item, into: queues[place]) { .put(place, item) })
      label.append("p\(place)")
    }
    if worker.random.oneIn(3) {
      cases.append(.ready(event) { _ in .event })
      label.append("e")
    }
    var timeout: Duration?
    if worker.random.oneIn(2) {
      timeout = .milliseconds(worker.random.next(below: 4))
      cases.append(.after(timeout!) { .late })
    }
    if cases.isEmpty || worker.random.oneIn(8) { cases.append(.otherwise { .otherwise }) }
    var chosen: Choice?
    defer {
      for (place, item) in offers { items[place].settle(item, isPut: chosen == .put(place, item)) }
    }
    chosen = try worker.wait(
      label.joined(separator: " "), timeout, isTimeout: { $0 == .late },
      { try select(cases.shuffled(using: &worker.random)) })
    if case .got(let place, let item) = chosen { try take(item, place, worker) }
  }

  private func take(_ item: Int, _ place: Int, _ worker: Worker) throws {
    try items[place].take(item, by: worker, inOrder: !(queues[place] is LifoQueue<Int>))
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    let waiting = waiting.map { $0.split(separator: " ").map(String.init) }
    try hold(!event.isSet || !waiting.contains { $0.contains("e") }, "the event is set")
    for (place, queue) in queues.enumerated() {
      let getters = waiting.indices.filter { waiting[$0].contains("g\(place)") }
      let putters = waiting.indices.filter { waiting[$0].contains("p\(place)") }
      // One who chooses between both does not meet himself.
      let canMeet = getters.contains { getter in putters.contains { $0 != getter } }
      try hold(!canMeet, "\(getters) and \(putters) wait for each other at \(place)")
      try hold(getters.isEmpty || queue.isEmpty, "\(getters) wait for what is there at \(place)")
      try hold(putters.isEmpty || queue.isFull, "\(putters) wait for room at \(place)")
      try hold(getters.isEmpty && putters.isEmpty || !queue.isShutDown, "\(place) has ended")
      try hold(
        queue.balance == putters.count - getters.count, "balance \(queue.balance) at \(place)")
    }
    try hold(
      event.waiters.count == waiting.count { $0.contains("e") }, "places without waiters")
  }

  func checkAtEnd() throws {
    try hold(event.waiters.isEmpty, "somebody is left behind at the event")
    for (place, queue) in queues.enumerated() {
      try hold(queue.balance == 0, "somebody is left behind at \(place)")
      var left: [Int] = []
      while let item = queue.tryGet() { left.append(item) }
      try items[place].check(left: left, mayLose: false)
      if !queue.isShutDown {
        try hold(try queue.tryPut(1) == !(queue is Channel<Int>), "somebody was there to take it")
      }
    }
  }
}
