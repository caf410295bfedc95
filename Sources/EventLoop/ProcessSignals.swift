// Evergreen: which loop owns which signal
// SPDX-License-Identifier: MIT

import CLibev
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A process has one disposition per signal, and libev one loop for it: watching a signal on two
/// loops at once fails its assertion. This table comes first. It also guards the default loop,
/// which owns `SIGCHLD`.
enum ProcessSignals {
  private struct Table {
    var owners: [Int32: (owner: UInt, watchers: Int)] = [:]
    var hasDefaultLoop = false
  }

  private static let table = Mutex(Table())
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

  static func claim(_ signal: Int32, for core: LoopCore) throws(LoopError) {
    let owner = owner(core)
    let claimed = table.withLock { table in
      guard let entry = table.owners[signal] else {
        table.owners[signal] = (owner, 1)
        return true
      }
      guard entry.owner == owner else { return false }
      table.owners[signal] = (owner, entry.watchers + 1)
      return true
    }
    if !claimed {
      throw LoopError(.signalTaken, "\(named(signal)) is watched by another loop already")
    }
  }

  static func release(_ signal: Int32) {
    table.withLock { table in
      guard let entry = table.owners[signal] else { return }
      table.owners[signal] = entry.watchers > 1 ? (entry.owner, entry.watchers - 1) : nil
    }
  }

  static func takeDefaultLoop() throws(LoopError) {
    let failure: LoopError? = table.withLock { table in
      if table.hasDefaultLoop {
        return LoopError(.defaultLoopTaken, "the default loop exists already; a process has one")
      }
      if table.owners[SIGCHLD] != nil {
        return LoopError(
          .signalTaken,
          "the default loop needs \(named(SIGCHLD)), which is watched by another loop already")
      }
      table.hasDefaultLoop = true
      table.owners[SIGCHLD] = (defaultOwner, 1)
      return nil
    }
    if let failure { throw failure }
  }

  static func releaseDefaultLoop() {
    table.withLock { table in
      table.hasDefaultLoop = false
    }
    release(SIGCHLD)
  }
}
