// Evergreen: hubs of threads that know nothing of them.
// SPDX-License-Identifier: MIT
//
// Where an unmodified program runs (EvergreenPreload), a thread gets a hub at its first call that waits,
// and loses it at its end. Other threads may fork at any moment. The Swift runtime makes types when they
// are first used, under locks of its own, which the child of a fork would find taken for ever. So:
//
// 1. The first thread runs once through all that any thread will do, up to what the child of a fork
//    does, so that the types are there.
// 2. That, and the beginning and the end of each hub, comes between `evg_forbid_forks` and
//    `evg_allow_forks`. No Swift of ours runs before in such a thread.

import CGreenlet
import CLocks
import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Hub {
  // Guarded by `evg_forbid_forks`.
  nonisolated(unsafe) private static var isRehearsed = false

  /// Gives the calling thread a hub for as long as it runs. Forks are forbidden meanwhile.
  ///
  /// - Parameter rehearse: Waits once in each way in which the thread will.
  /// - Returns: Whether it has one now; `false` if the system has no descriptors for it.
  package static func adoptThread(rehearsing rehearse: () -> Void) -> Bool {
    guard let first = adopt() else { return false }
    if isRehearsed { return true }
    isRehearsed = true
    rehearse()
    first.keepForker()
    first.end()
    return adopt() != nil
  }

  private static func adopt() -> Hub? {
    // By the best backend, whatever the environment says: that is for programs that know what it means.
    guard let loop = try? Loop(backend: nil, setting: nil) else { return nil }
    let hub = attach(loop: nil, over: loop)
    // What it waits for may come from where nobody looks; if not, it waits for ever, as libc would.
    hub.externalWakers = 1
    return hub
  }

  static func threadEnds() {
    guard evg_is_adopting() else {
      currentIfAny?.end()
      return
    }
    var signals = sigset_t()
    evg_forbid_forks(&signals)
    currentIfAny?.end()
    evg_allow_forks(&signals)
  }
}
