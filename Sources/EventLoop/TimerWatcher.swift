// Evergreen: calls back after a while
// SPDX-License-Identifier: MIT

import CLibev

/// Calls back after a while, once or again and again, on the monotonic clock.
///
/// A timer never fires early. It may be late by what the callbacks before it take, and by the
/// millisecond to which `epoll_wait(2)` rounds.
///
/// > gevent: `loop.timer(after, repeat)`. Evergreen counts from the present, not from the time of
/// > the last poll, as gevent does with `update=True`.
public final class TimerWatcher: Watcher {
  /// How long after ``start(_:)`` the first call comes; zero and less mean the next pass.
  /// A change holds from the next start on.
  public var after: Duration

  /// The time from one call to the next; `.zero` for a single call. Calls that could not be made
  /// in time are left out, and there is no drift. A change holds from the next call on.
  public var repeating: Duration {
    didSet { timer.pointee.repeat = max(repeating.inSeconds, 0) }
  }

  init(_ loop: Loop, after: Duration, repeating: Duration) {
    self.after = after
    self.repeating = repeating
    super.init(loop, ev_timer.self)
  }

  /// Starts the timer; gives an active one another callback, and leaves its time as it is.
  public func start(_ callback: @escaping () throws -> Void) {
    delay = after
    activate(callback)
  }

  /// Begins the wait anew, with ``repeating`` instead of ``after``; without a repetition, stops.
  ///
  /// This is what an idle timeout wants: one call per activity, nothing else.
  ///
  /// - Parameter callback: What to call from now on; `nil` keeps that of an active timer, and an
  ///   inactive timer stays inactive.
  public func again(_ callback: (() throws -> Void)? = nil) {
    guard repeating > .zero else { return stop() }
    delay = repeating
    if isActive {
      if let raw = core.raw {
        ev_timer_stop(raw, timer)
        startRaw(raw)
      }
      if let callback { activate(callback) }
    } else if let callback {
      activate(callback)
    }
  }

  /// The time until the next call; `nil` while inactive, not above zero when it is due.
  public var remaining: Duration? {
    guard isActive, let raw = core.raw else { return nil }
    return Duration(seconds: ev_timer_remaining(raw, timer) - drift(raw))
  }

  private var delay = Duration.zero
  /// When the next call is due, in nanoseconds of the monotonic clock.
  private var due: UInt64 = 0

  private var timer: UnsafeMutablePointer<ev_timer> {
    storage.assumingMemoryBound(to: ev_timer.self)
  }

  /// The seconds since the last poll.
  private func drift(_ loop: OpaquePointer) -> Double {
    evg_seconds(evg_read_clock()) - evg_monotonic_seconds(loop)
  }

  override func startRaw(_ loop: OpaquePointer) {
    arm(loop, at: evg_read_clock().saturating(adding: delay.clampedNanoseconds))
  }

  private func arm(_ loop: OpaquePointer, at deadline: UInt64) {
    due = deadline
    // Added up in whole nanoseconds, and rounded up after that.
    evg_timer_set(
      timer, evg_seconds(deadline) - evg_monotonic_seconds(loop), max(repeating.inSeconds, 0))
    ev_timer_start(loop, timer)
  }

  /// libev would make up for a call that comes too late by one at once, and count from there.
  override func willCall(_ events: Int32) -> Bool {
    let period = repeating.clampedNanoseconds
    guard isActive, period > 0, let raw = core.raw else { return true }
    let now = evg_read_clock()
    due = due.saturating(adding: period)
    if due <= now {
      ev_timer_stop(raw, timer)
      arm(raw, at: due.saturating(adding: ((now - due) / period + 1) * period))
    }
    return true
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_timer_stop(loop, timer)
  }

  override var ownEvents: Int32 { Int32(EV_TIMER) }
}
