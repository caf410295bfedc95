// Evergreen: what must be true of waiting for several things.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting

/// Each comes once, as many as are wanted, and nobody waits while as many are ready.
final class WaitModel: Model {
  private let results = (0..<3).map { _ in AsyncResult<Int>() }
  private let events = (0..<2).map { _ in Event() }
  private let semaphore = Semaphore(value: 0)
  private var all: [any Waitable] { results + events + [semaphore] }

  func step(_ worker: Worker) throws {
    switch worker.random.next(below: 12) {
    case 0: results[worker.random.next(below: 3)].trySet(.success(1))
    case 1:
      let event = events[worker.random.next(below: 2)]
      event.set()
      if worker.random.oneIn(2) { event.clear() }
    case 2: events[worker.random.next(below: 2)].clear()
    case 3: semaphore.release()
    case 4: _ = semaphore.tryAcquire()
    case 5: _ = try worker.wait("permit to wait for") { try semaphore.acquire() }
    case 6, 7: try takeSome(worker)
    default: try waitForSome(worker)
    }
  }

  private func choose(_ worker: Worker) -> [Int] {
    all.indices.filter { _ in worker.random.oneIn(2) }.shuffled(using: &worker.random)
  }

  private func label(_ wanted: Int, _ places: [Int]) -> String {
    "wait for \(wanted) of " + places.map(String.init).joined(separator: ",")
  }

  private func waitForSome(_ worker: Worker) throws {
    let places = choose(worker)
    let objects = places.map { all[$0] }
    let wanted = places.isEmpty ? 0 : worker.random.next(below: places.count) + 1
    let timeout = worker.timeout()
    let ready = try worker.wait(
      label(wanted, places), timeout, isTimeout: { $0.count < wanted },
      { try wait(for: objects, timeout: timeout, count: wanted) })
    try hold(ready.count <= wanted, "\(ready.count) instead of \(wanted)")
    if timeout == nil { try hold(ready.count == wanted, "\(ready.count) instead of \(wanted)") }
    try check(ready, objects)
  }

  /// Stops when it has enough.
  private func takeSome(_ worker: Worker) throws {
    let places = choose(worker)
    let objects = places.map { all[$0] }
    let wanted = worker.random.next(below: 3)
    let coming = iwait(for: objects)
    var ready: [any Waitable] = []
    while ready.count < min(wanted, objects.count) {
      let next = try worker.wait(
        label(ready.count + 1, places), nil, { try coming.next(timeout: nil) })
      guard let next else { throw Broken(description: "the end came too early") }
      ready.append(next)
      try worker.pause()
    }
    if wanted >= objects.count { try hold(coming.next() == nil, "there is more than there is") }
    try check(ready, objects)
  }

  private func check(_ ready: [any Waitable], _ objects: [any Waitable]) throws {
    let names = Set(ready.map { ObjectIdentifier($0) })
    try hold(names.count == ready.count, "one came twice")
    try hold(names.isSubset(of: objects.map { ObjectIdentifier($0) }), "one came uncalled")
    for object in ready where object is AsyncResult<Int> {
      try hold(object.isReady, "a result came before it was there")
    }
  }

  func checkAtRest(waiting: [String]) throws {
    for text in waiting where text.hasPrefix("wait for ") {
      let words = text.split(separator: " ")
      let places = words.count > 4 ? words[4].split(separator: ",").compactMap { Int($0) } : []
      let count = places.count { all[$0].isReady }
      try hold(count < Int(words[2])!, "\(count) are ready, and it has to \(text)")
    }
    try hold(
      semaphore.value == 0 || !waiting.contains("permit to wait for"),
      "waits while there are permits")
  }

  func checkAtEnd() throws {
    try hold(results.allSatisfy(\.waiters.isEmpty), "somebody is left behind at a result")
    try hold(events.allSatisfy(\.waiters.isEmpty), "somebody is left behind at an event")
    try hold(semaphore.waiters.isEmpty, "somebody is left behind at a semaphore")
    let before = semaphore.value
    semaphore.release()
    try hold(semaphore.value == before + 1, "a permit has gone to nobody")
  }
}
