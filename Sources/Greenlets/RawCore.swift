// Evergreen: the greenlet behind the handle: its phases, its end, and the delivery of messages.
// SPDX-License-Identifier: MIT

package import CGreenlet
import EvergreenBase

final class RawCore {
  enum Phase { case new, active, dead }

  let thread: RawThread
  let stackSize: Int
  /// Wraps a context that is not a raw greenlet's: the thread's own code, or a hub's greenlet.
  let isWrapper: Bool
  var phase: Phase
  var parent: RawGreenlet?
  var weakHandle: Unmanaged<RawGreenlet>?
  @exclusivity(unchecked) private(set) var context: UnsafeMutablePointer<evg_context>?
  private var body: ((Any?) throws -> Any?)?
  /// It was dropped and did not end by that.
  private var isAbandoned = false
  /// The switches of the thread when the body began, or when an error was last thrown in by hand.
  private var sentSince: UInt64 = 0
  private var message: RawMessage? {
    didSet { context?.pointee.has_message = message != nil }
  }

  init(
    thread: RawThread, parent: RawGreenlet, stackSize: Int, body: @escaping (Any?) throws -> Any?
  ) {
    self.thread = thread
    self.parent = parent
    self.stackSize = stackSize
    self.body = body
    isWrapper = false
    phase = .new
  }

  private init(wrapping context: UnsafeMutablePointer<evg_context>, thread: RawThread) {
    self.thread = thread
    self.context = context
    stackSize = 0
    isWrapper = true
    phase = .active
  }

  static var current: RawCore {
    if let raw = evg_current()?.pointee.raw {
      return Unmanaged<RawCore>.fromOpaque(raw).takeUnretainedValue()
    }
    let thread = RawThread.current
    let context = evg_current()!
    let core = RawCore(wrapping: context, thread: thread)
    context.pointee.raw = Unmanaged.passRetained(core).toOpaque()
    return core
  }

  /// Before a wrapped context ends: it can be switched to no more.
  static func releaseWrapper(of context: UnsafeMutablePointer<evg_context>) {
    guard let raw = context.pointee.raw else { return }
    context.pointee.raw = nil
    context.pointee.resumer = nil
    let core = Unmanaged<RawCore>.fromOpaque(raw).takeRetainedValue()
    core.phase = .dead
    core.context = nil
  }

  var handle: RawGreenlet {
    context?.pointee.is_orphan = false
    return weakHandle?.takeUnretainedValue() ?? RawGreenlet(handleOf: self)
  }

  // MARK: Switching

  /// Delivers `message` to `target`, or to who stands for it, from this core, the current one.
  func send(_ message: RawMessage, to target: RawCore) throws -> Any? {
    if target.thread !== thread {
      throw SwitchError("cannot switch to a greenlet of another thread")
    }
    if context!.pointee.lacks_stack {
      throw SwitchError("a greenlet that could get no stack cannot switch to another one")
    }
    if case .error(let error) = message, target.phase != .active {
      if target.phase == .dead, error is GreenletExit { return error }
      target.die()
    }
    var found: RawCore? = target
    while let one = found, one.phase == .dead { found = one.parent?.core }
    guard let destination = found else {
      throw SwitchError("the greenlet has ended, and so has every ancestor of it")
    }
    var message = message
    if target !== destination, case .error(let error) = message, error is GreenletExit {
      message = .value(error)
    }
    if destination === self { return try message.get() }
    try destination.prepare()
    destination.message = message
    if weakHandle == nil, !isWrapper { thread.orphans.append(self) }
    if thread.tracer != nil { destination.traced = (message, self) }
    context!.pointee.state = UInt8(EVG_SUSPENDED)
    evg_switch(destination.context!)
    return evg_must_arrive() ? try arrive() : nil
  }

  /// Switches here from the current one, with nothing to say.
  func resume() throws {
    if let context, evg_switch_plainly(context) {
      if evg_must_arrive() { _ = try RawCore.current.arrive() }
    } else {
      _ = try RawCore.current.send(.value(nil), to: self)
    }
  }

  private var traced: (RawMessage, RawCore)?

  /// Makes sure that control can go here.
  private func prepare() throws {
    switch phase {
    case .new:
      let context = evg_context_new({ RawCore.enter($0) }, stackSize)
      context.pointee.is_raw = true
      context.pointee.serial = .max  // no greenlet of the hub
      context.pointee.raw = Unmanaged.passRetained(self).toOpaque()
      context.pointee.words.3 = evg_task_locals_copy()
      self.context = context
      phase = .active
    case .active:
      guard context!.pointee.state == EVG_SUSPENDED else {
        if context!.pointee.state == EVG_LOST {
          throw SwitchError(
            "cannot switch to a greenlet that stayed in the parent when this process was forked")
        }
        let text = context!.pointee.wait_text.map { String(cString: $0) } ?? "its turn"
        throw SwitchError(
          "cannot switch to a greenlet that waits in its hub for \(text); wake it by what it waits for"
        )
      }
      if context!.pointee.is_deputized {
        throw SwitchError(
          "cannot switch to a greenlet for which a raw greenlet waits in the hub; wake that one by what it "
            + "waits for")
      }
    case .dead: break
    }
  }

  /// What the one that is switched to does first: tracing, the dropped ones, then its message.
  func arrive() throws -> Any? {
    let message = self.message
    self.message = nil
    if thread.hasDropped { thread.unwindDropped() }
    if case .error? = message { sentSince = evg_thread_self().pointee.switches }
    try trace(message)
    return try message?.get()
  }

  private func trace(_ message: RawMessage?) throws {
    guard let tracer = thread.tracer else { return }
    let origin = traced?.1 ?? self
    traced = nil
    var event = RawGreenlet.TraceEvent.switch
    if case .error? = message { event = .throw }
    do {
      try tracer(event, origin.handle, handle)
    } catch {
      thread.tracer = nil
      throw error
    }
  }

  // MARK: Beginning and end

  private static func enter(_ context: UnsafeMutablePointer<evg_context>) {
    let core = Unmanaged<RawCore>.fromOpaque(context.pointee.raw!).takeRetainedValue()
    core.run()
  }

  private func run() {
    var outcome: RawMessage
    if context!.pointee.lacks_stack {
      outcome = .error(SwitchError("no memory for the stack of a greenlet"))
    } else {
      sentSince = evg_thread_self().pointee.switches
      do {
        let first = try arrive()
        let body = self.body!
        self.body = nil
        outcome = .value(try body(first))
      } catch let exit as GreenletExit {
        outcome = .value(exit)
        postpone(exit)
      } catch {
        outcome = .error(error)
      }
    }
    finish(with: outcome)
  }

  /// To whoever gets it an exit is a value, and would be lost if the hub threw it to kill: nobody
  /// but this body knows of it.
  private func postpone(_ exit: any Error) {
    guard let postpone = evg_thread_self().pointee.postpone else { return }
    withUnsafePointer(to: exit) { postpone($0, sentSince) }
  }

  private func finish(with outcome: RawMessage) {
    evg_task_locals_drop()
    let context = self.context!
    let heir = self.heir()
    die()
    guard let heir else {
      if case .error(let error) = outcome {
        warn("a raw greenlet failed and has no living ancestor: \(error)")
      }
      return
    }
    heir.message = outcome
    if thread.tracer != nil { heir.traced = (outcome, self) }
    evg_context_set_successor(context, heir.context!)
    if heir.context!.pointee.is_raw { heir.context!.pointee.owner = context.pointee.owner }
  }

  /// The nearest ancestor that control can go to, else whoever switched here last.
  private func heir() -> RawCore? {
    var ancestor = parent?.core
    while let one = ancestor {
      if one.phase != .dead, (try? one.prepare()) != nil { return one }
      ancestor = one.parent?.core
    }
    guard let context, let resumer = context.pointee.resumer, let raw = resumer.pointee.raw,
      resumer.pointee.generation == context.pointee.resumer_generation,
      resumer.pointee.state == EVG_SUSPENDED
    else { return nil }
    return Unmanaged<RawCore>.fromOpaque(raw).takeUnretainedValue()
  }

  private func die() {
    phase = .dead
    body = nil
    message = nil
    context = nil
  }

  // MARK: Dropping

  func handleIsGone() {
    weakHandle = nil
    guard phase == .active, !isWrapper else { return }
    if thread.identity != evg_thread_self() {
      thread.droppedElsewhere.add(Unmanaged.passRetained(self))
    } else if context == evg_current() || context!.pointee.state != EVG_SUSPENDED {
      context!.pointee.is_orphan = true  // it is looked at when it switches away
    } else if evg_current()!.pointee.lacks_stack {
      thread.orphans.append(self)  // at the next switch: from here it could not come back
    } else {
      unwind()
    }
  }

  /// Throws ``GreenletExit`` into a suspended greenlet that nobody can reach any more.
  func unwind() {
    guard phase == .active, weakHandle == nil, !isAbandoned, let context,
      context.pointee.state == EVG_SUSPENDED
    else { return }
    parent = RawCore.current.handle  // so that control comes back here
    var handle = self.handle  // nor is it dropped again when its cleanup switches
    do {
      _ = try RawCore.current.send(.error(GreenletExit()), to: self)
    } catch {
      warn("a raw greenlet that was dropped threw while it was unwound: \(error)")
    }
    if phase == .active, context.pointee.state == EVG_SUSPENDED,
      isKnownUniquelyReferenced(&handle)
    {
      isAbandoned = true
      warn("a raw greenlet that was dropped caught its GreenletExit and went on; it stays as it is")
    }
  }

  /// Its thread ends, and its stack with it.
  func threadEnds() { die() }
}

/// Before a context that the hub owns ends.
package func releaseRawWrapper(of context: UnsafeMutablePointer<evg_context>) {
  RawCore.releaseWrapper(of: context)
}
