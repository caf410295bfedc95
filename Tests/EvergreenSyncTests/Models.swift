// Evergreen: what must be true of the coordination primitives, whatever a program does.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets

// MARK: Permits and locks

/// Permits are conserved, nobody overtakes, nobody waits while there is one.
final class SemaphoreModel: Model {
  private let semaphore: Semaphore
  private var permits: Int
  private var held = 0

  init(_ random: inout SeededRandom) {
    permits = random.next(below: 3)
    semaphore = random.oneIn(4) ? BoundedSemaphore(value: permits) : Semaphore(value: permits)
  }

  func step(_ worker: Worker) throws {
    switch worker.random.next(below: 8) {
    case 0 where !(semaphore is BoundedSemaphore) && permits < 5:
      let count = worker.random.next(below: 3)
      permits += count
      semaphore.release(count)
    case 1:
      let mustWait = !semaphore.waiters.isEmpty
      guard semaphore.tryAcquire() else { return }
      try hold(!mustWait, "tryAcquire overtook one who waits")
      try use(worker)
    case 2: try worker.wait("permit") { try semaphore.withPermit { try inside(worker) } }
    default:
      let timeout = worker.timeout()
      if try worker.wait(
        "permit", timeout, isTimeout: { !$0 }, { try semaphore.acquire(timeout: timeout) })
      {
        try use(worker)
      }
    }
  }

  private func use(_ worker: Worker) throws {
    defer { semaphore.release() }
    try inside(worker)
  }

  private func inside(_ worker: Worker) throws {
    held += 1
    defer { held -= 1 }
    if held + semaphore.value > permits {
      worker.program.fail("\(held) of \(permits) permits held")
    }
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(held == 0, "a permit is held by one who waits")
    try hold(permits == 0 || !waiting.contains("permit"), "somebody waits while there are permits")
    try hold(semaphore.waiters.count == waiting.count { $0 == "permit" }, "places without waiters")
  }

  func checkAtEnd() throws {
    try hold(semaphore.value == permits, "\(semaphore.value) of \(permits) permits are left")
    try hold(semaphore.waiters.isEmpty, "somebody is left behind")
  }
}

/// One at a time.
final class LockModel: Model {
  private let lock = Lock()
  private let recursive = RLock()
  private var inside = [0, 0]

  func step(_ worker: Worker) throws {
    let timeout = worker.timeout()
    switch worker.random.next(below: 5) {
    case 0:
      if lock.tryAcquire() {
        defer { lock.release() }
        try enter(0, worker)
      }
    case 1, 2:
      if try worker.wait(
        "lock", timeout, isTimeout: { !$0 }, { try lock.acquire(timeout: timeout) })
      {
        defer { lock.release() }
        try enter(0, worker)
      }
    default:
      if try worker.wait(
        "rlock", timeout, isTimeout: { !$0 }, { try recursive.acquire(timeout: timeout) })
      {
        defer { recursive.release() }
        try enter(1, worker)
        try recursive.withLock {
          let depth = recursive.depth
          try enter(1, worker)
          try hold(depth == 2 && recursive.depth == 2, "depth \(depth)")
        }
      }
    }
  }

  private func enter(_ which: Int, _ worker: Worker) throws {
    inside[which] += 1
    defer { inside[which] -= 1 }
    if inside[which] != 1 { worker.program.fail("two are inside a lock") }
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(!waiting.contains("lock") && !waiting.contains("rlock"), "waits for a free lock")
  }

  func checkAtEnd() throws {
    try hold(!lock.isLocked && lock.waiters.isEmpty, "a lock is left")
    try hold(!recursive.isLocked && recursive.depth == 0, "a recursive lock is left")
  }
}

/// Who waits for what is there has been told of it.
final class ConditionModel: Model {
  private let condition = Condition()
  private var tokens = 0
  private var inside = 0

  func step(_ worker: Worker) throws {
    if worker.random.oneIn(2) {
      try worker.wait("lock of a condition") {
        try condition.withLock {
          try enter(worker)
          let count = worker.random.next(below: 3)
          tokens += count
          condition.notify(count > 1 && worker.random.oneIn(2) ? .max : count)
        }
      }
      return
    }
    try worker.wait("lock of a condition") { _ = try condition.lock.acquire() }
    defer { condition.lock.release() }
    do {
      let timeout = worker.timeout()
      if try worker.wait("condition", nil, { try condition.wait(timeout: timeout) { tokens > 0 } })
      {
        tokens -= 1
      }
      try hold(tokens >= 0, "woken for nothing")
    } catch {
      try hold(condition.lock.owner === Greenlet.current, "left a wait without the lock")
      throw error
    }
    try enter(worker)
  }

  private func enter(_ worker: Worker) throws {
    inside += 1
    defer { inside -= 1 }
    if inside != 1 { worker.program.fail("two are inside the lock of a condition") }
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(tokens == 0 || !waiting.contains("condition"), "not told of what is there")
    try hold(!waiting.contains("lock of a condition"), "waits for a free lock")
  }

  func checkAtEnd() throws {
    try hold(condition.waiters.isEmpty && !condition.lock.isLocked, "a condition is left")
    try hold(condition.lock.waiters.isEmpty, "somebody is left behind")
  }
}

/// Readers together, writers alone, and all come in.
final class ReadWriteLockModel: Model {
  private let lock = ReadWriteLock()
  private var readers = 0
  private var writers = 0

  func step(_ worker: Worker) throws {
    let timeout = worker.timeout()
    if worker.random.oneIn(3) {
      try worker.wait("to write") {
        try lock.withWriteLock(timeout: timeout) { try write(worker) }
      }
    } else {
      try worker.wait("to read") {
        try lock.withReadLock(timeout: timeout) { try read(worker) }
      }
    }
  }

  private func read(_ worker: Worker) throws {
    readers += 1
    defer { readers -= 1 }
    try stay(worker)
  }

  private func write(_ worker: Worker) throws {
    writers += 1
    defer { writers -= 1 }
    try stay(worker)
  }

  private func stay(_ worker: Worker) throws {
    if writers > 1 || writers == 1 && readers > 0 {
      worker.program.fail("\(readers) readers and \(writers) writers are inside")
    }
    if lock.isWriting != (writers == 1) { worker.program.fail("isWriting is wrong") }
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(!waiting.contains("to read") && !waiting.contains("to write"), "waits for nobody")
  }

  func checkAtEnd() throws {
    try hold(lock.readers == 0 && !lock.isWriting, "somebody is still counted")
    try lock.withWriteLock(timeout: .zero) {}
    try lock.withReadLock(timeout: .zero) {}
  }
}

// MARK: Flags and results

/// Who waits while it is set, however shortly, knows it.
final class EventModel: Model {
  private let event = Event()
  private var sets = 0

  func step(_ worker: Worker) throws {
    switch worker.random.next(below: 6) {
    case 0:
      event.set()
      sets += 1
      if worker.random.oneIn(2) { event.clear() }
    case 1: event.clear()
    default:
      let before = sets
      let timeout = worker.timeout()
      let isSet = try worker.wait(
        "event", timeout, isTimeout: { !$0 }, { try event.wait(timeout: timeout) })
      try hold(isSet || sets == before, "a set was missed")
    }
  }

  func checkAtRest(waiting: [String]) throws {
    let count = waiting.count { $0 == "event" }
    try hold(count == 0 || !event.isSet, "waits for an event that is set")
    try hold(event.waiters.count == count, "places without waiters")
  }

  func checkAtEnd() throws { try hold(event.waiters.isEmpty, "somebody is left behind") }
}

/// Set once, known to all.
final class ResultModel: Model {
  private let results = (0..<3).map { _ in AsyncResult<Int>() }
  private var values: [Int?] = [nil, nil, nil]

  private struct Refused: Error {}

  func step(_ worker: Worker) throws {
    let place = worker.random.next(below: 3)
    let result = results[place]
    if worker.random.oneIn(3) {
      let value = worker.random.next(below: 1000)
      let fails = value < 300
      let isFirst = result.trySet(fails ? .failure(Refused()) : .success(value))
      try hold(isFirst == (values[place] == nil), "set twice")
      if isFirst { values[place] = fails ? -1 : value }
      return
    }
    let timeout = worker.timeout()
    do {
      let value = try worker.wait("result \(place)", timeout) { try result.get(timeout: timeout) }
      try hold(value == values[place], "got \(value)")
    } catch is Refused {
      try hold(values[place] == -1, "got an error")
    }
  }

  func checkAtRest(waiting: [String]) throws {
    for (place, result) in results.enumerated() {
      let count = waiting.count { $0 == "result \(place)" }
      try hold(count == 0 || !result.isReady, "waits for a result that is there")
      try hold(result.waiters.count == count, "places without waiters")
    }
  }

  func checkAtEnd() throws {
    try hold(results.allSatisfy(\.waiters.isEmpty), "somebody is left behind")
  }
}

/// As many pass together as belong together.
final class BarrierModel: Model {
  private let barrier: Barrier
  private var passed: [Int]

  init(_ random: inout SeededRandom) {
    barrier = Barrier(parties: random.next(below: 3) + 1)
    passed = Array(repeating: 0, count: barrier.parties)
  }

  func step(_ worker: Worker) throws {
    switch worker.random.next(below: 10) {
    case 0: barrier.reset()
    case 1: barrier.abort()
    case 2: if barrier.isBroken { barrier.reset() }
    default:
      let timeout = worker.timeout()
      do {
        let missing = try worker.wait("barrier", timeout) { try barrier.wait(timeout: timeout) }
        passed[missing] += 1
      } catch is BrokenBarrier {
      }
    }
  }

  func checkAtRest(waiting: [String]) throws {
    let count = waiting.count { $0 == "barrier" }
    try hold(
      barrier.count == count && count < barrier.parties, "\(count) wait, \(barrier.count) count")
    try hold(barrier.waiters.count == count, "places without waiters")
    try hold(count == 0 || !barrier.isBroken, "waits at a broken barrier")
    try hold(Set(passed).count == 1, "passed: \(passed)")
  }

  func checkAtEnd() throws {
    try hold(barrier.waiters.isEmpty && barrier.count == 0, "somebody is left behind")
    try hold(Set(passed).count == 1, "passed: \(passed)")
  }
}

/// Made once, whoever fails or is killed while making it.
final class LazyModel: Model {
  private var made = 0
  private var making = 0
  private weak var maker: Worker?
  private var lazy: GreenletLazy<Int>!

  private struct Refused: Error {}

  init() {
    lazy = GreenletLazy { [unowned self] in
      let worker = maker!
      making += 1
      defer { making -= 1 }
      if making != 1 || made != 0 { worker.program.fail("made twice") }
      try worker.pause()
      if worker.random.oneIn(3) { throw Refused() }
      try worker.pause()
      made += 1
      return 7
    }
  }

  func step(_ worker: Worker) throws {
    do {
      maker = worker
      let value = try worker.wait("lazy value") { try lazy.get() }
      try hold(value == 7 && made == 1, "made \(made) times")
    } catch is Refused {
    }
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(!waiting.contains("lazy value"), "nobody makes it")
  }

  func checkAtEnd() throws {
    try hold(made <= 1 && (lazy.value != nil) == (made == 1), "made \(made) times")
  }
}

/// Never more than its size, and empty in the end.
final class PoolModel: Model {
  private let pool: Pool
  private var running = 0

  init(_ random: inout SeededRandom) { pool = Pool(size: random.next(below: 3) + 1) }

  private struct Refused: Error {}

  func step(_ worker: Worker) throws {
    func body() throws {
      running += 1
      defer { running -= 1 }
      if running > pool.size! { worker.program.fail("\(running) run in a pool of \(pool.size!)") }
      try worker.pause()
    }
    switch worker.random.next(below: 8) {
    case 0: _ = pool.trySpawn(body)
    case 1: _ = try worker.wait("empty pool") { try pool.kill() }
    case 2:
      let timeout = worker.timeout()
      _ = try worker.wait("empty pool", timeout, { try pool.join(timeout: timeout) })
    case 3:
      let timeout = worker.timeout()
      _ = try worker.wait(
        "place in a pool", timeout, isTimeout: { !$0 }, { try pool.waitAvailable(timeout: timeout) }
      )
    default:
      let member = try worker.wait("place in a pool") { try pool.spawn(body) }
      if worker.random.oneIn(4) { try member.kill(waiting: false) }
    }
    try hold(pool.count <= pool.size!, "\(pool.count) in a pool of \(pool.size!)")
  }

  func checkAtRest(waiting: [String]) throws {
    try hold(!waiting.contains("empty pool"), "waits for an empty pool to be empty")
    try hold(!waiting.contains("place in a pool"), "waits for a pool that has places")
  }

  func checkAtEnd() throws {
    try hold(running == 0 && pool.isEmpty, "\(pool.count) are left in a pool")
    try hold(pool.freeCount == pool.size, "\(pool.freeCount) of \(pool.size!) places are free")
  }
}

// MARK: Items

/// What became of the items that were put.
struct Items {
  enum Fate { case underWay, put, refused }
  private var fates: [Fate] = []
  private(set) var got: Set<Int> = []
  private var producers: [Int] = []
  /// The last item of each producer that a consumer has got.
  private var last: [Int: Int] = [:]

  mutating func make(by worker: Worker) -> Int {
    fates.append(.underWay)
    producers.append(worker.number)
    return fates.count - 1
  }

  mutating func settle(_ item: Int, isPut: Bool) { fates[item] = isPut ? .put : .refused }

  mutating func take(_ item: Int, by worker: Worker, inOrder: Bool) throws {
    try hold(got.insert(item).inserted, "item \(item) was got twice")
    try hold(fates[item] != .refused, "item \(item) was got, but not put")
    guard inOrder else { return }
    let pair = producers[item] * 1000 + worker.number
    try hold(last[pair] ?? -1 < item, "item \(item) was overtaken")
    last[pair] = item
  }

  func checkOrder(of left: [Int]) throws {
    for (place, item) in left.enumerated() {
      let isOvertaken = left[place...].contains { $0 < item && producers[$0] == producers[item] }
      try hold(!isOvertaken, "item \(item) is inside before an earlier one")
    }
  }

  /// All have ended; `left` is inside, and items may have been thrown away.
  func check(left: [Int], mayLose: Bool) throws {
    try hold(Set(left).count == left.count, "an item is inside twice")
    for item in left { try hold(!got.contains(item), "item \(item) was got and is inside") }
    let found = got.union(left)
    for (item, fate) in fates.enumerated() {
      switch fate {
      case .underWay: throw Broken(description: "nobody knows whether item \(item) was put")
      case .put: try hold(mayLose || found.contains(item), "item \(item) was put and is lost")
      case .refused: try hold(!found.contains(item), "item \(item) was not put and is there")
      }
    }
  }
}

/// Items are neither lost nor doubled, and each producer's come in order.
final class QueueModel: Model {
  enum Kind: CaseIterable { case queue, priority, lifo, joinable }

  private let kind: Kind
  private let queue: Queue<Int>
  private let maySweep: Bool
  private var items = Items()
  private var isSwept = false
  private var undone = 0

  init(_ random: inout SeededRandom) {
    kind = Kind.allCases[random.next(below: 4)]
    let capacity = random.oneIn(3) ? nil : random.next(below: 3) + 1
    queue =
      switch kind {
      case .queue: Queue(capacity: capacity)
      case .priority: PriorityQueue(capacity: capacity)
      case .lifo: LifoQueue(capacity: capacity)
      case .joinable: JoinableQueue(capacity: capacity)
      }
    maySweep = random.oneIn(3)
  }

  private var isInOrder: Bool { kind == .queue || kind == .joinable }

  func step(_ worker: Worker) throws {
    do {
      switch worker.random.next(below: 20) {
      case 0...6: try put(worker)
      case 7: try tryPut(worker)
      case 8: if let item = queue.tryGet() { try take(item, worker) }
      case 9, 10:
        if let item = try worker.wait("item", nil, { queue.makeIterator().next() }) {
          try take(item, worker)
        }
      case 11 where maySweep && worker.random.oneIn(4):
        let immediately = worker.random.oneIn(2)
        if immediately { isSwept = true }
        queue.shutDown(immediately: immediately)
      case 12 where kind == .joinable:
        let timeout = worker.timeout()
        _ = try worker.wait(
          "all done", timeout, isTimeout: { !$0 },
          { try (queue as! JoinableQueue<Int>).join(timeout: timeout) })
      default:
        if worker.random.oneIn(2) {
          try take(worker.wait("item") { try queue.get() }, worker)
        } else {
          let timeout = Duration.milliseconds(worker.random.next(below: 4))
          let item = try worker.wait(
            "item", timeout, isTimeout: { $0 == nil }, { try queue.get(timeout: timeout) })
          if let item { try take(item, worker) }
        }
      }
    } catch is QueueShutDown {
      try hold(queue.isShutDown, "shut down by nobody")
    }
    try hold(queue.count <= queue.capacity ?? .max, "\(queue.count) items")
  }

  private func put(_ worker: Worker) throws {
    let item = items.make(by: worker)
    let timeout = worker.timeout()
    var isPut = false
    defer { items.settle(item, isPut: isPut) }
    isPut = try worker.wait(
      "room", timeout, isTimeout: { !$0 }, { try queue.put(item, timeout: timeout) })
  }

  private func tryPut(_ worker: Worker) throws {
    let item = items.make(by: worker)
    var isPut = false
    defer { items.settle(item, isPut: isPut) }
    isPut = try queue.tryPut(item)
  }

  private func take(_ item: Int, _ worker: Worker) throws {
    undone += 1
    defer {
      undone -= 1
      (queue as? JoinableQueue<Int>)?.taskDone()
    }
    try items.take(item, by: worker, inOrder: isInOrder)
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    let (getters, putters) = (waiting.contains("item"), waiting.contains("room"))
    try hold(!getters || queue.isEmpty && !queue.isShutDown, "waits for an item that is there")
    try hold(!putters || queue.isFull && !queue.isShutDown, "waits for room that is there")
    try hold(!getters || !putters, "an item waits for one who waits for it")
    if let queue = queue as? JoinableQueue<Int> {
      try hold(!waiting.contains("all done") || queue.unfinished > 0, "waits for what is done")
    }
  }

  func checkAtEnd() throws {
    let (isEmpty, first, count) = (queue.isEmpty, queue.first, queue.count)
    var left: [Int] = []
    while let item = queue.tryGet() { left.append(item) }
    try hold(left.isEmpty == isEmpty && left.first == first && left.count == count, "miscounted")
    try items.check(left: left, mayLose: isSwept)
    if kind == .priority { try hold(left == left.sorted(), "out of order: \(left)") }
    if isInOrder { try items.checkOrder(of: left) }
    if let queue = queue as? JoinableQueue<Int> {
      try hold(queue.unfinished == left.count + undone, "\(queue.unfinished) unfinished")
    }
    if queue.isShutDown { return }
    // Nobody is there for whom an item or room would be kept.
    let capacity = queue.capacity ?? 3
    for number in 1...capacity {
      try hold(try queue.tryPut(number) && queue.count == number, "room is kept for nobody")
    }
    try hold(queue.isFull == (queue.capacity != nil), "there is room for more than there is room")
    for _ in 1...capacity { try hold(queue.tryGet() != nil, "an item is kept for nobody") }
    try hold(queue.isEmpty && queue.tryGet() == nil, "an item came from nowhere")
  }
}

/// Each item goes from one hand into one other.
final class ChannelModel: Model {
  private let channel = Channel<Int>()
  private let mayEnd: Bool
  private var items = Items()

  init(_ random: inout SeededRandom) { mayEnd = random.oneIn(3) }

  func step(_ worker: Worker) throws {
    do {
      switch worker.random.next(below: 20) {
      case 0...7: try put(worker)
      case 8:
        let item = items.make(by: worker)
        var isPut = false
        defer { items.settle(item, isPut: isPut) }
        isPut = try channel.tryPut(item)
      case 9: if let item = channel.tryGet() { try take(item, worker) }
      case 10 where mayEnd && worker.random.oneIn(4): channel.shutDown()
      default:
        if worker.random.oneIn(2) {
          try take(worker.wait("giver") { try channel.get() }, worker)
        } else {
          let timeout = Duration.milliseconds(worker.random.next(below: 4))
          let item = try worker.wait(
            "giver", timeout, isTimeout: { $0 == nil }, { try channel.get(timeout: timeout) })
          if let item { try take(item, worker) }
        }
      }
    } catch is QueueShutDown {
      try hold(channel.isShutDown, "shut down by nobody")
    }
  }

  private func put(_ worker: Worker) throws {
    let item = items.make(by: worker)
    let timeout = worker.timeout()
    var isPut = false
    defer { items.settle(item, isPut: isPut) }
    isPut = try worker.wait(
      "taker", timeout, isTimeout: { !$0 }, { try channel.put(item, timeout: timeout) })
  }

  private func take(_ item: Int, _ worker: Worker) throws {
    try items.take(item, by: worker, inOrder: true)
    try worker.pause()
  }

  func checkAtRest(waiting: [String]) throws {
    let (getters, putters) = (waiting.count { $0 == "giver" }, waiting.count { $0 == "taker" })
    try hold(getters == 0 || putters == 0, "they wait for each other")
    try hold(channel.balance == putters - getters, "balance \(channel.balance)")
    try hold(getters + putters == 0 || !channel.isShutDown, "waits at a channel that has ended")
  }

  func checkAtEnd() throws {
    try hold(channel.balance == 0, "somebody is left behind")
    try hold(channel.tryGet() == nil, "an item came from nowhere")
    try items.check(left: [], mayLose: false)
    if !channel.isShutDown { try hold(try !channel.tryPut(1), "nobody was there to take it") }
  }
}
