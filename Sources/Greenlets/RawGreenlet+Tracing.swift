// Evergreen: watching the switches of raw greenlets.
// SPDX-License-Identifier: MIT

extension RawGreenlet {
  /// How control came to a greenlet.
  public enum TraceEvent: Sendable { case `switch`, `throw` }

  /// Called in the target, after each transfer between raw greenlets.
  public typealias Tracer = (
    _ event: TraceEvent, _ origin: RawGreenlet, _ target: RawGreenlet
  ) throws -> Void

  /// Sets the tracer of this thread; `nil` removes it. Returns the one before.
  ///
  /// A tracer that throws is removed, and its error is thrown in the target.
  ///
  /// > gevent: `greenlet.settrace(callback)`.
  @discardableResult
  public static func setTracer(_ tracer: Tracer?) -> Tracer? {
    let thread = RawThread.current
    let before = thread.tracer
    thread.tracer = tracer
    return before
  }

  /// The tracer of this thread.
  ///
  /// > gevent: `greenlet.gettrace()`.
  public static var tracer: Tracer? { RawThread.current.tracer }
}
