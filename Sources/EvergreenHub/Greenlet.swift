// Evergreen: a greenlet and its result.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// A unit of work that runs beside others on one thread, and waits without blocking them.
///
/// ```swift
/// let worker = spawn { try fetch(url) }
/// let page = try worker.get(timeout: .seconds(5))
/// ```
///
/// Made and started by `spawn`, or made here and started with ``start()`` or ``start(after:)``. It
/// runs on the thread that made it, when those that were ready before have had their turn.
///
/// > gevent: `gevent.Greenlet`.
public final class Greenlet<Success>: AnyGreenlet {
  /// Makes a greenlet that waits to be started.
  ///
  /// - Parameters:
  ///   - stackSize: Bytes of stack, rounded up to a power of two; `nil` for ``Hub/stackSize``.
  ///   - file: Where it is made, for reports.
  ///   - line: Where it is made, for reports.
  ///   - body: What it runs. An error that it throws ends this greenlet alone.
  @inlinable
  public init(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) {
    super.init(stackSize: stackSize, file: file, line: line)
    let runner = Runner { unsafeDowncast($0, to: Greenlet<Success>.self).runBody() }
    withUnsafeMutableBytes(of: &slot) {
      _ = $0.baseAddress!.initializeMemory(as: Body.self, to: Body(runner: runner, call: body))
    }
    content = .body
  }

  @usableFromInline
  struct Body {
    @usableFromInline let runner: Runner
    @usableFromInline let call: () throws -> Success

    @inlinable
    init(runner: Runner, call: @escaping () throws -> Success) {
      self.runner = runner
      self.call = call
    }
  }

  deinit {
    switch content {
    case .nothing, .error: break
    case .body: dropBody()
    case .value: dropValue()
    }
  }

  override func dropValue() {
    guard content == .value else { return }
    content = .nothing
    if _isPOD(Success.self), Self.fitsSlot { return }
    withSlot(of: Success.self, isBoxed: !Self.fitsSlot) {
      $0.deinitialize(count: 1)
      if !Self.fitsSlot { $0.deallocate() }
    }
  }

  /// What the slot holds: a `T` itself, or the address of one.
  @inlinable
  @inline(__always)
  func withSlot<T, R>(
    of type: T.Type, isBoxed: Bool = false, _ use: (UnsafeMutablePointer<T>) -> R
  ) -> R {
    if isBoxed { return use(UnsafeMutablePointer(bitPattern: slot.0)!) }
    return withUnsafeMutableBytes(of: &slot) {
      use($0.baseAddress!.assumingMemoryBound(to: T.self))
    }
  }

  @inlinable
  func runBody() -> (any Error)? {
    let body = withSlot(of: Body.self) { $0.move() }
    content = .nothing
    do {
      let value = try body.call()
      if !Self.fitsSlot {
        slot.0 = UInt(bitPattern: UnsafeMutablePointer<Success>.allocate(capacity: 1))
      }
      withSlot(of: Success.self, isBoxed: !Self.fitsSlot) { $0.initialize(to: value) }
      content = .value
      return nil
    } catch {
      return error
    }
  }

  override func dropBody() {
    guard content == .body else { return }
    content = .nothing
    withSlot(of: Body.self) { _ = $0.deinitialize(count: 1) }
  }

  // MARK: Value

  /// What the body returned; `nil` before, and when it failed or was killed.
  public var value: Success? {
    content == .value ? withSlot(of: Success.self, isBoxed: !Self.fitsSlot) { $0.pointee } : nil
  }

  /// Whether a value lives in the object itself; a larger one has memory of its own.
  @inlinable
  static var fitsSlot: Bool {
    MemoryLayout<Success>.size <= MemoryLayout<Slot>.size
      && MemoryLayout<Success>.alignment <= MemoryLayout<Slot>.alignment
  }

  // MARK: Start

  /// Lets it run when its turn comes. Nothing happens if it has been started already.
  ///
  /// > Switch point: No. The new greenlet never runs before the caller gives way.
  ///
  /// > gevent: `Greenlet.start()`.
  ///
  /// - Returns: The greenlet itself.
  @discardableResult
  public func start() -> Self {
    guard phase == .new || phase == .delayed else { return self }
    checkIsOnItsHub()
    if let extras {
      extras.delay?.cancel()
      extras.delay = nil
    }
    schedule()
    return self
  }

  /// Lets it run after a while. Until then it can be killed, and then it never runs.
  ///
  /// - Parameter delay: From now on; zero or less starts it when its turn comes.
  /// - Returns: The greenlet itself.
  ///
  /// > gevent: `Greenlet.start_later(seconds)`.
  @discardableResult
  public func start(after delay: Duration) -> Self {
    guard phase == .new else { return self }
    checkIsOnItsHub()
    phase = .delayed
    _ = makeContext()  // now: it inherits what is bound here; and it retains
    ownExtras.delay = StartTimer(on: hub, after: delay) { [unowned self] in start() }
    return self
  }

  // MARK: Result

  /// Waits for the end and returns what the body returned.
  ///
  /// - Parameter timeout: The longest wait. `nil` waits for ever; `.zero` only looks.
  /// - Throws: The body's error; ``GreenletExit`` if it was killed; a ``Timeout`` if it has not
  ///   ended in time; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless the greenlet has ended already.
  ///
  /// > gevent: `Greenlet.get(block=True, timeout=None)`, which returns the `GreenletExit` of one
  /// > that was killed; a typed result has no room for it.
  ///
  /// - Returns: What the body returned.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func get(timeout: Duration? = nil) throws -> Success {
    guard try join(timeout: timeout) else { throw Timeout(of: timeout) }
    if let error { throw error }
    return withSlot(of: Success.self, isBoxed: !Self.fitsSlot) { $0.pointee }
  }
}

extension Greenlet where Success == Never {
  /// The greenlet that is running; the main one in code that was not spawned.
  ///
  /// - Precondition: Not called on the hub's own stack.
  ///
  /// > gevent: `gevent.getcurrent()`.
  public static var current: AnyGreenlet {
    _ = Hub.current
    guard let current = AnyGreenlet.currentIfAny else {
      fatal("the hub's own stack runs no greenlet; spawn one from the callback")
    }
    return current
  }

  /// Lets the others that are ready run, then goes on.
  ///
  /// - Throws: What is thrown into the caller: ``GreenletExit``, or the ``Timeout`` of an
  ///   enclosing block.
  ///
  /// > Switch point: Yes, if any other greenlet is ready.
  ///
  /// > gevent: `gevent.sleep(0)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func yield() throws {
    if evg_thread_self().pointee.hub_object == nil { _ = Hub.current }
    let context = evg_current().unsafelyUnwrapped
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
    evg_yield()
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
  }
}

extension AnyGreenlet {
  /// The one that is running; `nil` on a hub's own stack and on a thread without a hub.
  package static var currentIfAny: AnyGreenlet? {
    evg_current()?.pointee.owner.map {
      Unmanaged<AnyGreenlet>.fromOpaque($0).takeUnretainedValue()
    }
  }
}

/// Makes a greenlet and starts it.
///
/// ```swift
/// let sum = spawn { try left.get() + right.get() }
/// ```
///
/// Children start in the order in which they were spawned, never before the caller gives way. The
/// child inherits the task locals that the caller sees.
///
/// - Parameters:
///   - stackSize: Bytes of stack, rounded up to a power of two; `nil` for ``Hub/stackSize``.
///   - file: Where it is spawned, for reports.
///   - line: Where it is spawned, for reports.
///   - body: What it runs.
/// - Returns: The greenlet, which has not run yet.
/// - Precondition: Not called by a task of Swift's cooperative pool; see ``Hub/current``.
///
/// > Switch point: No.
///
/// > gevent: `gevent.spawn(function)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
@inlinable
public func spawn<Success>(
  stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
  _ body: @escaping () throws -> Success
) -> Greenlet<Success> {
  let greenlet = Greenlet(stackSize: stackSize, file: file, line: line, body)
  greenlet.schedule()
  return greenlet
}

/// Makes a greenlet that starts after a while.
///
/// - Parameters:
///   - delay: From now on; zero or less starts it when its turn comes.
///   - stackSize: Bytes of stack, rounded up to a power of two; `nil` for ``Hub/stackSize``.
///   - file: Where it is spawned, for reports.
///   - line: Where it is spawned, for reports.
///   - body: What it runs.
/// - Returns: The greenlet, which has not run yet.
///
/// > Switch point: No.
///
/// > gevent: `gevent.spawn_later(seconds, function)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func spawn<Success>(
  after delay: Duration, stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
  _ body: @escaping () throws -> Success
) -> Greenlet<Success> {
  Greenlet(stackSize: stackSize, file: file, line: line, body).start(after: delay)
}

@available(*, unavailable, renamed: "spawn(after:_:)")
public func spawnLater<Success>(
  _ delay: Duration, _ body: @escaping () throws -> Success
) -> Greenlet<Success> { fatalError() }
