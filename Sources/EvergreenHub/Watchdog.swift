// Evergreen: notices hubs that a greenlet has blocked, and says which greenlet and where.
// SPDX-License-Identifier: MIT
//
// One thread for all hubs of the process. A hub is blocked if it neither switches nor waits for
// events while other greenlets exist. The blocked thread itself writes down its frames, in a
// signal handler. A hub that stays blocked is reported again only when it has switched since.

import CGreenlet
import CLibev
import CLocks
import EventLoop
import EvergreenBase
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Hub {
  /// How long a greenlet may keep this hub to itself before that is reported on standard error, once
  /// for each place in the program; `nil` never reports.
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
    Watchdog.setHandler(handler)
  }
}

enum Watchdog {
  final class Entry: Sendable {
    let thread: UInt
    let state: UInt  // the address of the thread's `evg_thread`
    let hubID: UInt32  // of the context where callbacks run
    let threshold: Atomic<Int64>
    /// The hub waits for events: not blocked, idle.
    let isWaiting = Atomic(false)

    init(of hub: Hub, threshold: Int64) {
      thread = UInt(pthread_self())
      hubID = hub.contextID
      state = UInt(bitPattern: evg_thread_self())
      self.threshold = Atomic(threshold)
    }
  }

  private struct Watched {
    let entry: Entry
    var switches: UInt64 = 0
    var since: UInt64 = 0
    var isReported = false
  }

  private struct State {
    var watched: [Watched] = []
    /// The forks when the thread was started: it runs in that process alone.
    var runsSince: UInt32?
  }

  private static let state = Guarded(State())
  private static let handler = Guarded<@Sendable (String) -> Void>({ warn($0) })

  static func setHandler(_ new: @escaping @Sendable (String) -> Void) {
    let old = handler.withLock { handler in
      defer { handler = new }
      return handler
    }
    _ = old  // goes outside the lock
  }

  private static let defaultThreshold: Int64? = {
    if let text = getenv("EVERGREEN_WATCHDOG").map({ String(cString: $0) }) {
      guard let milliseconds = Int64(text), milliseconds >= 0 else {
        warn("EVERGREEN_WATCHDOG=\(text) is not a number of milliseconds; the watchdog is off")
        return nil
      }
      let (nanoseconds, isTooMuch) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
      return milliseconds == 0 ? nil : isTooMuch ? .max : nanoseconds
    }
    #if DEBUG
    return 100_000_000
    #else
    return nil
    #endif
  }()

  static func watch(_ hub: Hub) {
    if evg_is_adopting() { return }  // a program that was not written for this says nothing new
    if let threshold = defaultThreshold { watch(hub, threshold: threshold) }
  }

  static func watch(_ hub: Hub, threshold: Int64) {
    if let entry = hub.watchdog {
      entry.threshold.store(threshold, ordering: .relaxed)
      return
    }
    let entry = Entry(of: hub, threshold: threshold)
    hub.watchdog = entry
    // Threads of Dispatch, and those that they make, have all signals blocked; see glimpse.c.
    var question = sigset_t()
    sigemptyset(&question)
    sigaddset(&question, SIGURG)
    pthread_sigmask(SIG_UNBLOCK, &question, nil)
    state.withLock { $0.watched.append(Watched(entry: entry)) }
    ensureThread()
  }

  private static func ensureThread() {
    let isNeeded = state.withLock { state in
      if state.runsSince == evg_forks() { return false }
      if state.runsSince != nil { forgetParent(&state) }
      state.runsSince = evg_forks()
      return true
    }
    guard isNeeded else { return }
    atExit
    if evg_start_thread({ _ in Watchdog.run() }, nil, 0) != 0 {
      state.withLock { $0.runsSince = nil }  // the next hub tries again
    }
  }

  /// What runs at exit keeps nobody waiting.
  private static let atExit: Void = { atexit { Watchdog.unwatchAll() } }()

  /// In the child of a fork: on the thread that forked.
  static func followFork() { ensureThread() }

  /// Other threads do not exist here, and how long this one has been busy counts anew.
  private static func forgetParent(_ state: inout State) {
    let thread = UInt(pthread_self())
    state.watched = state.watched.filter { $0.entry.thread == thread }.map {
      Watched(entry: $0.entry)
    }
  }

  static func unwatch(_ hub: Hub) {
    guard let entry = hub.watchdog else { return }
    hub.watchdog = nil
    // Under the lock: after this the thread may end.
    state.withLock { $0.watched.removeAll { $0.entry === entry } }
  }

  private static func unwatchAll() {
    state.withLock { $0.watched = [] }
  }

  private static func run() {
    while true {
      var shortest: Int64 = 1_000_000_000
      let reports = state.withLock { state in
        // Under the lock, so that no thread that is looked at can end meanwhile.
        state.watched.indices.compactMap { index in
          shortest = min(
            shortest, state.watched[index].entry.threshold.load(ordering: .relaxed))
          return check(&state.watched[index])
        }
      }
      for report in reports { handler.withLock { $0 }(report) }
      usleep(UInt32(clamping: max(1_000_000, shortest / 4) / 1000))
    }
  }

  private static func check(_ watched: inout Watched) -> String? {
    let entry = watched.entry
    let now = evg_read_clock()
    let switches = evg_switches_of(UnsafePointer<evg_thread>(bitPattern: entry.state)!)
    let isFirstLook = watched.since == 0
    if switches != watched.switches || isFirstLook || entry.isWaiting.load(ordering: .relaxed) {
      watched = Watched(entry: entry, switches: switches, since: now)
      return nil
    }
    let blocked = now - watched.since
    guard blocked >= UInt64(entry.threshold.load(ordering: .relaxed)), !watched.isReported else {
      return nil
    }
    var glimpse = evg_glimpse()
    guard evg_look_at(entry.thread, &glimpse), glimpse.switches == switches else { return nil }
    watched.isReported = true
    // Of whoever else blocks, the main greenlet waits; for it, the hub's own context does not
    // count.
    guard glimpse.id != 0 || glimpse.others > 1 else { return nil }
    guard isNew(place(of: glimpse)) else { return nil }
    return report(glimpse, of: entry, blockedFor: blocked)
  }

  /// The program's own functions on the stack: those of libraries, further in, change from one look
  /// to the next.
  private static func place(of glimpse: evg_glimpse) -> String {
    var glimpse = glimpse
    return withUnsafeBytes(of: &glimpse.frames) { bytes in
      let frames = bytes.bindMemory(to: UnsafeRawPointer?.self).prefix(glimpse.count).compactMap {
        $0
      }
      let own = frames.filter { isInProgram($0) }
      return (own.isEmpty ? frames : own).map { function(at: $0) }.joined(separator: "\n")
    }
  }

  private static func isInProgram(_ address: UnsafeRawPointer) -> Bool {
    var offset: UInt = 0
    let program = evg_module_name(#dsohandle, &offset)
    let module = evg_module_name(address, &offset)
    guard let program, let module else { return false }
    return strcmp(program, module) == 0
  }

  private static func function(at address: UnsafeRawPointer) -> String {
    guard let name = evg_function_name(address) else { return "\(address)" }
    defer { name.deallocate() }
    return String(cString: name)
  }

  private static let places = Guarded(Set<String>())
  private static let mostPlaces = 1000

  private static func isNew(_ place: String) -> Bool {
    places.withLock { places in
      if places.count == mostPlaces { places = [] }
      return places.insert(place).inserted
    }
  }

  private static func report(
    _ glimpse: evg_glimpse, of entry: Entry, blockedFor nanoseconds: UInt64
  ) -> String {
    var glimpse = glimpse
    var who =
      switch glimpse.id {
      case 0: "the main greenlet"
      case entry.hubID: "a callback of the loop"
      default: "greenlet \(glimpse.id)"
      }
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
