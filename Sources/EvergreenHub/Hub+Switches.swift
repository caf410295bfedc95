// Evergreen: watching the switches of a hub.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// One switch between greenlets, or between one and the hub.
public struct SwitchEvent: Sendable, CustomStringConvertible {
  /// Who takes part.
  public struct Party: Hashable, Sendable, CustomStringConvertible {
    /// The greenlet's ``AnyGreenlet/id``; `nil` for the hub.
    public let id: Int?

    init(_ context: UnsafePointer<evg_context>) {
      id = context.pointee.serial == .max ? nil : Int(context.pointee.id)
    }

    public var description: String {
      id.map { $0 == 0 ? "the main greenlet" : "greenlet \($0)" } ?? "the hub"
    }
  }

  /// What the one that leaves does.
  public enum Leave: Sendable { case yields, waits, ends }

  /// When, on the hub's clock.
  public let time: Duration
  /// Who has run.
  public let from: Party
  /// Why it runs no more.
  public let leave: Leave
  /// Who runs next.
  public let to: Party

  init(from: UnsafePointer<evg_context>, to: UnsafePointer<evg_context>, at time: UInt64) {
    self.time = .nanoseconds(time)
    self.from = Party(from)
    self.to = Party(to)
    leave =
      switch Int(from.pointee.state) {
      case EVG_READY: .yields
      case EVG_FINISHED: .ends
      default: .waits
      }
  }

  /// `greenlet 3 waits, greenlet 4 runs`.
  public var description: String { "\(from) \(leave), \(to) runs" }
}

extension Hub {
  /// Calls `body` at each switch on this hub, until it is stopped: on the stack of the one that leaves, so
  /// it must be short, and must not wait.
  ///
  /// > gevent: `greenlet.settrace(callback)`; for switches by hand there is `RawGreenlet.setTracer`.
  ///
  /// - Parameter body: Is told of the switch.
  /// - Returns: What stops it, also when it goes.
  public func traceSwitches(_ body: @escaping (SwitchEvent) -> Void) -> SwitchTracer {
    checkIsCurrent()
    let tracer = SwitchTracer(of: self)
    tracers.append((ObjectIdentifier(tracer), body))
    evg_thread_self().pointee.on_switch = { Hub.currentIfAny?.tellTracers($0, $1) }
    return tracer
  }

  fileprivate func remove(_ tracer: SwitchTracer) {
    tracers.removeAll { $0.tracer == ObjectIdentifier(tracer) }
    if tracers.isEmpty { evg_thread_self().pointee.on_switch = nil }
  }

  private func tellTracers(_ from: UnsafePointer<evg_context>, _ to: UnsafePointer<evg_context>) {
    let event = SwitchEvent(from: from, to: to, at: readClock())
    for (_, call) in tracers { call(event) }
  }
}

/// Lets a function be told of switches as long as it is held; made by ``Hub/traceSwitches(_:)``.
public final class SwitchTracer {
  private weak var hub: Hub?

  init(of hub: Hub) { self.hub = hub }

  /// Ends it.
  public func stop() {
    hub?.remove(self)
    hub = nil
  }

  deinit { stop() }
}

/// The latest switches of a hub.
///
/// ```swift
/// let log = SwitchLog(last: 1_000)
/// try work()
/// for event in log.events { print(event) }
/// ```
public final class SwitchLog {
  private var ring: [SwitchEvent] = []
  private var next = 0
  private var tracer: SwitchTracer?

  /// How many switches there have been since it was made.
  public private(set) var count = 0

  /// Begins to note the switches of the calling thread's hub.
  ///
  /// - Parameter capacity: How many it keeps, 1 or more.
  public init(last capacity: Int) {
    require(capacity > 0, "a SwitchLog cannot keep \(capacity) switches")
    ring.reserveCapacity(capacity)
    tracer = Hub.current.traceSwitches { [unowned self] event in
      count += 1
      if ring.count < capacity { return ring.append(event) }
      ring[next] = event
      next = (next + 1) % capacity
    }
  }

  /// The latest switches, the oldest first.
  public var events: [SwitchEvent] { Array(ring[next...] + ring[..<next]) }

  /// Ends it; what it has noted stays.
  public func stop() { tracer?.stop() }
}

/// Runs `body` and makes sure that it lets others run.
///
/// ```swift
/// try assertSwitches(atLeastEvery: .milliseconds(50)) { try handle(request) }
/// ```
///
/// - Parameters:
///   - longest: The longest time that the calling greenlet may run without giving way; `nil` if it need
///     only give way once.
///   - body: What is looked at.
/// - Returns: What `body` returns.
/// - Throws: ``DidNotSwitch``; what `body` throws.
///
/// > Switch point: If `body` is one.
///
/// > gevent: `gevent.util.assert_switches(max_blocking_time)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func assertSwitches<R>(
  atLeastEvery longest: Duration? = nil, _ body: () throws -> R
) throws -> R {
  let hub = Hub.current
  let me = Greenlet.current.id
  let before = evg_thread_self().pointee.switches
  var (began, worst) = (Duration.nanoseconds(hub.readClock()), Duration.zero)
  let tracer = longest.map { _ in
    hub.traceSwitches { event in
      if event.from.id == me { worst = max(worst, event.time - began) }
      if event.to.id == me { began = event.time }
    }
  }
  let result = try body()
  tracer?.stop()
  // One that is alone and yields has given way, though there was no switch.
  if evg_thread_self().pointee.switches == before { throw DidNotSwitch(blocked: nil) }
  if let longest {
    worst = max(worst, .nanoseconds(hub.readClock()) - began)
    if worst > longest { throw DidNotSwitch(blocked: worst) }
  }
  return result
}

/// What ``assertSwitches(atLeastEvery:_:)`` looked at has kept the hub to itself.
public struct DidNotSwitch: Error, Hashable, Sendable, CustomStringConvertible {
  /// How long at a stretch; `nil` if it did not give way at all.
  public let blocked: Duration?

  public var description: String {
    blocked.map { "the block kept its hub to itself for \($0)" }
      ?? "the block did not let others run"
  }
}
