// Evergreen: a hub as executor of Swift's tasks and actors.
// SPDX-License-Identifier: MIT
//
// Swift hands an executor jobs: pieces of tasks between two suspensions. A job may call green functions
// that wait, so each needs a greenlet under it:
//
// 1. A job for the task executor gets a greenlet of its own: when it parks, the others go on.
// 2. The jobs of actors (the serial executor) run one after another in one greenlet. In a greenlet each, a
//    job that parks would let the next one of the same actor in. So there are two objects: the runtime
//    calls the same `enqueue` for both kinds and does not say which it means.
// 3. No greenlet holds a job that it has not begun: it takes the next one when it runs. So a greenlet
//    that is killed before its turn costs no job, and what is left when the hub ends can be given away:
//    a task is never stuck because a hub has gone.
//
// The words of the runtime (the task, its executor, its task locals) belong to the greenlet, so a job may
// park in the middle.

import CGreenlet
import EvergreenBase
public import EvergreenHub
import EvergreenSync
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A hub's door for `async` code: runs green code and awaits it, and runs tasks and actors on the hub.
///
/// ```swift
/// let hub = Hub.current.executor                           // on the hub's thread
/// Task {
///   let row = try await hub.run { try database.fetch(1) }  // in a greenlet, which may wait
/// }
/// Task(executorPreference: hub) { ... }                    // all of the task on the hub's thread
/// ```
///
/// An actor lives on the hub with
/// `nonisolated var unownedExecutor: UnownedSerialExecutor { hub.serial.asUnownedSerialExecutor() }`.
///
/// Code that runs in a task here may call green functions that wait, through a plain function: only that
/// piece of it waits. As long as somebody holds it, the hub does not take a standstill for a deadlock,
/// as with a ``Mailbox``. When the hub has ended, tasks go on elsewhere: on Swift's pool, actors on a
/// thread of their own.
///
/// > gevent: has none; asyncio's `loop.run_in_executor` comes near.
public final class HubExecutor: TaskExecutor {
  let core: ExecutorCore
  /// The same for actors, whose jobs run one after another.
  public let serial: HubSerialExecutor

  init(_ core: ExecutorCore, _ serial: HubSerialExecutor) {
    self.core = core
    self.serial = serial
  }

  /// The hub's door for other threads.
  public var mailbox: Mailbox { serial.mailbox }

  /// Whether the caller is on the hub's thread.
  public var isCurrent: Bool { core.isOnHub }

  /// Called by Swift.
  public func enqueue(_ job: consuming ExecutorJob) {
    core.enqueue(.init(job: UnownedJob(job), executor: self), serially: false)
  }
}

/// A hub as the executor of actors; see ``HubExecutor/serial``.
///
/// Greenlets of the hub are isolated to such an actor: `actor.assumeIsolated { ... }` gives them its state
/// without a wait. A method that waits in a green function lets no other method of an actor in, but other
/// greenlets run.
public final class HubSerialExecutor: SerialExecutor {
  let core: ExecutorCore
  let mailbox: Mailbox

  init(_ core: ExecutorCore, _ mailbox: Mailbox) {
    self.core = core
    self.mailbox = mailbox
  }

  /// Called by Swift.
  public func enqueue(_ job: consuming ExecutorJob) {
    core.enqueue(.init(job: UnownedJob(job), executor: self), serially: true)
  }

  /// Called by Swift.
  public func checkIsolated() {
    require(core.isIsolating, "this code is to run on a hub's thread, and runs on another one")
  }

  /// Called by Swift.
  public func isIsolatingCurrentContext() -> Bool? { core.isIsolating }
}

extension Hub {
  /// The door for `async` code, which may be handed to any thread or task.
  public var executor: HubExecutor {
    checkIsCurrent("a hub's executor")
    return ExecutorCore.of(self).handle(on: self)
  }
}

/// What the executors of a hub share.
final class ExecutorCore: @unchecked Sendable {
  // Unchecked: what stands under `// The hub's` is touched on its thread alone.

  struct Work {
    let job: UnownedJob
    let executor: any Executor
  }

  private struct State {
    var tasks: [Work] = []
    var serial: [Work] = []
    var isOpen = true
    /// The hub has been told, and will come.
    var isOnTheWay = false
    /// What does an actor's jobs when the hub has ended.
    var substitute: pthread_t?
  }

  private let state = Guarded(State())
  private let hasEnded = Atomic(false)
  let door: MailboxCore
  private let thread = pthread_self()

  // The hub's
  private weak var executor: HubExecutor?
  private weak var serialExecutor: HubSerialExecutor?
  private var tasks = Backlog<Work>()
  private var serial = Backlog<Work>()
  private var serialGreenlet: AnyGreenlet?
  private let hub: Unmanaged<Hub>

  private init(of hub: Hub) {
    door = hub.backDoor
    self.hub = .passUnretained(hub)
  }

  static func of(_ hub: Hub) -> ExecutorCore {
    let key = ObjectIdentifier(ExecutorCore.self)
    if let anchor = hub.attachments[key] as? Anchor { return anchor.core }
    let anchor = Anchor(ExecutorCore(of: hub))
    hub.attachments[key] = anchor
    return anchor.core
  }

  /// Goes when the hub ends.
  private final class Anchor {
    let core: ExecutorCore
    init(_ core: ExecutorCore) { self.core = core }
    deinit { core.hubHasEnded() }
  }

  func handle(on hub: Hub) -> HubExecutor {
    if let executor { return executor }
    let serial = serialExecutor ?? HubSerialExecutor(self, hub.mailbox)
    serialExecutor = serial
    let fresh = HubExecutor(self, serial)
    executor = fresh
    return fresh
  }

  /// Whether the caller is on the hub's thread, which still has it.
  var isOnHub: Bool {
    // Another hub may have its address by now.
    !hasEnded.load(ordering: .acquiring)
      && evg_thread_self().pointee.hub_object == hub.toOpaque()
  }

  var isIsolating: Bool {
    if isOnHub { return true }
    return state.withLock { $0.substitute.map { pthread_equal($0, pthread_self()) != 0 } ?? false }
  }

  // MARK: From any thread

  func enqueue(_ work: Work, serially: Bool) {
    enum Next { case deliver, nothing, giveAway }
    let next: Next = state.withLock { state in
      if !state.isOpen && !serially { return .giveAway }
      if serially { state.serial.append(work) } else { state.tasks.append(work) }
      if !state.isOpen {
        return state.substitute == nil ? .giveAway : .nothing
      }
      if state.isOnTheWay { return .nothing }
      state.isOnTheWay = true
      return .deliver
    }
    switch next {
    case .nothing: break
    case .deliver:
      // If the hub does not hear of it any more, its end finds the work.
      if isOnHub { deliver() } else { door.post { [self] in deliver() } }
    case .giveAway: giveAway(serially ? nil : work)
    }
  }

  /// The hub has ended: somebody else does it.
  private func giveAway(_ task: Work?) {
    if let task { return globalConcurrentExecutor.enqueue(ExecutorJob(task.job)) }
    let isNeeded = state.withLock { state in
      if state.substitute != nil || state.serial.isEmpty { return false }
      state.substitute = thread  // until it says who it is
      return true
    }
    if !isNeeded { return }
    let me = Unmanaged.passRetained(self).toOpaque()
    let error = evg_start_thread(
      { Unmanaged<ExecutorCore>.fromOpaque($0!).takeRetainedValue().substitute() }, me, 0)
    if error != 0 { fatal("the hub of an actor has ended, and no thread can take its place") }
  }

  private func substitute() {
    while true {
      let batch: [Work] = state.withLock { state in
        state.substitute = state.serial.isEmpty ? nil : pthread_self()
        defer { state.serial = [] }
        return state.serial
      }
      if batch.isEmpty { return }
      for work in batch { run(serial: work) }
    }
  }

  private func run(serial work: Work) {
    let executor = unsafeDowncast(work.executor, to: HubSerialExecutor.self)
    work.job.runSynchronously(on: executor.asUnownedSerialExecutor())
  }

  // MARK: On the hub

  private func deliver() {
    let (moreTasks, moreSerial) = state.withLock { state in
      state.isOnTheWay = false
      defer { (state.tasks, state.serial) = ([], []) }
      return (state.tasks, state.serial)
    }
    for work in moreTasks {
      tasks.append(work)
      spawn { [self] in runTask() }.name = "task"
    }
    for work in moreSerial { serial.append(work) }
    if serialGreenlet?.isReady ?? true, !serial.isEmpty {
      serialGreenlet = spawn { [self] in runSerial() }
      serialGreenlet?.name = "actors"
    }
  }

  private func runTask() {
    guard let work = tasks.popFirst() else { return }
    let executor = unsafeDowncast(work.executor, to: HubExecutor.self)
    work.job.runSynchronously(on: executor.asUnownedTaskExecutor())
  }

  private func runSerial() {
    while let work = serial.popFirst() { run(serial: work) }
    serialGreenlet = nil
  }

  private func hubHasEnded() {
    hasEnded.store(true, ordering: .releasing)
    let left = state.withLock { state in
      state.isOpen = false
      // What was taken over first comes first.
      state.serial = serial.takeAll() + state.serial
      defer { state.tasks = [] }
      return tasks.takeAll() + state.tasks
    }
    serialGreenlet = nil
    for work in left { giveAway(work) }
    giveAway(nil)
  }
}
