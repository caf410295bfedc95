// Evergreen: notices hubs that a greenlet has blocked, and says which greenlet and where.
// SPDX-License-Identifier: MIT
//
// One thread for all hubs of the process. A hub is blocked if it neither switches nor waits for
// events while other greenlets exist. The blocked thread itself writes down its frames, in a
// signal handler. A hub that stays blocked is reported again only when it has switched since.

import CGreenlet
import CLibev
import Greenlets
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Hub {
  /// How long a greenlet may keep this hub to itself before that is reported on standard error;
  /// `nil` never reports.
  ///
  /// 100 ms in debug builds, off in release builds; `EVERGREEN_WATCHDOG` sets another number of
  /// milliseconds for both, 0 switches it off.
  ///
  /// > gevent: `GEVENT_MONITOR_THREAD_ENABLE` and `GEVENT_MAX_BLOCKING_TIME`.
  public var blockingThreshold: Duration? {
    get { watchdog.map { .nanoseconds($0.threshold.load(ordering: .relaxed)) } }
    set {
      guard let newValue, newValue > .zero else { return Watchdog.unwatch(self) }
      Watchdog.watch(self, threshold: Int64(clamping: newValue.clampedNanoseconds))
    }
  }

  /// Called on the watchdog's thread with each report; prints it by default. For all hubs.
  public static func onBlocked(_ handler: @escaping @Sendable (_ report: String) -> Void) {
    Watchdog.handler.withLock { $0 = handler }
  }
}

enum Watchdog {
  final class Entry: Sendable {
    let thread: UInt
    let state: UInt  // the address of the thread's `evg_thread`
    let threshold: Atomic<Int64>
    /// The hub waits for events: not blocked, idle.
    let isWaiting = Atomic(false)
    /// What the watchdog's thread alone uses.
    let seen = Mutex((switches: UInt64(0), since: UInt64(0), isReported: false))

    init(threshold: Int64) {
      thread = UInt(pthread_self())
      state = UInt(bitPattern: evg_thread_self())
      self.threshold = Atomic(threshold)
    }
  }

  static let handler = Mutex<@Sendable (String) -> Void>({ warn($0) })
  private static let entries = Mutex<[Entry]>([])
  private static let isRunning = Atomic(false)

  private static let defaultThreshold: Int64? = {
    if let text = getenv("EVERGREEN_WATCHDOG").map({ String(cString: $0) }) {
      guard let milliseconds = Int64(text), milliseconds >= 0 else {
        warn("EVERGREEN_WATCHDOG=\(text) is not a number of milliseconds; the watchdog is off")
        return nil
      }
      return milliseconds == 0 ? nil : milliseconds * 1_000_000
    }
    #if DEBUG
    return 100_000_000
    #else
    return nil
    #endif
  }()

  static func watch(_ hub: Hub) {
    if let threshold = defaultThreshold { watch(hub, threshold: threshold) }
  }

  static func watch(_ hub: Hub, threshold: Int64) {
    if let entry = hub.watchdog {
      entry.threshold.store(threshold, ordering: .relaxed)
      return
    }
    let entry = Entry(threshold: threshold)
    hub.watchdog = entry
    // Threads of Dispatch, and those that they make, have all signals blocked; see glimpse.c.
    var question = sigset_t()
    sigemptyset(&question)
    sigaddset(&question, SIGURG)
    pthread_sigmask(SIG_UNBLOCK, &question, nil)
    entries.withLock { $0.append(entry) }
    if !isRunning.exchange(true, ordering: .relaxed) {
      atexit { Watchdog.unwatchAll() }  // what runs at exit keeps nobody waiting
      _ = evg_start_thread({ _ in Watchdog.run() }, nil, 0)
    }
  }

  static func unwatch(_ hub: Hub) {
    guard let entry = hub.watchdog else { return }
    hub.watchdog = nil
    // Under the lock: after this the thread may end.
    entries.withLock { $0.removeAll(where: { one in one === entry }) }
  }

  private static func unwatchAll() {
    entries.withLock { $0 = [] }
  }

  private static func run() {
    while true {
      var shortest: Int64 = 1_000_000_000
      let reports = entries.withLock { entries in
        for entry in entries {
          shortest = min(shortest, entry.threshold.load(ordering: .relaxed))
        }
        // Under the lock, so that no thread that is looked at can end meanwhile.
        return entries.compactMap(check)
      }
      for report in reports { handler.withLock { $0 }(report) }
      usleep(UInt32(clamping: max(1_000_000, shortest / 4) / 1000))
    }
  }

  private static func check(_ entry: Entry) -> String? {
    let now = evg_read_clock()
    let switches = evg_switches_of(UnsafePointer<evg_thread>(bitPattern: entry.state)!)
    return entry.seen.withLock { seen in
      let isFirstLook = seen.since == 0
      if switches != seen.switches || isFirstLook || entry.isWaiting.load(ordering: .relaxed) {
        seen = (switches, now, false)
        return nil
      }
      let blocked = now - seen.since
      guard blocked >= UInt64(entry.threshold.load(ordering: .relaxed)), !seen.isReported else {
        return nil
      }
      var glimpse = evg_glimpse()
      guard evg_look_at(entry.thread, &glimpse), glimpse.switches == switches else { return nil }
      seen.isReported = true
      // The hub's own context is one of them, the blocking greenlet may be another.
      guard glimpse.others > (glimpse.id == 0 ? 1 : 2) else { return nil }
      return report(glimpse, blockedFor: blocked)
    }
  }

  private static func report(_ glimpse: evg_glimpse, blockedFor nanoseconds: UInt64) -> String {
    var glimpse = glimpse
    var who = glimpse.id == 0 ? "the main greenlet" : "greenlet \(glimpse.id)"
    let name = withUnsafeBytes(of: &glimpse.name) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    if !name.isEmpty { who += " \"\(name)\"" }
    if let origin = glimpse.origin {
      who += " (spawned at \(String(cString: origin)):\(glimpse.origin_line))"
    }
    var text =
      "\(who) has blocked its hub for \(nanoseconds / 1_000_000) ms; "
      + "move the work to a ThreadPool, or yield"
    withUnsafeBytes(of: &glimpse.frames) { bytes in
      for frame in bytes.bindMemory(to: UnsafeRawPointer?.self).prefix(glimpse.count) {
        if let frame { text += "\n    \(symbol(at: frame))" }
      }
    }
    return text
  }
}
