// Evergreen: a greenlet, whatever it returns.
// SPDX-License-Identifier: MIT

import CGreenlet
import Greenlets

/// A greenlet without its type of result: what ``Greenlet`` has in common, and the thread's own
/// code, which is ``Hub/main``.
///
/// > gevent: `gevent.Greenlet`.
public class AnyGreenlet: CustomStringConvertible {
  enum Phase: UInt8 { case new, delayed, scheduled, running, finished }

  /// Valid while the greenlet is unfinished: a hub outlives its greenlets.
  unowned(unsafe) let hub: Hub
  var context: UnsafeMutablePointer<evg_context>?
  /// The context that is parked on behalf of this greenlet, its own or that of a raw greenlet.
  var waiting: UnsafeMutablePointer<evg_context>?
  final var phase: Phase
  final var due = DueErrors()
  final var ending: (any Error)?
  final var joiners = WaitList()
  final var links: [Link] = []
  final var linksAreRunning = false
  final var locals: [ObjectIdentifier: Any] = [:]
  /// Unique on its hub, never used again.
  final let serial: UInt64
  /// The serial of the greenlet that made this one.
  final let spawner: UInt64
  private let file: StaticString
  private let line: UInt32
  private var customName: String?
  private var smallID: UInt32 = 0

  init(hub: Hub, file: StaticString, line: UInt) {
    self.hub = hub
    self.file = file
    self.line = UInt32(truncatingIfNeeded: line)
    phase = .new
    hub.serials &+= 1
    serial = hub.serials
    spawner =
      evg_current().unsafelyUnwrapped.pointee.owner.map {
        Unmanaged<AnyGreenlet>.fromOpaque($0)._withUnsafeGuaranteedRef { $0.serial }
      } ?? 0
  }

  /// The greenlet that is the thread's own code.
  init(mainOf hub: Hub) {
    self.hub = hub
    file = "main"
    line = 0
    phase = .running
    serial = 0
    spawner = 0
    customName = "main"
    context = evg_current()
    context!.pointee.owner = Unmanaged.passUnretained(self).toOpaque()
  }

  // MARK: Who it is

  /// A small number, unique among the unfinished greenlets of its hub and used again later;
  /// 0 is the main greenlet, and one that has not been started.
  ///
  /// > gevent: `Greenlet.minimal_ident`.
  public var id: Int { Int(context?.pointee.id ?? smallID) }

  /// A name for reports; `greenlet-ID` until one is set.
  public var name: String {
    get { customName ?? "greenlet-\(id)" }
    set {
      customName = newValue
      context?.setName(newValue)
    }
  }

  /// Where it was spawned: `Module/File.swift:12`.
  public var spawnedAt: String { "\(file):\(line)" }

  /// The greenlet that spawned this one, if it is unfinished still.
  ///
  /// > gevent: `Greenlet.spawning_greenlet`, which is weak too.
  public var spawnedBy: AnyGreenlet? {
    phase == .finished ? nil : hub.greenlets.first { $0.serial == spawner && $0 !== self }
  }

  public var description: String {
    customName.map { "greenlet \(id) \"\($0)\"" } ?? "greenlet \(id)"
  }

  var descriptionWithOrigin: String {
    serial == 0 ? "the main greenlet" : "\(description) (spawned at \(spawnedAt))"
  }

  // MARK: How it stands

  /// Whether it has ended, whichever way.
  public var isReady: Bool { phase == .finished }

  /// Whether it has ended without failing. One that was killed counts as successful.
  public var isSuccessful: Bool { phase == .finished && (ending == nil || ending is GreenletExit) }

  /// Whether it has been started and has not ended.
  public var isActive: Bool { phase != .new && phase != .finished }

  /// What ended it: its own error, or what it was killed with. `nil` while it runs, and after it
  /// returned.
  public var error: (any Error)? { ending }

  /// The deepest use of its stack so far, in bytes, rounded up to a page. Stacks are pooled: it may
  /// be an earlier greenlet's. Zero before the first run and after the end.
  public var stackHighWater: Int { context.map { evg_stack_high_water($0) } ?? 0 }

  // MARK: Its life

  func makeContext(stackSize: Int?) -> UnsafeMutablePointer<evg_context> {
    let context = evg_context_new(
      { AnyGreenlet.enter($0) }, Unmanaged.passRetained(self).toOpaque(),
      stackSize ?? hub.stackSize)
    context.pointee.owner = context.pointee.object
    context.pointee.origin = UnsafeRawPointer(file.utf8Start).assumingMemoryBound(to: CChar.self)
    context.pointee.origin_line = line
    context.pointee.words.3 = evg_task_locals_copy()
    smallID = context.pointee.id
    if let customName { context.setName(customName) }
    self.context = context
    return context
  }

  private static func enter(_ context: UnsafeMutablePointer<evg_context>) {
    let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(context.pointee.object!).takeRetainedValue()
    if greenlet.phase == .scheduled { greenlet.begin(in: context) }
    if context.pointee.raw != nil { releaseRawWrapper(of: context) }
    evg_task_locals_drop()
  }

  private func begin(in context: UnsafeMutablePointer<evg_context>) {
    phase = .running
    if context.pointee.lacks_stack {
      finish(with: hub.stackUnavailable())
    } else {
      finish(with: runBody())
    }
  }

  /// Runs the body and keeps its value. Returns its error.
  func runBody() -> (any Error)? { nil }
  func dropBody() {}

  /// Marks the end, wakes who waits for it, reports an error.
  final func finish(with error: (any Error)?) {
    dropBody()
    phase = .finished
    ending = error
    context = nil
    due = DueErrors()
    joiners.signalAll()
    locals = [:]
    if !links.isEmpty { runLinks() }
    if let error, !(error is GreenletExit) { hub.reportError(error, of: self) }
  }

  final func finishMain() {
    context?.pointee.owner = nil
    phase = .finished
    context = nil
  }

  // MARK: What is thrown into it

  @inline(__always)
  final var hasDueError: Bool { due.isAny }

  final func takeDueError() -> any Error { due.take() }

  /// Throws `error` at the point where the greenlet waits, now or the next time it does. False if
  /// it does not wait in the hub.
  @discardableResult
  final func interrupt(with error: any Error) -> Bool {
    due.append(error)
    guard let waiting else { return false }
    _ = evg_wake(waiting)
    return true
  }

  final func interruptForEnd() {
    if phase == .running {
      if !due.hasKill { due.kill(with: GreenletExit()) }
      if let waiting { _ = evg_wake(waiting) }
    } else {
      cancelStart(with: GreenletExit())
    }
  }
}

extension AnyGreenlet: Hashable {
  public static func == (one: AnyGreenlet, other: AnyGreenlet) -> Bool { one === other }

  public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}

/// Errors that are to be thrown at a greenlet's next switch point: a kill first, then timeouts in
/// the order in which they ran out.
struct DueErrors {
  private var killer: (any Error)?
  private var others: [any Error]?
  private(set) var isAny = false

  var hasKill: Bool { killer != nil }

  mutating func kill(with error: any Error) {
    killer = error
    isAny = true
  }

  mutating func append(_ error: any Error) {
    others = (others ?? []) + [error]
    isAny = true
  }

  mutating func take() -> any Error {
    defer { isAny = killer != nil || others != nil }
    if let error = killer {
      killer = nil
      return error
    }
    let error = others!.removeFirst()
    if others!.isEmpty { others = nil }
    return error
  }

  /// Takes back a timeout whose block has ended.
  mutating func remove(_ timeout: Timeout) {
    others?.removeAll { $0 as? Timeout === timeout }
    if others?.isEmpty == true { others = nil }
    isAny = killer != nil || others != nil
  }
}

extension UnsafeMutablePointer<evg_context> {
  func setName(_ name: String) { evg_context_set_name(self, name) }
}
