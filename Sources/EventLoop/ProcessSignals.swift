// Evergreen: which loop owns which signal
// SPDX-License-Identifier: MIT

import CLibev
import CLocks
import EvergreenBase

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A process has one disposition per signal, and libev one loop for it: watching a signal on two
/// loops at once fails its assertion. This table comes first. It also guards the default loop,
/// which owns `SIGCHLD`.
///
/// In the child of a fork the signals of other threads' loops get their default action again:
/// nobody is there who could answer them.
enum ProcessSignals {
  private struct Entry {
    let owner: UInt
    let loop: UnsafeMutablePointer<evg_loop>?
    var watchers: [UnsafeMutablePointer<ev_signal>] = []
  }

  private struct Table {
    var entries: [Int32: Entry] = [:]
    var hasDefaultLoop = false
  }

  private static let table = Guarded(Table())
  private static let defaultOwner: UInt = 1

  private static func owner(_ core: LoopCore) -> UInt {
    core.isDefault ? defaultOwner : UInt(bitPattern: core.state)
  }

  private static func named(_ signal: Int32) -> String {
    guard let text = strsignal(signal) else { return "signal \(signal)" }
    return "signal \(signal) (\(String(cString: text)))"
  }

  /// Throws unless `signal` is one that can be caught.
  static func check(_ signal: Int32) throws(LoopError) {
    guard signal > 0, signal < evg_signal_count else {
      throw LoopError(.invalidSignal, "there is no signal \(signal)")
    }
    var action = sigaction()
    guard signal != SIGKILL, signal != SIGSTOP, sigaction(signal, nil, &action) == 0 else {
      throw LoopError(.invalidSignal, "\(named(signal)) cannot be watched")
    }
  }

  static func claim(
    _ signal: Int32, for core: LoopCore, _ watcher: UnsafeMutablePointer<ev_signal>
  ) throws(LoopError) {
    let owner = owner(core)
    let claimed = table.withLock { table in
      var entry = table.entries[signal] ?? Entry(owner: owner, loop: core.state)
      guard entry.owner == owner else { return false }
      entry.watchers.append(watcher)
      table.entries[signal] = entry
      return true
    }
    if !claimed {
      throw LoopError(.signalTaken, "\(named(signal)) is watched by another loop already")
    }
    evg_on_fork { ProcessSignals.forked() }
  }

  static func release(_ signal: Int32, _ watcher: UnsafeMutablePointer<ev_signal>) {
    table.withLock { table in
      guard var entry = table.entries[signal] else { return }
      entry.watchers.removeAll { $0 == watcher }
      table.entries[signal] =
        entry.watchers.isEmpty && !isOfDefaultLoop(signal, table) ? nil : entry
    }
  }

  /// The default loop owns `SIGCHLD` without a watcher of ours.
  private static func isOfDefaultLoop(_ signal: Int32, _ table: Table) -> Bool {
    signal == SIGCHLD && table.hasDefaultLoop
  }

  private static func forked() {
    table.withLock { table in
      for (signal, entry) in table.entries {
        guard let loop = entry.loop, !evg_loop_is_here(loop) else { continue }
        for watcher in entry.watchers { ev_signal_stop(loop.pointee.raw, watcher) }
        table.entries[signal] = nil
      }
    }
  }

  static func takeDefaultLoop() throws(LoopError) {
    let failure: LoopError? = table.withLock { table in
      if table.hasDefaultLoop {
        return LoopError(.defaultLoopTaken, "the default loop exists already; a process has one")
      }
      if table.entries[SIGCHLD] != nil {
        return LoopError(
          .signalTaken,
          "the default loop needs \(named(SIGCHLD)), which is watched by another loop already")
      }
      table.hasDefaultLoop = true
      table.entries[SIGCHLD] = Entry(owner: defaultOwner, loop: nil)
      return nil
    }
    if let failure { throw failure }
  }

  static func releaseDefaultLoop() {
    table.withLock { table in
      table.hasDefaultLoop = false
      table.entries[SIGCHLD] = nil
    }
  }
}
