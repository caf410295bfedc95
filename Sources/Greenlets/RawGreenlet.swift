// Evergreen: greenlets that are switched by hand, as in the greenlet library.
// SPDX-License-Identifier: MIT
//
// A raw greenlet is two objects. `RawGreenlet` is the handle that users hold; when the last one
// goes while the body is unfinished, the body must be unwound, for Swift cannot drop a stack that
// holds references. `RawCore` is the greenlet itself, held by its running body, by its children
// and by the handle. So the end of the handle is an event, and not the end of the memory.
//
// The hub's greenlets, and the thread's own code, take part through a core that wraps their
// context: whoever asks for `RawGreenlet.current` there gets it, and it is where a raw greenlet
// that was made there goes when it ends.

import CGreenlet
import EvergreenBase

/// A flow of control with a stack of its own, switched by hand.
///
/// ```swift
/// final class Pair { var first: RawGreenlet!, second: RawGreenlet! }
/// let pair = Pair()
/// pair.first = RawGreenlet { greeting in
///   print(try pair.second.switch("\(greeting ?? "") world") ?? "")
///   return nil
/// }
/// pair.second = RawGreenlet { text in
///   print(text ?? "")
///   return try pair.first.switch(42)
/// }
/// try pair.first.switch("hello")  // prints "hello world", then 42
/// ```
///
/// A greenlet belongs to the thread that made it. When its body returns, the value goes to its
/// ``parent``, and control with it; when it throws, the error is thrown there. When the last
/// reference to an unfinished greenlet goes away, ``GreenletExit`` is thrown into it, so that its
/// `defer` blocks run.
///
/// > gevent: `greenlet.greenlet`.
public final class RawGreenlet {
  let core: RawCore

  /// Makes a greenlet that starts at the first ``switch(_:)``, whose value the body is given.
  ///
  /// - Parameters:
  ///   - parent: Where control goes when the body ends. The default is the maker.
  ///   - stackSize: Bytes of stack, rounded up to a power of two; only touched pages cost memory.
  ///   - body: What it runs. The returned value goes to the parent.
  /// - Precondition: `parent` belongs to the calling thread.
  public init(
    parent: RawGreenlet? = nil, stackSize: Int = 256 * 1024,
    _ body: @escaping (Any?) throws -> Any?
  ) {
    let thread = RawThread.current
    let parent = parent ?? RawCore.current.handle
    if parent.core.thread !== thread {
      fatal("the parent of a raw greenlet must belong to the thread that makes the greenlet")
    }
    core = RawCore(thread: thread, parent: parent, stackSize: stackSize, body: body)
    core.weakHandle = Unmanaged.passUnretained(self)
  }

  init(handleOf core: RawCore) {
    self.core = core
    core.weakHandle = Unmanaged.passUnretained(self)
  }

  deinit { core.handleIsGone() }

  /// The greenlet that is running, a wrapper for code that is not a raw greenlet.
  public static var current: RawGreenlet { RawCore.current.handle }

  /// Where control goes when this greenlet ends; `nil` for the thread's own code.
  public var parent: RawGreenlet? { core.parent }

  /// Makes another greenlet the parent.
  ///
  /// - Throws: ``SwitchError`` if that would close a cycle, if the greenlet belongs to another
  ///   thread, or if this is the thread's own code, which has no parent.
  public func setParent(_ parent: RawGreenlet) throws {
    if parent.core.thread !== core.thread {
      throw SwitchError("the parent of a greenlet must belong to the same thread")
    }
    if core.isWrapper { throw SwitchError("the thread's own code cannot be given a parent") }
    var ancestor: RawCore? = parent.core
    while let one = ancestor {
      if one === core { throw SwitchError("a greenlet cannot be its own ancestor") }
      ancestor = one.parent?.core
    }
    core.parent = parent
  }

  /// Whether the body has ended, or was killed before it began.
  public var isDead: Bool { core.phase == .dead }

  /// Whether the body has begun and not ended.
  public var isActive: Bool { core.phase == .active }

  /// Runs this greenlet now, until someone switches back to the caller.
  ///
  /// A greenlet that has not run begins with `value`; one that is suspended returns `value` from
  /// its own `switch`; instead of a dead one its nearest living ancestor gets it. Switching to
  /// oneself returns `value`.
  ///
  /// - Returns: What the one that switches back passes, or what a child returned.
  /// - Throws: What a child threw when it ended, or what was thrown in with ``throw(_:)``;
  ///   ``SwitchError`` if this greenlet belongs to another thread, or waits in its hub.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `greenlet.switch(*args)`.
  @discardableResult
  @inlinable
  public func `switch`(_ value: Any? = nil) throws -> Any? {
    if value == nil {
      switch switchPlainly() {
      case .nothingCame: return nil
      case .somethingCame: return try arrive()
      case .refused: break
      }
    }
    return try send(value)
  }

  @usableFromInline
  enum PlainSwitch { case nothingCame, somethingCame, refused }

  // A switch with nothing to say and nobody to watch it needs no more than this.
  @usableFromInline
  func switchPlainly() -> PlainSwitch {
    guard let context = core.context, evg_switch_plainly(context) else { return .refused }
    return evg_must_arrive() ? .somethingCame : .nothingCame
  }

  @usableFromInline
  func arrive() throws -> Any? { try RawCore.current.arrive() }

  @usableFromInline
  func send(_ value: Any?) throws -> Any? { try RawCore.current.send(.value(value), to: core) }

  /// Throws `error` at the point where this greenlet is suspended, and runs it.
  ///
  /// One that has not begun dies without running. A dead one passes the error to its nearest
  /// living ancestor, but swallows ``GreenletExit``.
  ///
  /// - Returns, throws: As ``switch(_:)``.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `greenlet.throw(*exc_info)`.
  @discardableResult
  public func `throw`(_ error: any Error = GreenletExit()) throws -> Any? {
    try RawCore.current.send(.error(error), to: core)
  }
}

/// What travels with a switch.
enum RawMessage {
  case value(Any?)
  case error(any Error)

  func get() throws -> Any? {
    switch self {
    case .value(let value): return value
    case .error(let error): throw error
    }
  }
}

/// What the raw greenlets of one thread share.
final class RawThread {
  let identity = evg_thread_self()
  var tracer: RawGreenlet.Tracer? { didSet { updateAttention() } }
  /// Cores whose last handle went while they ran: unwound once they have switched away.
  var orphans: [RawCore] = [] { didSet { updateAttention() } }
  let droppedElsewhere = DroppedCores()

  static var current: RawThread {
    if let object = evg_thread_self().pointee.raw_object {
      return Unmanaged<RawThread>.fromOpaque(object).takeUnretainedValue()
    }
    attachThread()
    let thread = RawThread()
    evg_thread_self().pointee.raw_object = Unmanaged.passRetained(thread).toOpaque()
    evg_set_exit_hooks(nil) { RawThread.threadEnds() }
    return thread
  }

  private static func threadEnds() {
    guard let object = evg_thread_self().pointee.raw_object else { return }
    let thread = Unmanaged<RawThread>.fromOpaque(object).takeRetainedValue()
    thread.unwindDropped()
    RawCore.releaseWrapper(of: &evg_thread_self().pointee.main)
    thread.droppedElsewhere.close()
    // What is suspended still can be switched to no more; whoever holds it must find that out.
    evg_contexts(
      { context, _ in
        guard context.pointee.is_raw, let raw = context.pointee.raw else { return }
        Unmanaged<RawCore>.fromOpaque(raw).takeUnretainedValue().threadEnds()
      }, nil)
    evg_thread_self().pointee.raw_object = nil
  }

  var hasDropped: Bool { !orphans.isEmpty || droppedElsewhere.isPending }

  func unwindDropped() {
    while let core = orphans.popLast() ?? droppedElsewhere.take() { core.unwind() }
    updateAttention()
  }

  private func updateAttention() {
    droppedElsewhere.setAttention(orElse: tracer != nil || !orphans.isEmpty)
  }
}
