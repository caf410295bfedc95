// Evergreen: a greenlet and its result.
// SPDX-License-Identifier: MIT

import CGreenlet
import Greenlets

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
  private var body: (() throws -> Success)?
  private let stackSize: Int?
  private var delay: StartTimer?

  /// What the body returned; `nil` before, and when it failed or was killed.
  public private(set) var value: Success?

  /// Makes a greenlet that waits to be started.
  ///
  /// - Parameters:
  ///   - stackSize: Bytes of stack, rounded up to a power of two; `nil` for ``Hub/stackSize``.
  ///   - body: What it runs. An error that it throws ends this greenlet alone.
  public init(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) {
    self.body = body
    self.stackSize = stackSize
    super.init(hub: Hub.current, file: file, line: line)
  }

  // MARK: Start

  /// Lets it run when its turn comes. Nothing happens if it has been started already.
  ///
  /// > Switch point: No. The new greenlet never runs before the caller gives way.
  ///
  /// > gevent: `Greenlet.start()`.
  @discardableResult
  public func start() -> Self {
    guard phase == .new || phase == .delayed else { return self }
    if !hub.isCurrent { fatal(foreignThreadAdvice) }
    delay?.cancel()
    delay = nil
    phase = .scheduled
    evg_ready(context ?? makeContext(stackSize: stackSize))
    return self
  }

  /// Lets it run after a while. Until then it can be killed, and then it never runs.
  ///
  /// > gevent: `Greenlet.start_later(seconds)`.
  @discardableResult
  public func start(after delay: Duration) -> Self {
    guard phase == .new else { return self }
    if !hub.isCurrent { fatal(foreignThreadAdvice) }
    phase = .delayed
    _ = makeContext(stackSize: stackSize)  // now: it inherits what is bound here; and it retains
    self.delay = StartTimer(on: hub, after: delay) { [unowned self] in start() }
    return self
  }

  override func runBody() -> (any Error)? {
    guard let body else { return nil }
    self.body = nil
    do {
      value = try body()
      return nil
    } catch {
      return error
    }
  }

  override func dropBody() {
    body = nil
    delay?.cancel()
    delay = nil
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
  public func get(timeout: Duration? = nil) throws -> Success {
    guard try join(timeout: timeout) else { throw Timeout(of: timeout) }
    if let ending { throw ending }
    return value.unsafelyUnwrapped
  }
}

extension Greenlet where Success == Never {
  /// The greenlet that is running; the main one in code that was not spawned.
  ///
  /// - Precondition: Not called on the hub's own stack.
  ///
  /// > gevent: `gevent.getcurrent()`.
  public static var current: AnyGreenlet {
    guard let current = AnyGreenlet.currentIfAny(on: Hub.current) else {
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
  public static func yield() throws {
    let greenlet = try Hub.current.blockingGreenlet()
    if greenlet.hasDueError { throw greenlet.takeDueError() }
    evg_yield()
    if greenlet.hasDueError { throw greenlet.takeDueError() }
  }
}

extension AnyGreenlet {
  static func currentIfAny(on hub: Hub) -> AnyGreenlet? {
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
///   - body: What it runs.
/// - Precondition: Not called by a task of Swift's cooperative pool; see ``Hub/current``.
///
/// > Switch point: No.
///
/// > gevent: `gevent.spawn(function)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
@discardableResult
public func spawn<Success>(
  stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
  _ body: @escaping () throws -> Success
) -> Greenlet<Success> {
  Greenlet(stackSize: stackSize, file: file, line: line, body).start()
}

/// Makes a greenlet that starts after a while.
///
/// - Parameter delay: From now on; zero or less starts it when its turn comes.
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
