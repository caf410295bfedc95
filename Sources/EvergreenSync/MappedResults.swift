// Evergreen: what a group makes of the elements of a sequence, one by one.
// SPDX-License-Identifier: MIT
//
// A greenlet of its own, the feeder, takes elements from the input, waits for a place for each in the
// group's own order, and spawns a worker; it stops while so many elements are under way or done that
// the buffer is full. So the input is read lazily, where it may wait, and by one greenlet. A worker's
// link delivers what became of it. The handle holds the core, and the others do not hold the handle: it
// goes when nobody can ask it any more, and then it ends them.
//
// In a member of the pool there is no feeder, which would wait for places while the member has one:
// `next()` starts what finds a place, and if nothing is under way it does the work itself.

import CGreenlet
import EvergreenBase
import EvergreenHub
import Greenlets

/// The results of `imap` and `imapUnordered`, as they come.
///
/// ```swift
/// let pages = pool.imap(urls) { try fetch($0) }
/// while let page = try pages.next() { index(page) }
/// ```
///
/// It is no `Sequence`: in a `for` loop an error, or the kill of the caller, would be swallowed. Dropped
/// or cancelled half-way, it ends its workers where they wait, without waiting for that.
public final class MappedResults<Output> {
  private let core: MapCore<Output>

  init(_ core: MapCore<Output>) { self.core = core }

  deinit { core.cancel() }

  /// Waits for the next result.
  ///
  /// - Returns: The result; `nil` when all have been given, or after ``cancel()``.
  /// - Throws: The error of the worker whose turn it is, `GreenletExit` if it was killed; the next ones
  ///   can be asked for still. The error of the input, which is its end. What is thrown into the caller
  ///   while it waits; then no result is lost.
  ///
  /// > Switch point: Yes, unless the result is there.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func next() throws -> Output? { try core.next() }

  /// Waits for all results that are still to come.
  ///
  /// - Returns: Them, in the order in which ``next()`` gives them.
  /// - Throws: As ``next()``, at the first error.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func collect() throws -> [Output] {
    var all: [Output] = []
    while let result = try next() { all.append(result) }
    return all
  }

  /// Ends the workers and takes nothing more from the input.
  ///
  /// > Switch point: No. They end when their turn comes.
  public func cancel() { core.cancel() }
}

/// Where a mapping was asked for.
struct MapOrigin {
  let file: StaticString
  let line: UInt
}

final class MapCore<Output> {
  private final class Waiters: WaitListOwner { var waiters = WaitList() }

  private let hub = Hub.current
  private let group: AnyGroup
  private let pull: () throws -> (() throws -> Output)?
  private let isOrdered: Bool
  private let failsFast: Bool
  private let limit: Int
  private let origin: MapOrigin
  private let worksInCaller: Bool
  private let consumers = Waiters()
  private let feeders = Waiters()
  @exclusivity(unchecked) private var results: [Int: Result<Output, any Error>] = [:]
  @exclusivity(unchecked) private var started = 0
  @exclusivity(unchecked) private var arrived = 0
  @exclusivity(unchecked) private var given = 0
  @exclusivity(unchecked) private var inputHasEnded = false
  @exclusivity(unchecked) private var isCancelled = false
  @exclusivity(unchecked) private var failure: (any Error)?
  @exclusivity(unchecked) private var workers: Set<AnyGreenlet> = []
  private var feeder: AnyGreenlet?

  /// - Parameters:
  ///   - group: Where the workers run.
  ///   - isOrdered: Whether results come in the order of the input.
  ///   - failsFast: Whether the first error is given at once.
  ///   - limit: How many elements may have been taken whose results have not been given.
  ///   - origin: Where all this was asked for.
  ///   - pull: Gives the work for the next element.
  init(
    in group: AnyGroup, isOrdered: Bool, failsFast: Bool, limit: Int, origin: MapOrigin,
    _ pull: @escaping () throws -> (() throws -> Output)?
  ) {
    require(limit > 0, "results cannot be buffered by \(limit)")
    self.group = group
    self.isOrdered = isOrdered
    self.failsFast = failsFast
    self.limit = limit
    self.origin = origin
    self.pull = pull
    group.hub.checkIsCurrent()
    worksInCaller = group.callerHasPlace
    if !worksInCaller { startFeeder() }
  }

  private var outstanding: Int { started - given }

  // MARK: Results

  func next() throws -> Output? {
    hub.checkIsCurrent()
    while true {
      if let failure { throw failure }
      if let result = takeNext() { return try result.get() }
      if isCancelled || (inputHasEnded && outstanding == 0) { return nil }
      if worksInCaller {
        try startWorkers()
        if results[given] != nil || inputHasEnded && outstanding == 0 { continue }
        if outstanding == 0 {
          try workInCaller()
          continue
        }
      }
      _ = try hub.wait(WaitReason("a result of a mapping"), until: .never, in: consumers)
    }
  }

  private func takeNext() -> Result<Output, any Error>? {
    guard let result = results.removeValue(forKey: given) else { return nil }
    given += 1
    feeders.waiters.signalFirst()
    wakeConsumers()
    return result
  }

  private func deliver(_ result: Result<Output, any Error>, at position: Int) {
    if isCancelled { return }
    if failsFast, failure == nil, case .failure(let error) = result {
      failure = error
      consumers.waiters.signalAll()
    }
    results[isOrdered ? position : arrived] = result
    arrived += 1
    wakeConsumers()
  }

  private func wakeConsumers() {
    if inputHasEnded && outstanding == 0 {
      consumers.waiters.signalAll()
    } else if results[given] != nil {
      consumers.waiters.signalFirst()
    }
  }

  // MARK: Work

  private func startWorker(_ job: @escaping () throws -> Output) {
    let worker = Greenlet(file: origin.file, line: origin.line, job)
    let position = started
    started += 1
    workers.insert(worker)
    _ = worker.rawLink { [unowned worker] in
      self.workers.remove(worker)
      if self.isCancelled { return }  // its error, if it has one, is reported
      worker.isSilent = true
      self.deliver(
        worker.error.map { .failure($0) } ?? .success(worker.value.unsafelyUnwrapped), at: position)
    }
    group.enroll(worker)
    worker.start()
  }

  private func endInput(with error: (any Error)? = nil) {
    inputHasEnded = true
    if let error {
      started += 1
      deliver(.failure(error), at: started - 1)
    } else {
      wakeConsumers()
    }
  }

  /// - Returns: The work for the next element; `nil` if the input has ended.
  /// - Throws: What is thrown into the caller.
  private func pullNext() throws -> (() throws -> Output)? {
    let begin = evg_thread_self().pointee.switches
    do {
      let job = try pull()
      // An iterator cannot throw what is due: it ends.
      if job == nil { try hub.checkForDueError() }
      if job == nil || isCancelled { endInput() }
      return isCancelled ? nil : job
    } catch {
      if AnyGreenlet.hasBeenThrown(error, since: begin) { throw error }
      endInput(with: error)
      return nil
    }
  }

  private func startFeeder() {
    let feeder = Greenlet(file: origin.file, line: origin.line) { [self] in
      while !inputHasEnded {
        while outstanding >= limit {
          _ = try hub.wait(
            WaitReason("room for the results of a mapping"), until: .never, in: feeders)
        }
        guard let job = try pullNext() else { break }
        _ = try group.takePlace()
        if isCancelled { group.givePlace() } else { startWorker(job) }
      }
    }
    feeder.isSilent = true
    self.feeder = feeder
    group.helpers.insert(feeder)
    _ = feeder.rawLink { [unowned feeder] in
      self.feeder = nil
      self.group.helpers.remove(feeder)
      if !self.inputHasEnded { self.endInput(with: feeder.error ?? GreenletExit()) }
    }
    feeder.start()
  }

  /// In a member of the group: those that find a place.
  private func startWorkers() throws {
    while !inputHasEnded, outstanding < limit, group.tryTakePlace() {
      var isUsed = false
      defer { if !isUsed { group.givePlace() } }
      guard let job = try pullNext() else { return }
      isUsed = true
      startWorker(job)
    }
  }

  private func workInCaller() throws {
    guard let job = try pullNext() else { return }
    let begin = evg_thread_self().pointee.switches
    let position = started
    started += 1
    do {
      deliver(.success(try job()), at: position)
    } catch {
      deliver(.failure(error), at: position)
      if AnyGreenlet.hasBeenThrown(error, since: begin) { throw error }
    }
  }

  // MARK: The end

  /// The greenlets that are at work.
  private var all: [AnyGreenlet] {
    (feeder.map { [$0] } ?? []) + workers.sorted { $0.serial < $1.serial }
  }

  func cancel() {
    if isCancelled { return }
    isCancelled = true
    results = [:]
    guard hub.isCurrent else { return }  // it has gone, and its greenlets with it
    for greenlet in all { greenlet.requestEnd(with: GreenletExit()) }
    consumers.waiters.signalAll()
  }

  /// Runs `body`; if that throws, ends the workers and waits for their end.
  func whole<R>(_ body: (MapCore) throws -> R) throws -> R {
    do {
      return try body(self)
    } catch {
      let left = all
      cancel()
      try shielded { for greenlet in left { try greenlet.join(until: .never) } }
      throw error
    }
  }
}

/// An iterator that may wait: it is in nobody's hands, and no access to it lasts, while it does.
final class Input<Base: IteratorProtocol> {
  private var iterator: Base?

  init(_ iterator: Base) { self.iterator = iterator }

  func next() -> Base.Element? {
    guard var taken = iterator else { return nil }
    iterator = nil
    let element = taken.next()
    iterator = taken
    return element
  }
}
