// Evergreen: calls back at times of day
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

/// Calls back at times of the wall clock, and follows when that clock is set.
///
/// All times are durations since 1970 began, in UTC.
///
/// ```swift
/// loop.periodic(every: .seconds(3600)).start { print("a full hour") }
/// ```
///
/// > gevent has none; it is libev's `ev_periodic`.
public final class PeriodicWatcher: Watcher {
  /// A time, or with ``interval`` the phase: calls come at `offset` + n × `interval`.
  /// A change holds from the next start or ``again()`` on.
  public var offset: Duration

  /// The time between calls; `.zero` for a single call at ``offset``. A change holds from the
  /// next start or ``again()`` on.
  ///
  /// - Precondition: Not negative.
  public var interval: Duration {
    willSet { PeriodicWatcher.check(newValue) }
  }

  private let reschedule: ((Duration) -> Duration)?

  init(
    _ loop: Loop, offset: Duration, interval: Duration, reschedule: ((Duration) -> Duration)?
  ) {
    PeriodicWatcher.check(interval)
    self.offset = offset
    self.interval = interval
    self.reschedule = reschedule
    super.init(loop, ev_periodic.self)
  }

  private static func check(_ interval: Duration) {
    require(interval >= .zero, "the interval of a periodic watcher is not negative")
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  /// Reckons the next time anew, after a change of ``offset``, ``interval`` or of what the
  /// rescheduling closure goes by. An inactive watcher stays inactive.
  public func again() {
    guard isActive, let raw = core.raw else { return }
    ev_periodic_stop(raw, periodic)
    startRaw(raw)
  }

  /// When the next call comes; `nil` while inactive.
  public var nextTime: Duration? {
    isActive ? Duration(seconds: evg_periodic_at(periodic)) : nil
  }

  private var periodic: UnsafeMutablePointer<ev_periodic> {
    storage.assumingMemoryBound(to: ev_periodic.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    // libev takes less for a busy loop.
    let interval = interval == .zero ? 0 : max(interval.inSeconds, 1.0 / 8192)
    evg_periodic_set(
      periodic, offset.inSeconds, interval, reschedule == nil ? nil : periodicReschedule)
    ev_periodic_start(loop, periodic)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_periodic_stop(loop, periodic)
  }

  fileprivate func rescheduled(_ now: Double) -> Double {
    guard let reschedule else { return now }
    // A time in the past would fail an assertion of libev.
    return max(reschedule(Duration(seconds: now)).inSeconds, now)
  }

  override var ownEvents: Int32 { Int32(EV_PERIODIC) }
}

private func periodicReschedule(
  _ periodic: UnsafeMutablePointer<ev_periodic>, _ now: Double
) -> Double {
  guard let data = periodic.pointee.data else { return now }
  return Unmanaged<PeriodicWatcher>.fromOpaque(data).takeUnretainedValue().rescheduled(now)
}
