// Evergreen: a greenlet, whatever it returns.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase
import Greenlets

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

// Spawning is hot, and its cost is memory, reference counts, and the checks of exclusive access
// that classes get. So what is touched at every spawn is plain data, unchecked: all of it belongs to
// one thread, and no access to it spans a switch. What few greenlets have is kept apart, in
// `Extras`, and what it runs makes room for what came of it: the object fits into the 120 bytes up
// to which glibc keeps any number of freed blocks at hand.

/// A greenlet without its type of result: what ``Greenlet`` has in common, and the thread's own
/// code, which is ``Hub/main``.
///
/// > gevent: `gevent.Greenlet`.
public class AnyGreenlet: CustomStringConvertible {
  enum Phase: UInt8 { case new, delayed, scheduled, running, finished }
  @usableFromInline enum Content: UInt8 { case nothing, body, value, error }

  /// Valid while the greenlet is unfinished: a hub outlives its greenlets, but those that were
  /// never started; so look at ``isOnItsHub`` first.
  final var hub: Hub {
    @inline(__always) get { hubReference.takeUnretainedValue() }
  }
  private final let hubReference: Unmanaged<Hub>

  /// The same without a reference count.
  @inline(__always)
  final func withHub<R>(_ body: (Hub) throws -> R) rethrows -> R {
    try hubReference._withUnsafeGuaranteedRef(body)
  }

  @exclusivity(unchecked) final var context: UnsafeMutablePointer<evg_context>?
  /// First its body, then its value or its error, as `content` says.
  @exclusivity(unchecked) @usableFromInline final var slot: Slot = (0, 0, 0, 0)
  @usableFromInline typealias Slot = (UInt, UInt, UInt, UInt)
  /// Runs the body that is in the slot and keeps its value there, or returns its error. It lies at
  /// the beginning of the slot, and was made where the type of the value is known.
  @usableFromInline
  struct Runner {
    // In a struct, for a bare function would be wrapped in another one on its way to memory.
    @usableFromInline let run: (AnyGreenlet) -> (any Error)?

    @inlinable
    init(_ run: @escaping (AnyGreenlet) -> (any Error)?) { self.run = run }
  }
  @exclusivity(unchecked) package final var joiners = WaitList()
  @exclusivity(unchecked) final var extras: Extras?
  /// Unique on its hub, never used again, and higher than those of greenlets made earlier.
  package final let serial: UInt64
  /// The serial of the greenlet that made this one; the highest number if none did.
  final let spawner: UInt64
  private final let file: UnsafePointer<CChar>
  private final let line: UInt32
  @exclusivity(unchecked) private final var smallID: UInt32 = 0
  private final let stackSize: UInt32
  @exclusivity(unchecked) final var phase: Phase
  @exclusivity(unchecked) @usableFromInline final var content = Content.nothing

  /// What few greenlets have.
  final class Extras {
    var due = DueErrors()
    /// What was thrown last in a raw greenlet on its behalf.
    var thrown: ThrownError?
    /// What was thrown last in it, to be told from errors of its own.
    var delivered: Delivery?
    /// Its error goes to somebody who deals with it.
    var isSilent = false
    var links: [Link] = []
    var linksAreRunning = false
    var locals: [UInt64: Any] = [:]
    var name: String?
    var delay: StartTimer?
    /// Addresses in the functions from which it was started, the innermost first.
    var spawnFrames: [UnsafeRawPointer] = []
    /// What it shares with those whom it spawns.
    var tree: SpawnTree?
    /// The context of a raw greenlet that is parked on behalf of this one.
    var rawWaiting: UnsafeMutablePointer<evg_context>?
  }

  @usableFromInline
  init(stackSize: Int?, file: StaticString, line: UInt) {
    let hub = Hub.unmanagedCurrent
    let thread = evg_thread_self()
    hubReference = hub
    self.file = UnsafeRawPointer(file.utf8Start).assumingMemoryBound(to: CChar.self)
    self.line = UInt32(truncatingIfNeeded: line)
    self.stackSize = stackSize.map { UInt32(clamping: max(1, $0)) } ?? 0
    phase = .new
    thread.pointee.serials &+= 1
    serial = thread.pointee.serials
    spawner = thread.pointee.current.unsafelyUnwrapped.pointee.serial
  }

  /// The greenlet that is the thread's own code, also if a raw greenlet is the first to need a hub.
  init(mainOf hub: Hub) {
    hubReference = .passUnretained(hub)
    file = UnsafeRawPointer(("main" as StaticString).utf8Start).assumingMemoryBound(to: CChar.self)
    line = 0
    stackSize = 0
    phase = .running
    serial = 0
    spawner = 0
    let own = evg_thread_self().pointer(to: \.main)!
    own.pointee.owner = Unmanaged.passUnretained(self).toOpaque()
    evg_current()!.pointee.owner = own.pointee.owner
    context = own
  }

  /// Made when they are first needed.
  final var ownExtras: Extras {
    if let extras { return extras }
    let fresh = Extras()
    extras = fresh
    return fresh
  }

  // MARK: Who it is

  /// A small number, unique among the unfinished greenlets of its hub and used again later;
  /// 0 is the main greenlet, and one that has not been started.
  ///
  /// > gevent: `Greenlet.minimal_ident`.
  public final var id: Int { Int(context?.pointee.id ?? smallID) }

  /// A name for reports; `greenlet-ID` until one is set.
  public final var name: String {
    get { extras?.name ?? (serial == 0 ? "main" : "greenlet-\(id)") }
    set {
      ownExtras.name = newValue
      if let context { evg_context_set_name(context, newValue) }
    }
  }

  /// Where it was spawned: `Module/File.swift:12`.
  public final var spawnedAt: String { "\(String(cString: file)):\(line)" }

  /// The greenlet that spawned this one, if it is unfinished still.
  ///
  /// > gevent: `Greenlet.spawning_greenlet`, which is weak too.
  public final var spawnedBy: AnyGreenlet? {
    phase == .finished || !isOnItsHub
      ? nil : hub.greenlets.first { $0.serial == spawner && $0 !== self }
  }

  public var description: String {
    if serial == 0 { return "the main greenlet" }
    return extras?.name.map { "greenlet \(id) \"\($0)\"" } ?? "greenlet \(id)"
  }

  var descriptionWithOrigin: String {
    serial == 0 ? description : "\(description) (spawned at \(spawnedAt))"
  }

  /// Whether the calling thread has this greenlet's hub, which may be gone: it is not touched.
  final var isOnItsHub: Bool {
    @inline(__always) get { evg_thread_self().pointee.hub_object == hubReference.toOpaque() }
  }

  @inline(__always)
  final func checkIsOnItsHub() {
    if !isOnItsHub { Hub.refuseForeignThread("a greenlet") }
  }

  // MARK: How it stands

  /// Whether it has ended, whichever way.
  public final var isReady: Bool { phase == .finished }

  /// Whether nothing runs in it any more: it has ended, and so has the handler of its error.
  final var isGone: Bool { phase == .finished && context == nil }

  /// Whether it has ended without failing. One that was killed counts as successful.
  public final var isSuccessful: Bool {
    phase == .finished && (content != .error || error is GreenletExit)
  }

  /// Whether it has been started and has not ended.
  public final var isActive: Bool { phase != .new && phase != .finished }

  /// What ended it: its own error, or what it was killed with. `nil` while it runs, and after it
  /// returned.
  public final var error: (any Error)? {
    guard content == .error else { return nil }
    return withUnsafeBytes(of: &slot) { $0.load(as: (any Error).self) }
  }

  /// The deepest use of its stack so far, in bytes, rounded up to a page. Stacks are pooled: it may
  /// be an earlier greenlet's. Zero before the first run and after the end.
  public final var stackHighWater: Int { context.map { evg_stack_high_water($0) } ?? 0 }

  // MARK: Its life

  /// Puts it into the ready queue.
  @usableFromInline
  final func schedule() {
    phase = .scheduled
    evg_ready(context ?? makeContext())
  }

  final func makeContext() -> UnsafeMutablePointer<evg_context> {
    let size = stackSize == 0 ? withHub { $0.stackSize } : Int(stackSize)
    let context = evg_context_new(greenletEntry, size)
    context.pointee.owner = Unmanaged.passRetained(self).toOpaque()
    context.pointee.serial = serial
    context.pointee.origin = file
    context.pointee.origin_line = line
    if evg_has_task_locals() { context.pointee.words.3 = evg_task_locals_copy() }
    smallID = context.pointee.id
    if evg_thread_self().pointee.notes_spawns { noteSpawn() }
    if let extras {
      if let name = extras.name { evg_context_set_name(context, name) }
      context.pointee.is_due = extras.due.isAny
    }
    self.context = context
    return context
  }

  @inline(__always)
  fileprivate final func enter(_ context: UnsafeMutablePointer<evg_context>) {
    if phase == .scheduled {
      phase = .running
      let error = context.pointee.lacks_stack ? stackUnavailable() : runner.run(self)
      finish(with: extras == nil ? error : takeStruckError() ?? error)
    } else {
      reportLate()
    }
    self.context = nil
    if context.pointee.raw != nil { releaseRawWrapper(of: context) }
    if evg_has_task_locals() { evg_task_locals_drop() }
  }

  private final func stackUnavailable() -> any Error {
    dropBody()
    return Hub.stackUnavailable()
  }

  /// It was killed before it began: the handler runs here, where it may block, not in the killer.
  @inline(never)
  private final func reportLate() {
    if let error { report(error) }
  }

  private final func report(_ error: any Error) {
    if error is GreenletExit || isSilent { return }
    hub.reportError(error, of: self)
  }

  /// Whether its error is not reported, because somebody gets it who deals with it. Decided by its raw
  /// links at the latest.
  package final var isSilent: Bool {
    get { extras?.isSilent ?? false }
    set { ownExtras.isSilent = newValue }
  }

  /// Runs one that has not been started in the calling greenlet, to its end.
  ///
  /// - Throws: What is thrown into the caller meanwhile, and the body did not catch; it is the error of
  ///   this one too.
  package final func runHere() throws {
    let begin = evg_thread_self().pointee.switches
    phase = .running
    let error = runner.run(self)
    if let error, AnyGreenlet.hasBeenThrown(error, since: begin) {
      finish(with: error, isReporting: false)
      throw error
    }
    finish(with: error)
  }

  private final var runner: Runner {
    @inline(__always) get { withUnsafeBytes(of: &slot) { $0.load(as: Runner.self) } }
  }

  /// Forgets the body of one that is not to run.
  func dropBody() {}

  /// Forgets the value of one that is to end with an error after all.
  func dropValue() {}

  /// Marks the end, wakes who waits for it, reports an error.
  final func finish(with error: (any Error)?, isReporting: Bool = true) {
    phase = .finished
    if !joiners.isEmpty { joiners.signalAll() }
    if let error {
      finishFailed(with: error, isReporting: isReporting)
    } else if extras != nil {
      announceEnd()
      finishExtras()
    }
  }

  @inline(never)
  private final func finishFailed(with error: any Error, isReporting: Bool) {
    keepError(error)
    if extras != nil { announceEnd() }
    if isReporting { report(error) }
    if extras != nil { finishExtras() }
  }

  /// What comes before the handler of errors, which may block: nobody who looks at those that have
  /// ended, as pools do, is to wait for it.
  private final func announceEnd() {
    if hasDueError { withDueErrors { $0 = DueErrors() } }
    extras?.thrown = nil
    extras?.delivered = nil
    context?.pointee.is_shielded = false
    runRawLinks()
  }

  /// What was in the slot has been taken out, or is given up.
  final func keepError(_ error: any Error) {
    withUnsafeMutableBytes(of: &slot) {
      _ = $0.baseAddress!.initializeMemory(as: (any Error).self, to: error)
    }
    content = .error
  }

  deinit {
    guard content == .error else { return }
    withUnsafeMutableBytes(of: &slot) {
      _ = $0.baseAddress!.assumingMemoryBound(to: (any Error).self).deinitialize(count: 1)
    }
  }

  private final func finishExtras() {
    guard let extras else { return }
    for _ in 0..<4 where !extras.locals.isEmpty {  // values may make others when they go
      let values = extras.locals
      extras.locals = [:]
      withExtendedLifetime(values) {}
    }
    extras.rawWaiting = nil
    extras.tree = nil
    extras.delay?.cancel()
    extras.delay = nil
    if !extras.links.isEmpty { runLinks() }
  }

  /// The hub of a main greenlet that has ended is about to go.
  final func finishMain() {
    context?.pointee.owner = nil
    evg_current()?.pointee.owner = nil
    context = nil
  }

  // MARK: What is thrown into it

  final var hasDueError: Bool { extras?.due.isAny ?? false }

  /// Changes what is due, and tells the switch points of it.
  final func withDueErrors<R>(_ body: (inout DueErrors) -> R) -> R {
    let extras = ownExtras
    defer { context?.pointee.is_due = extras.due.isAny }
    return body(&extras.due)
  }

  final func takeDueError() -> any Error {
    let thrown = withDueErrors { $0.take() }
    let extras = ownExtras
    extras.delivered = Delivery(of: thrown)
    // Only a raw greenlet can come to an end that keeps it from its owner.
    if evg_current()?.pointee.is_raw == true { extras.thrown = thrown }
    return thrown.error
  }

  /// Whether an error that the calling greenlet has caught is what was thrown into it last, by a kill
  /// or a timeout.
  ///
  /// - Parameters:
  ///   - error: What was caught.
  ///   - since: The switches of the thread when the code began that threw it.
  /// - Returns: Whether it is; an error of a greenlet's own of the same type may be taken for it.
  package static func hasBeenThrown(_ error: any Error, since: UInt64 = 0) -> Bool {
    guard let delivered = currentIfAny?.extras?.delivered else { return false }
    return delivered.time >= since && delivered.isSame(as: error)
  }

  /// Fails a call of foreign code, at which nothing can be thrown, because of the error that is due.
  /// It stays due, and is thrown when control is back in Swift: by the next switch point, or at the
  /// end of the timeout's block or of the greenlet, whatever these have made of the failure.
  ///
  /// - Returns: What the call is to put into `errno`; 0 if nothing is due.
  package final func strike() -> Int32 {
    hasDueError ? withDueErrors { $0.strike() } : 0
  }

  /// How many calls have failed because of an error that is still due.
  package final var strikes: Int { extras?.due.strikes ?? 0 }

  /// The body is through, but calls of foreign code have failed under it, and it may not know why.
  private final func takeStruckError() -> (any Error)? {
    guard extras!.due.hasStruck else { return nil }
    dropValue()
    return withDueErrors { $0.take() }.error
  }

  /// Throws again, at the next switch point, what the hub threw into this greenlet and what reached
  /// code that cannot throw. An error of that code's own is left alone, and so is the timeout of a
  /// block that is over.
  ///
  /// - Parameters:
  ///   - error: What reached it.
  ///   - since: The switches of the thread when that code began.
  final func postpone(_ error: any Error, since: UInt64) {
    guard let extras, let thrown = extras.thrown, thrown.time >= since, thrown.isSame(as: error)
    else { return }
    extras.thrown = nil
    if let revocable = thrown.revocable {
      if revocable.isOver { return }
      revocable.isDueAgain(in: self)
    }
    withDueErrors { $0.putBack(thrown) }
  }

  /// The context that is parked on its behalf, its own or that of a raw greenlet.
  final var waiting: UnsafeMutablePointer<evg_context>? {
    if let raw = extras?.rawWaiting { return raw }
    guard let context, context.pointee.state == EVG_PARKED else { return nil }
    return context
  }

  /// Throws `error` at the point where the greenlet waits, now or the next time it does. False if
  /// it does not wait in the hub.
  @discardableResult
  final func interrupt(with error: any Error) -> Bool {
    interrupt(with: DueErrors.Due(error: error, revocable: nil))
  }

  /// The same with one that can be taken back.
  @discardableResult
  final func interrupt(with error: any Revocable) -> Bool {
    interrupt(with: DueErrors.Due(error: error, revocable: error))
  }

  private final func interrupt(with due: DueErrors.Due) -> Bool {
    withDueErrors { $0.append(due) }
    guard let waiting else { return false }
    if hasDueError { _ = evg_wake(waiting) }
    return true
  }

  /// - Parameter isLast: There is no time left: shields do not hold it back.
  final func interruptForEnd(isLast: Bool = false) {
    if phase != .running && phase != .finished { return cancelStart(with: GreenletExit()) }
    if isLast { breakShields() }
    withDueErrors { if !$0.hasKill { $0.kill(with: GreenletExit()) } }
    if hasDueError, let waiting { _ = evg_wake(waiting) }
  }
}

private let greenletEntry: @convention(c) (UnsafeMutablePointer<evg_context>) -> Void = { context in
  Unmanaged<AnyGreenlet>.fromOpaque(context.pointee.owner.unsafelyUnwrapped).takeRetainedValue()
    .enter(context)
}

extension AnyGreenlet: Hashable {
  public static func == (one: AnyGreenlet, other: AnyGreenlet) -> Bool { one === other }

  public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
