// Evergreen: threads for work that cannot be made to wait cooperatively.
// SPDX-License-Identifier: MIT

import CGreenlet
import CLocks
public import EventLoop
import EvergreenBase
public import EvergreenHub
import Synchronization

/// Threads that do blocking work, while the greenlet that wants it done waits.
///
/// ```swift
/// let digest = try ThreadPool.run { sha256(ofFileAt: path) }
/// ```
///
/// Threads are made when work comes and none is idle, and end when they have been idle for a
/// while. A pool may serve several hubs. Work that is under way cannot be stopped: who is killed or
/// timed out leaves it to end by itself, and its result is dropped.
///
/// The threads have stacks of the system's default size, and receive no signals but those of their
/// own faults: the others are for the threads that have hubs.
///
/// In the child of a fork a pool has no threads at first, and nothing to do: what was under way, or
/// waited for a thread, is the parent's.
///
/// > gevent: `gevent.threadpool.ThreadPool`.
public final class ThreadPool: Sendable {
  private let core: Core

  /// For whoever needs no pool of his own.
  public static let shared = ThreadPool()

  /// - Parameters:
  ///   - maxThreads: How many threads there may be, 1 or more.
  ///   - idleTimeout: How long a thread without work lives on; `.zero` or less ends it at once.
  public convenience init(maxThreads: Int = 10, idleTimeout: Duration = .seconds(5)) {
    self.init(maxThreads: maxThreads, maxAbandoned: 0, idleTimeout: idleTimeout)
  }

  /// - Parameters:
  ///   - maxThreads: How many threads there may be, 1 or more.
  ///   - maxAbandoned: How many more, in place of those whose work nobody waits for any more.
  ///   - idleTimeout: How long a thread without work lives on; `.zero` or less ends it at once.
  package init(maxThreads: Int, maxAbandoned: Int, idleTimeout: Duration = .seconds(5)) {
    require(maxThreads > 0, "a thread pool cannot have \(maxThreads) threads")
    core = Core(maxThreads: maxThreads, maxAbandoned: maxAbandoned, idleTimeout: idleTimeout)
  }

  deinit { core.shutDown() }

  /// How many threads there may be, 1 or more. When it is lowered, those that are too many end after
  /// their work.
  ///
  /// > gevent: `ThreadPool.maxsize`.
  public var maxThreads: Int {
    get { core.withState { $0.maxThreads } }
    set {
      require(newValue > 0, "a thread pool cannot have \(newValue) threads")
      core.allow(newValue)
    }
  }

  /// Threads that live now.
  public var threadCount: Int { core.withState { $0.threads } }

  /// Work that waits for a thread.
  public var backlog: Int { core.withState { $0.jobs.count } }

  /// Runs `body` on a thread of ``shared`` and waits for its result.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func run<R: Sendable>(_ body: @escaping @Sendable () throws -> R) throws -> R {
    try shared.run(body)
  }

  /// Runs `body` on a thread and waits for its result.
  ///
  /// Called by the pool's own threads, it runs `body` in place.
  ///
  /// - Throws: What `body` throws; ``ThreadPoolClosed``; ``ThreadUnavailable``; what is due in the
  ///   caller, and then `body` does not run; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `ThreadPool.apply(function)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func run<R: Sendable>(_ body: @escaping @Sendable () throws -> R) throws -> R {
    if Core.current == ObjectIdentifier(core) { return try body() }
    let hub = Hub.current
    try hub.checkForDueError()
    let ticket = Ticket<R>()
    guard start(ticket, on: hub, body) else { throw ThreadPoolClosed() }
    do {
      _ = try hub.wait(WaitReason("a thread of a pool"), until: .never, in: ticket)
    } catch {
      abandon(ticket)
      throw error
    }
    return try ticket.outcome.unsafelyUnwrapped.get()
  }

  /// Spawns a greenlet that runs `body` on a thread: the caller need not wait, and any number may.
  ///
  /// Killing the greenlet leaves work that is under way to end by itself.
  ///
  /// - Returns: The greenlet, whose value is what `body` returns.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `ThreadPool.spawn(function)`, which waits while all threads are busy.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func spawn<R: Sendable>(
    file: StaticString = #fileID, line: UInt = #line, _ body: @escaping @Sendable () throws -> R
  ) -> Greenlet<R> {
    EvergreenHub.spawn(file: file, line: line) { [self] in try run(body) }
  }

  /// As ``run(_:)``, called by foreign code, at which nothing can be thrown.
  ///
  /// - Parameters:
  ///   - body: Runs on a thread.
  ///   - drop: Called instead of the caller's use of the result, when `body` is through or will never
  ///     run; on any thread.
  /// - Returns: Whether `body` has run. If not, or not yet, an error is due in the caller, or there
  ///   is no thread.
  package func runInForeignCode(
    _ body: @escaping @Sendable () -> Void, orDrop drop: @escaping @Sendable () -> Void
  ) -> Bool {
    let hub = Hub.current
    let ticket = Ticket<Void>()
    ticket.drop = drop
    guard start(ticket, on: hub, body) else {
      drop()
      return false
    }
    let isThrough = hub.stay(
      evg_current().unsafelyUnwrapped, WaitReason("a thread of a pool"), until: .never,
      enlist: { ticket.waiters.append($0) }, delist: { ticket.waiters.remove($0) })
    if isThrough, case .success = ticket.outcome { return true }
    abandon(ticket)
    if isThrough { drop() }
    return false
  }

  /// Nobody waits for it any more. If it is under way its thread does not count.
  private func abandon<R>(_ ticket: Ticket<R>) {
    if ticket.progress.exchange(.abandoned, ordering: .acquiringAndReleasing) == .running {
      core.abandonOne()
    }
  }

  private func start<R: Sendable>(
    _ ticket: Ticket<R>, on hub: Hub, _ body: @escaping @Sendable () throws -> R
  ) -> Bool {
    let door = hub.backDoor
    hub.externalWakers += 1
    let isAccepted = core.add { [core] refusal in
      let (isWanted, _) = ticket.progress.compareExchange(
        expected: .waiting, desired: .running, ordering: .acquiringAndReleasing)
      if isWanted {
        ticket.outcome = refusal.map { .failure($0) } ?? Result { try body() }
        let (isStillWanted, _) = ticket.progress.compareExchange(
          expected: .running, desired: .over, ordering: .acquiringAndReleasing)
        if !isStillWanted { core.endAbandoned() }
      }
      let isHeard = door.post {
        Hub.current.externalWakers -= 1
        // Only here is it certain that nobody will wait any more.
        if ticket.progress.load(ordering: .acquiring) == .abandoned { ticket.drop?() }
        ticket.waiters.signalFirst()
      }
      if !isHeard { ticket.drop?() }
    }
    if !isAccepted { hub.externalWakers -= 1 }
    return isAccepted
  }

  /// Lets what is under way end, and fails what waits for a thread with ``ThreadPoolClosed``.
  public func shutDown() { core.shutDown() }
}

/// The thread pool was shut down before it came to this work.
public struct ThreadPoolClosed: Error, Hashable, Sendable, CustomStringConvertible {
  public init() {}

  public var description: String { "the thread pool has been shut down" }
}

/// The system has refused a thread pool its first thread, and nobody else will do the work.
public struct ThreadUnavailable: Error, Hashable, Sendable, CustomStringConvertible {
  /// Why: most likely `EAGAIN`, a limit on threads or memory.
  public let errno: Errno

  package init(errno: Errno) { self.errno = errno }

  public var description: String { "cannot start a thread: \(errno)" }
}

/// What the greenlet and the thread share: the thread writes the outcome before it posts, the
/// greenlet reads it after the post; the wait list is the hub's alone.
private final class Ticket<R: Sendable>: WaitListOwner, @unchecked Sendable {
  var waiters = WaitList()
  var outcome: Result<R, any Error>?
  var drop: (@Sendable () -> Void)?
  let progress = Atomic(Progress.waiting)
}

private enum Progress: UInt8, AtomicRepresentable {
  case waiting, running, over, abandoned
}

/// What the pool's threads hold, so that the pool itself can go.
private final class Core: Sendable {
  typealias Job = @Sendable (_ refusal: (any Error)?) -> Void

  struct State {
    var maxThreads: Int
    var jobs = Backlog<Job>()
    var threads = 0
    /// Those of them whose work nobody waits for. For a moment it may be one less, when that ends.
    var abandoned = 0
    /// Threads that wait for work, and how many of them have been woken and not yet looked.
    var idle = 0
    var woken = 0
    var isClosed = false
    /// The forks when this was true last.
    var forks = evg_forks()

    /// In the child of a fork there are neither threads nor their work. The work is not dropped,
    /// for what it holds may do something at its end.
    mutating func followForks() {
      if forks == evg_forks() { return }
      if jobs.count > 0 { abandon(jobs) }
      self = State(maxThreads: maxThreads, isClosed: isClosed)
    }
  }

  private let state: Guarded<State>
  private let maxAbandoned: Int
  private let idleTimeout: Duration
  private let signal = ThreadSignal()

  init(maxThreads: Int, maxAbandoned: Int, idleTimeout: Duration) {
    state = Guarded(State(maxThreads: maxThreads))
    self.maxAbandoned = maxAbandoned
    self.idleTimeout = idleTimeout
  }

  /// The pool whose thread this is.
  static var current: ObjectIdentifier? { currentCore.map { ObjectIdentifier($0) } }
  @TaskLocal private static var currentCore: Core?

  func withState<R>(_ body: (inout State) -> R) -> R {
    state.withLock { state in
      state.followForks()
      return body(&state)
    }
  }

  func add(_ job: @escaping Job) -> Bool {
    enum Need { case refusal, thread, wakeUp, nothing }
    let need: Need = withState { state in
      if state.isClosed { return .refusal }
      state.jobs.append(job)
      if state.idle < state.jobs.count, hasRoom(state) {
        state.threads += 1
        return .thread
      }
      // Those who are busy look for more by themselves.
      if state.idle == state.woken { return .nothing }
      state.woken += 1
      return .wakeUp
    }
    switch need {
    case .refusal: return false
    case .thread: startThread()
    case .wakeUp: signal.wakeOne()
    case .nothing: break
    }
    return true
  }

  private func mostThreads(_ state: State) -> Int {
    state.maxThreads + max(0, min(state.abandoned, maxAbandoned))
  }

  private func hasRoom(_ state: State) -> Bool {
    state.threads < mostThreads(state)
  }

  func allow(_ maxThreads: Int) {
    let missing = withState { state in
      state.maxThreads = maxThreads
      let missing = min(state.jobs.count - state.idle, mostThreads(state) - state.threads)
      state.threads += max(0, missing)
      return missing
    }
    for _ in 0..<max(0, missing) { startThread() }
    signal.wakeAll()  // some may be too many
  }

  /// What runs on one of the threads is wanted no more: another one may take its place.
  func abandonOne() {
    let needsThread = withState { state in
      state.abandoned += 1
      guard state.idle < state.jobs.count, hasRoom(state) else { return false }
      state.threads += 1
      return true
    }
    if needsThread { startThread() }
  }

  /// That has ended: its thread is one of the pool's again, and ends by itself if they are too many.
  func endAbandoned() { withState { $0.abandoned -= 1 } }

  func shutDown() {
    let waiting = withState { state in
      state.isClosed = true
      return state.jobs.takeAll()
    }
    for job in waiting { job(ThreadPoolClosed()) }
    signal.wakeAll()
  }

  private func startThread() {
    let me = Unmanaged.passRetained(self).toOpaque()
    let error = evg_start_thread(
      { Unmanaged<Core>.fromOpaque($0!).takeRetainedValue().work() }, me, 0)
    guard error != 0 else { return }
    Unmanaged<Core>.fromOpaque(me).release()
    // The others will come to it; without others nobody would.
    let stranded = withState { state in
      state.threads -= 1
      return state.threads == 0 ? state.jobs.takeAll() : []
    }
    for job in stranded { job(ThreadUnavailable(errno: Errno(rawValue: error))) }
  }

  private func work() {
    let forks = evg_forks()
    Core.$currentCore.withValue(self) {
      // If a job has forked, this is no thread of the pool in the child.
      while forks == evg_forks(), let job = next() { job(nil) }
    }
  }

  private func next() -> Job? {
    while true {
      let seen = signal.generation
      let job: Job?? = withState { state in
        let isOneTooMany = state.threads > mostThreads(state)
        if !isOneTooMany, let job = state.jobs.popFirst() { return .some(job) }
        if isOneTooMany || state.isClosed {
          state.threads -= 1
          return .some(nil)
        }
        state.idle += 1
        return nil
      }
      if let job { return job }
      let isWoken = signal.wait(since: seen, atMost: idleTimeout)
      let ends = withState { state in
        state.idle -= 1
        state.woken = max(state.woken - 1, 0)
        guard !isWoken, state.jobs.count == 0 else { return false }
        state.threads -= 1
        return true
      }
      if ends { return nil }
    }
  }
}
