// Evergreen: figures about a hub, for dashboards.
// SPDX-License-Identifier: MIT

import CGreenlet
import CLibev
import EvergreenBase

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Figures about a hub at one moment.
public struct HubMetrics: Hashable, Sendable, CustomStringConvertible {
  /// Greenlets that have been started and have not ended, the main one not counted.
  public let greenlets: Int
  /// Those of them that are ready to run.
  public let ready: Int
  /// Greenlets made since the hub began.
  public let spawned: UInt64
  /// Switches since the hub began.
  public let switches: UInt64
  /// Looks at the event loop since the hub began.
  public let polls: UInt64
  /// How late the last look at the time was, if ``Hub/measureLag(every:)`` is on: how long what was due
  /// had to wait.
  public let lag: Duration?
  /// The worst of these since the one before these metrics.
  public let worstLag: Duration?

  /// `greenlets 3, ready 1, ...`.
  public var description: String {
    var text =
      "greenlets \(greenlets), ready \(ready), spawned \(spawned), switches \(switches), "
      + "polls \(polls)"
    if let lag, let worstLag { text += ", lag \(lag), worst lag \(worstLag)" }
    return text
  }
}

extension Hub {
  /// What this hub is doing, in figures. Each call begins a new ``HubMetrics/worstLag``.
  public var metrics: HubMetrics {
    checkIsCurrent()
    let thread = evg_thread_self().pointee
    defer { lagMeter?.worst = .zero }
    return HubMetrics(
      greenlets: greenlets.count - (main.isReady ? 0 : 1), ready: Int(thread.ready_count),
      spawned: thread.serials, switches: thread.switches, polls: passes,
      lag: lagMeter?.last, worstLag: lagMeter?.worst)
  }

  /// Measures regularly how late what is due is served, for ``metrics``.
  ///
  /// Does not keep the hub from ending.
  ///
  /// - Parameter interval: From one measurement to the next, more than zero; `nil` stops it.
  public func measureLag(every interval: Duration? = .milliseconds(100)) {
    checkIsCurrent()
    require(interval ?? .seconds(1) > .zero, "cannot measure every \(interval ?? .zero)")
    lagMeter?.timer.stop()
    lagMeter = interval.map { LagMeter(on: self, every: $0) }
  }

  /// Tells when the process takes more memory than it should, and when that is over.
  ///
  /// ```swift
  /// let watch = hub.watchMemory(above: 512 << 20) { event in log("\(event)") }
  /// ```
  ///
  /// Does not keep the hub from ending.
  ///
  /// - Parameters:
  ///   - limit: Bytes of resident memory.
  ///   - interval: From one look to the next, more than zero.
  ///   - body: Runs in a greenlet of its own when the limit has been exceeded, and when it is no longer.
  /// - Returns: What stops it, also when it goes.
  ///
  /// > gevent: `GEVENT_MONITOR_MEMORY_MAX` and `GEVENT_MONITOR_MEMORY_PERIOD`, with the events
  /// > `MemoryUsageThresholdExceeded` and `MemoryUsageUnderThreshold`.
  public func watchMemory(
    above limit: Int, every interval: Duration = .seconds(5),
    _ body: @escaping (MemoryEvent) throws -> Void
  ) -> MemoryWatch {
    checkIsCurrent()
    require(interval > .zero, "cannot look every \(interval)")
    return MemoryWatch(on: self, above: limit, every: interval, body)
  }

  /// Bytes of memory that the process has resident; `nil` where that cannot be told.
  ///
  /// > gevent: `psutil.Process.memory_full_info()`.
  public static var residentMemory: Int? {
    let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    let text = String(unsafeUninitializedCapacity: 128) { max(read(file, $0.baseAddress, 128), 0) }
    let numbers = text.split(separator: " ")
    guard numbers.count > 1, let pages = Int(numbers[1]) else { return nil }
    return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
  }
}

/// The memory of the process has gone above a limit, or below it again.
public struct MemoryEvent: Hashable, Sendable, CustomStringConvertible {
  /// Whether it is above.
  public let isExceeded: Bool
  /// Bytes that are resident.
  public let resident: Int
  /// The limit, in bytes.
  public let limit: Int

  public var description: String {
    "\(resident) bytes of memory are resident, "
      + (isExceeded ? "more than \(limit)" : "no longer more than \(limit)")
  }
}

/// Looks at the memory of the process as long as it is held; made by ``Hub/watchMemory(above:every:_:)``.
public final class MemoryWatch {
  private var timer: BackgroundTimer?
  private var isExceeded = false

  init(
    on hub: Hub, above limit: Int, every interval: Duration,
    _ body: @escaping (MemoryEvent) throws -> Void
  ) {
    timer = BackgroundTimer(on: hub, every: interval) { [unowned self] _ in
      guard let resident = Hub.residentMemory, (resident > limit) != isExceeded else { return }
      isExceeded.toggle()
      let event = MemoryEvent(isExceeded: isExceeded, resident: resident, limit: limit)
      spawn { try body(event) }
    }
  }

  /// Ends it.
  public func stop() {
    timer?.stop()
    timer = nil
  }
}

final class LagMeter {
  private(set) var last = Duration.zero
  var worst = Duration.zero
  private(set) var timer: BackgroundTimer!

  init(on hub: Hub, every interval: Duration) {
    timer = BackgroundTimer(on: hub, every: interval) { [unowned self] late in
      last = late
      worst = max(worst, late)
    }
  }
}

/// A timer that fires again and again, and does not keep the hub from ending.
final class BackgroundTimer {
  private let timer = UnsafeMutablePointer<evg_timer>.allocate(capacity: 1)
  private let hub: Hub
  private let interval: Duration
  /// Called on the hub's stack, with how late it is.
  private let action: (Duration) -> Void
  private var isRunning = true

  init(on hub: Hub, every interval: Duration, _ action: @escaping (Duration) -> Void) {
    self.hub = hub
    self.interval = interval
    self.action = action
    evg_timer_init(
      timer,
      { timer in
        Unmanaged<BackgroundTimer>.fromOpaque(timer.pointee.context!).takeUnretainedValue().fire()
      }, Unmanaged.passUnretained(self).toOpaque())
    hub.backgroundTimers.append(Unmanaged.passUnretained(self))
    hub.ownTimers += 1
    hub.start(timer, at: hub.deadline(after: interval))
  }

  private func fire() {
    let now = hub.readClock()
    let due = timer.pointee.deadline
    action(.nanoseconds(now > due ? now - due : 0))
    if isRunning { hub.start(timer, at: hub.deadline(after: interval)) }
  }

  func stop() {
    guard isRunning else { return }
    isRunning = false
    hub.backgroundTimers.removeAll { $0.toOpaque() == Unmanaged.passUnretained(self).toOpaque() }
    hub.ownTimers -= 1
    hub.stop(timer)
  }

  deinit {
    stop()
    timer.deallocate()
  }
}
