// Evergreen: the hub, which runs the loop of a thread and decides who runs next.
// SPDX-License-Identifier: MIT
//
// How a thread's greenlets share it:
//
// 1. Whoever must wait marks itself parked and leaves (`evg_park`). Control goes straight to the
//    next ready greenlet; the hub is not involved.
// 2. Only when nobody is ready, or when the budget of runs is spent, control goes to the hub,
//    which has a stack of its own. It looks at the loop, without waiting if somebody is ready.
// 3. Callbacks of the loop never run user code. They make greenlets ready, in the order of the
//    events, behind those that were ready before.
//
// The budget is what keeps a greenlet that only yields, or a socket that is always ready, from
// starving timers and others. Looking at the loop costs a system call, some 300 ns, so it is not
// done after each round of a short queue, but after so many runs as take about 5 ms (what gevent
// allows its callbacks), 1,024 at most. Of a longer queue all that are in it run first: who becomes
// ready meanwhile comes behind them in any case, and what is ready and unread would be told again.
//
// The deadlock: nobody is ready, nothing is watched, no thread and no signal can come. Then the
// main greenlet gets `LoopExit`.

import CGreenlet
import CLibev
public import EventLoop
import EvergreenBase
import Greenlets
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The scheduler of one thread: a libev loop and the greenlets that it drives.
///
/// A thread gets its hub when it first needs one; nobody has to start it. The code that was there
/// before is the thread's main greenlet. A hub, its greenlets, and all that is made on it stay on
/// that thread; the door for other threads is ``mailbox``.
///
/// > gevent: `gevent.hub.Hub`.
public final class Hub {
  package let loop: any LoopInterface
  /// The same, if it is libev's.
  let libev: UnsafeMutablePointer<evg_loop>?
  /// The libev loop, for watchers of one's own. Their callbacks run on the hub and must not block.
  public let eventLoop: Loop
  /// The thread's own code.
  public private(set) var main: AnyGreenlet!
  let mail: MailboxCore
  let thread = pthread_self()
  private var context: UnsafeMutablePointer<evg_context>!
  private var budget: Int32 = Hub.mostRuns
  private(set) var isEnding = false
  /// The main greenlet has ended, and the others are to.
  private var isUnwinding = false
  /// Runs on when the hub's own context has ended.
  private var ender: UnsafeMutablePointer<evg_context>?

  /// Stack bytes of greenlets that do not ask for another size; a power of two, 32 KiB to 1 GiB.
  ///
  /// The memory is reserved, not used: a greenlet costs the pages that it touches. Decoding JSON
  /// takes some 60 KiB, so think twice before making it smaller than 128 KiB.
  @exclusivity(unchecked) public var stackSize = 256 * 1024 {
    didSet { if stackSize < 1 { stackSize = 1 } }
  }

  /// Called with each error that ends a greenlet, but ``GreenletExit``; prints it by default.
  ///
  /// Runs in the greenlet that failed, after whoever waits for its end has been woken, and may
  /// block; but if there was no memory for its stack, waiting throws ``StackUnavailable``. What it
  /// throws is printed.
  public var onError: (_ greenlet: AnyGreenlet, _ error: any Error) throws -> Void = { _, _ in }

  /// Wakers that the loop does not see: jobs of thread pools, signal handlers. While there are any
  /// the hub waits for them instead of calling it a deadlock.
  package var externalWakers = 0
  /// Timers of waits for the end, which do not keep the end from coming.
  var ownTimers = 0
  /// What higher floors keep per hub.
  package var attachments: [ObjectIdentifier: AnyObject] = [:]
  /// Room for a system call to write into, for the time until the next switch.
  package let scratch = UnsafeMutableRawBufferPointer.allocate(
    byteCount: 64 * 1024, alignment: 16)
  /// System calls that may succeed without a wait before others get a turn. Every 4 KiB that they
  /// move count as one more.
  package var ioBudget: Int32 {
    get { evg_thread_self().pointee.io_budget }
    set { evg_thread_self().pointee.io_budget = newValue }
  }
  @exclusivity(unchecked) final var freeTimeoutRecords: UnsafeMutablePointer<TimeoutRecord>?
  /// In the child of a fork, the greenlet that forked.
  var forker: AnyGreenlet?
  /// The waits for several descriptors.
  var polls: [ObjectIdentifier: PollWait] = [:]
  /// What lots are drawn from: the same on every hub, so that a run can be repeated.
  package var lots: UInt64 = 0x9E37_79B9_7F4A_7C15
  var tracers: [(tracer: ObjectIdentifier, call: (SwitchEvent) -> Void)] = []
  var spawnInterest = SpawnInterest() {
    didSet { evg_thread_self().pointee.notes_spawns = spawnInterest.isAny }
  }
  var lagMeter: LagMeter?
  var backgroundTimers: [Unmanaged<BackgroundTimer>] = []
  /// Looks at the loop so far.
  private(set) var passes: UInt64 = 0
  var idlers = WaitList()
  var endWaiters = WaitList()
  /// Given how many are ready, says whose turn it is: 0 for the one that has been ready longest. Each
  /// run passes by the hub then. For tests; `nil` is first come, first served.
  package var choosesNext: ((_ count: Int) -> Int)?
  var watchdog: Watchdog.Entry?
  var signalHandlers: [ObjectIdentifier: SignalHandler] = [:]
  private var lastTrim: UInt64 = 0

  private static let mostRuns: Int32 = 1024
  package static var mostIO: Int32 { 64 }
  private static let bytesPerCallShift = 12
  private static let longestSlice: UInt64 = 5_000_000  // nanoseconds
  private static let warmStacks = 64

  // MARK: The hub of this thread

  /// The hub of the calling thread, made now if there is none.
  ///
  /// - Precondition: The caller is no task of Swift's cooperative pool: its threads belong to
  ///   Swift. From `async` code, give the work to a thread that has a hub, or use
  ///   ``withHub(_:)`` on a thread of your own.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static var current: Hub {
    @inline(__always) get { currentIfAny ?? makeCurrent() }
  }

  /// The hub of the calling thread, or `nil` if it has none yet.
  public static var currentIfAny: Hub? {
    @inline(__always) get {
      evg_thread_self().pointee.hub_object.map {
        Unmanaged<Hub>.fromOpaque($0).takeUnretainedValue()
      }
    }
  }

  /// ``current`` without a reference count.
  @inline(__always)
  static var unmanagedCurrent: Unmanaged<Hub> {
    if let object = evg_thread_self().pointee.hub_object { return .fromOpaque(object) }
    return .passUnretained(makeCurrent())
  }

  @inline(never)
  private static func makeCurrent() -> Hub {
    refuseTask()
    return attach(loop: nil)
  }

  private static func refuseTask() {
    if evg_in_task() {
      fatal(
        "a task of Swift's cooperative pool may not block, so greenlets cannot run here. "
          + "Run this code in a plain function on a thread of your own, or in Hub.withHub { } there"
      )
    }
  }

  private static func attach(loop: (any LoopInterface)?) -> Hub {
    let eventLoop: Loop
    do { eventLoop = try Loop() } catch { fatal("cannot make an event loop: \(error)") }
    return attach(loop: loop, over: eventLoop)
  }

  static func attach(loop: (any LoopInterface)?, over eventLoop: Loop) -> Hub {
    attachThread()
    eventLoop.isDriven = true
    eventLoop.hasReady = { evg_thread_self().pointee.ready_head != nil }
    let hub = Hub(loop: loop ?? eventLoop, eventLoop: eventLoop)
    evg_set_hub(hub.context, Unmanaged.passRetained(hub).toOpaque())
    evg_thread_self().pointee.now = hub.loop.now
    hub.ioBudget = mostIO
    evg_thread_self().pointee.postpone = { error, since in
      AnyGreenlet.currentIfAny?.postpone(error.load(as: (any Error).self), since: since)
    }
    evg_set_exit_hooks({ Hub.threadEnds() }, nil)
    followForks()
    return hub
  }

  /// Gives the calling thread a hub for the time of `body`, then kills what is left and frees it.
  ///
  /// For threads that are not the hub's for good: worker threads, tests. Code that already has a
  /// hub just runs `body` on that.
  ///
  /// - Throws: What `body` throws.
  /// - Precondition: The caller is no task of Swift's cooperative pool; see ``current``.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func withHub<R>(_ body: (Hub) throws -> R) rethrows -> R {
    if currentIfAny == nil { refuseTask() }
    return try withHub(loop: nil, body)
  }

  /// The same over a loop that stands in for libev's, also for a task whose executor has a thread
  /// of its own.
  ///
  /// - Parameters:
  ///   - loop: What drives the hub; `nil` for a loop of its own.
  ///   - inspecting: Is told what was left after all greenlets had ended.
  ///   - body: The code of the main greenlet.
  /// - Returns: What `body` returns.
  package static func withHub<R>(
    loop: (any LoopInterface)?, inspecting: ((HubRemains) -> Void)? = nil,
    _ body: (Hub) throws -> R
  ) rethrows -> R {
    if let hub = currentIfAny { return try body(hub) }
    let hub = attach(loop: loop)
    defer { hub.end(inspecting) }
    return try body(hub)
  }

  private init(loop: any LoopInterface, eventLoop: Loop) {
    self.loop = loop
    self.eventLoop = eventLoop
    libev = loop === eventLoop ? eventLoop.state : nil
    mail = MailboxCore(loop: loop)
    main = AnyGreenlet(mainOf: self)
    context = evg_context_new({ _ in Hub.currentIfAny!.run() }, 256 * 1024)
    context.pointee.serial = .max  // no greenlet
    onError = { greenlet, error in warn("\(greenlet) failed: \(error)") }
    installAccessReport()
    Watchdog.watch(self)
    spawnInterest.tracks = Hub.tracksSpawnsByDefault
    evg_thread_self().pointee.notes_spawns = spawnInterest.isAny
  }

  private static let tracksSpawnsByDefault =
    getenv("EVERGREEN_TRACK_SPAWNS").map { String(cString: $0) != "0" } ?? false

  var contextID: UInt32 { context.pointee.id }

  /// Whether the calling code runs on this hub's thread.
  public var isCurrent: Bool {
    evg_thread_self().pointee.hub_object == Unmanaged.passUnretained(self).toOpaque()
  }

  // MARK: Running

  /// What the hub's own context does, all its life.
  private func run() {
    while !isEnding {
      let thread = evg_thread_self()
      let runs =
        choosesNext == nil ? max(budget, Int32(clamping: thread.pointee.ready_count)) : chosenRun()
      evg_run_ready(runs)
      if isEnding { break }
      if thread.pointee.ready_head != nil {
        if choosesNext == nil { adaptBudget(to: runs - max(0, thread.pointee.budget)) }
        loop.poll(wait: false)
      } else {
        pollForWork()
      }
      passes &+= 1
      evg_thread_self().pointee.now = loop.now
      if mail.hasMail { deliverMail() }
    }
    evg_context_set_successor(evg_current()!, ender!)
  }

  /// Puts the one whose turn it is first.
  private func chosenRun() -> Int32 {
    let count = evg_thread_self().pointee.ready_count
    if count > 1, let choosesNext { evg_ready_promote(UInt32(choosesNext(Int(count)))) }
    return 1
  }

  /// So many runs that the next look at the loop comes after about the time that it should.
  private func adaptBudget(to runs: Int32) {
    let spent = readClock() &- evg_thread_self().pointee.now
    let each = max(1, spent / UInt64(max(1, runs)))
    budget = max(1, min(Hub.mostRuns, Int32(clamping: Hub.longestSlice / each)))
  }

  private var mayBeWoken: Bool { externalWakers > 0 || mail.isHeld }

  /// Nobody is ready, and nothing can come.
  var isOutOfWork: Bool {
    evg_thread_self().pointee.ready_head == nil && loop.referenceCount <= ownTimers
      && !mayBeWoken && !mail.hasMail && idlers.isEmpty
  }

  private func pollForWork() {
    if !idlers.isEmpty {
      loop.poll(wait: false)
      if evg_thread_self().pointee.ready_head == nil { idlers.signalFirst() }
      return
    }
    if isOutOfWork { return nothingLeft() }
    trimStacks()
    loop.holdOpen(mayBeWoken)
    watchdog?.isWaiting.store(true, ordering: .relaxed)
    loop.poll(wait: true)
    watchdog?.isWaiting.store(false, ordering: .relaxed)
  }

  /// Nothing is ready and nothing can come.
  private func nothingLeft() {
    if !endWaiters.isEmpty {
      endWaiters.signalAll()
      return
    }
    guard let last, !last.isReady || isUnwinding else { endProcess() }
    let exit = LoopExit(report: report(), waiter: "\(last)")
    guard last.interrupt(with: exit) else {
      fatal("\(last) has left by hand and nothing can wake it.\n\(exit.report)")
    }
  }

  private func trimStacks() {
    guard evg_stacks_warm() > Hub.warmStacks, loop.now &- lastTrim > 1_000_000_000 else { return }
    if evg_stacks_trim(Hub.warmStacks, 1024) < 1024 { lastTrim = loop.now }
  }

  /// Counts a system call that may succeed at once.
  ///
  /// - Returns: Whether there have been so many in a row that ``giveTurn()`` is due, lest a peer
  ///   that is always ready starve the others.
  package func chargeIO() -> Bool {
    checkIsCurrent()
    let thread = evg_thread_self()
    thread.pointee.io_budget &-= 1
    return thread.pointee.io_budget < 0
  }

  /// Counts what a system call has moved, for a large transfer takes as long as many small ones.
  @inline(__always)
  package func chargeIO(bytes count: Int) {
    evg_thread_self().pointee.io_budget &-= Int32(
      truncatingIfNeeded: count >> Hub.bytesPerCallShift)
  }

  /// Counts a system call, and lets the others have a turn if one is due.
  package func admitIO() throws {
    if chargeIO() { try giveTurn() }
  }

  /// Draws one of so many, each as likely (SplitMix64).
  package func draw(below count: Int) -> Int {
    lots &+= 0x9E37_79B9_7F4A_7C15
    var word = lots
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    word ^= word >> 31
    return Int(word.multipliedFullWidth(by: UInt64(count)).high)
  }

  /// Lets the loop and the others have a turn.
  ///
  /// - Throws: What is due in the caller, which has lost nothing yet.
  @inline(never)
  package func giveTurn() throws {
    try checkForDueError()
    giveTurnInForeignCode()
    try checkForDueError()
  }

  /// The same for foreign code, at which nothing can be thrown: what is due stays due.
  package func giveTurnInForeignCode() {
    ioBudget = Hub.mostIO
    evg_thread_self().pointee.budget = 0  // by way of the loop
    evg_yield()
  }

  // MARK: The end

  /// Kills all greenlets, lets them finish, and frees what the thread holds for them.
  func end(_ inspecting: ((HubRemains) -> Void)? = nil) {
    guard !isEnding, isCurrent else { return }
    isUnwinding = true
    unwindAll()
    for timer in backgroundTimers { timer.takeUnretainedValue().stop() }
    lagMeter = nil
    for handler in signalHandlers.values { handler.detach() }
    inspecting?(HubRemains(of: self))
    Watchdog.unwatch(self)
    mail.close()
    dropWhatIsHeld()
    eventLoop.isDriven = false
    loop.destroy()
    eventLoop.destroy()
    giveBackNewcomers()
    isEnding = true
    // The hub's context sees that it is to end, and hands over to this one for the last time.
    ender = evg_current()
    ender!.pointee.state = UInt8(EVG_SUSPENDED)
    evg_switch(context)
    main.finishMain()
    evg_set_hub(nil, nil)
    freeAllTimeoutRecords()
    scratch.deallocate()
    let holdsRaw = evg_thread_self().pointee.raw_object != nil
    if !holdsRaw { evg_detach() }
    Unmanaged.passUnretained(self).release()
  }

  /// What the end of the loops has spawned does not begin: its contexts are run only to be given
  /// back. Without a loop nobody can wait, so not beside greenlets that refuse to end.
  private func giveBackNewcomers() {
    let late = others
    for newcomer in late where newcomer.phase != .running { newcomer.interruptForEnd() }
    if late.contains(where: { $0.phase == .running }) { return }
    evg_thread_self().pointee.budget = .max
    try? Greenlet.yield()
  }

  private var others: [AnyGreenlet] { greenletsWithContexts.filter { $0 !== main } }

  /// Kills all, and lets them clean up, for a second at most if that blocks. What they spawn for
  /// that, and links, get their turn within the same second. Whoever swallows the kill and waits
  /// for what cannot come, or for longer, is killed again.
  private func unwindAll() {
    var waited = others
    if !main.isReady { main.finish(with: nil) }  // nothing is thrown into it from now on
    for victim in waited { victim.interruptForEnd() }
    let deadline = Deadline(after: .seconds(1), on: self)
    ownTimers += 1  // so that a wait for ever is found out
    while awaitEnd(of: waited, until: deadline) {
      for other in others where other.phase == .delayed { other.interruptForEnd() }
      waited = others.filter { !$0.isReady }
      if waited.isEmpty { break }
    }
    ownTimers -= 1
    killOthers()
    let stubborn = others
    if stubborn.isEmpty { return }
    warn(
      "a hub ends while greenlets refuse to: " + stubborn.map(\.description).joined(separator: ", ")
    )
  }

  /// - Returns: Whether they have ended; `false` if time is up, or if they wait for what cannot
  ///   come.
  private func awaitEnd(of greenlets: [AnyGreenlet], until deadline: Deadline) -> Bool {
    for greenlet in greenlets {
      while !greenlet.isReady {
        do {
          if try !greenlet.join(until: deadline) { return false }
        } catch is LoopExit {
          return false
        } catch {
          // The timeout of a block in a generator that outlives this. There may be many.
          if deadline.remaining(on: self) == .zero { return false }
        }
      }
    }
    return true
  }

  /// Kills all, again and again, a hundred times at most.
  private func killOthers() {
    for _ in 0..<100 {
      let victims = others
      if victims.isEmpty { return }
      for victim in victims { victim.interruptForEnd(isLast: true) }
      try? Greenlet.yield()
    }
  }

  /// Lets go what users have put here while there is still the hub that its end may need.
  private func dropWhatIsHeld() {
    do {
      let held = (signalHandlers, attachments, onError, main.extras)
      signalHandlers = [:]
      attachments = [:]
      onError = { _, _ in }  // it may hold what holds this hub
      main.extras = nil
      withExtendedLifetime(held) {}
    }
    releaseTimeouts()
    killOthers()
  }

  /// Those that are still running hold themselves, and their greenlets.
  private func releaseTimeouts() {
    var running: [Timeout] = []
    loop.stopTimers { timer in
      guard timer.calls(timeoutFired), let timeout = timer.pointee.context else { return false }
      running.append(Unmanaged<Timeout>.fromOpaque(timeout).takeUnretainedValue())
      return true
    }
    for timeout in running { timeout.loopHasEnded() }
  }
}

/// What is left when a hub's greenlets have ended: nothing, if all is well.
package struct HubRemains: Sendable {
  /// Contexts beside the main one and the hub's.
  package let contexts: Int
  /// Stacks in use beside the hub's.
  package let stacks: Int
  /// Timers, descriptor watches and other referenced watchers that are active.
  package let watches: Int

  init(of hub: Hub) {
    let thread = evg_thread_self()
    contexts = Int(thread.pointee.live) - 1
    stacks = max(0, Int(thread.pointee.stacks_in_use) - 1)
    watches = hub.loop.referenceCount
  }
}
