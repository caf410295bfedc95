// Evergreen: turning the patch of libc on and off.
// SPDX-License-Identifier: MIT

import CGreenCalls
import CMonkey
import EvergreenBase
import EvergreenHub
import GreenCalls

/// Makes libc's blocking calls cooperative, for all code of the process that nobody rewrote.
///
/// ```swift
/// import Evergreen
/// import EvergreenMonkey
///
/// MonkeyPatch.install(.all)
/// let pages = urls.map { url in spawn { try fetchWithLibcurl(url) } }
/// ```
///
/// A patched call behaves as libc's own: the same results, `errno`, flags and time limits, and no
/// descriptor is changed. Only that, where it would block a thread, the greenlet waits and others
/// run. Calls from threads without a hub, from the hub itself, and from signal handlers are libc's.
///
/// A kill or a timeout cannot be thrown through the frames of foreign code. The call in which the
/// greenlet waits fails instead, with `ETIMEDOUT` or `ECANCELED`, and so do further ones, until
/// control is back in Swift: the next switch point, or the end of the timeout's block or of the
/// greenlet, throws the error. On a connection it is `ECONNABORTED` for a kill, since not every
/// library gives a connection up when a call is cancelled.
///
/// > gevent: `gevent.monkey`.
public enum MonkeyPatch {
  /// Calls that are patched together.
  public struct Families: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Transfers on sockets, `connect`, `accept`, `sendfile`, `splice`.
    public static let sockets = Families(rawValue: UInt32(EVG_PATCH_SOCKETS))
    /// `getaddrinfo`, `getnameinfo`, `gethostbyname` and its relatives.
    public static let dns = Families(rawValue: UInt32(EVG_PATCH_DNS))
    /// `sleep`, `usleep`, `nanosleep`, `clock_nanosleep`.
    public static let time = Families(rawValue: UInt32(EVG_PATCH_TIME))
    /// `poll`, `select`, `epoll_wait` and their variants.
    public static let select = Families(rawValue: UInt32(EVG_PATCH_SELECT))
    /// `wait`, `waitpid`, `waitid` and their variants, `system`, `pclose`.
    public static let process = Families(rawValue: UInt32(EVG_PATCH_PROCESS))
    /// Reading and writing pipes, terminals and others that are no sockets; `flock`, `lockf` and
    /// locks by `fcntl`. Regular files are read and written as ever.
    public static let files = Families(rawValue: UInt32(EVG_PATCH_FILES))

    /// Mutexes, read-write locks, conditions and semaphores of threads, `pthread_join`,
    /// `pthread_once`, and their counterparts in C11 and C++. Apart from ``all``, for it touches
    /// every library: a greenlet that waits for a mutex lets others run, which may surprise code
    /// that holds another one meanwhile. Mutexes that know their owner belong to the greenlet then,
    /// not to the thread; what a greenlet takes before it is installed belongs to the thread.
    public static let locks = Families(rawValue: UInt32(EVG_PATCH_LOCKS))

    /// All of them but ``locks``.
    public static let all: Families = [.sockets, .dns, .time, .select, .process, .files]
  }

  /// Patches families of calls, beside those that are patched already.
  ///
  /// Where the symbols of this executable do not reach other libraries, which depends on how it was
  /// linked, a warning says so and what to do.
  ///
  /// > Switch point: No; nor is a hub made.
  ///
  /// > gevent: `monkey.patch_all()`.
  public static func install(_ families: Families = .all) {
    #if os(Linux)
    _ = GreenWaiting.isSet
    #endif
    var file: UnsafePointer<CChar>?
    if let name = evg_patch_bypassed(&file) {
      warn(bypassAdvice(String(cString: name), file.map { String(cString: $0) } ?? "a library"))
    }
    evg_patch_set(evg_patch_families() | families.rawValue)
  }

  /// Ends the patch of these families, or of all. Greenlets that wait in a patched call stay there
  /// until it ends.
  ///
  /// > Switch point: No.
  public static func uninstall(_ families: Families = [.all, .locks]) {
    evg_patch_set(evg_patch_families() & ~families.rawValue)
  }

  /// What is patched now.
  public static var installed: Families { Families(rawValue: evg_patch_families()) }

  /// Whether all of these families are patched.
  ///
  /// > gevent: `monkey.is_module_patched(name)`.
  public static func isPatched(_ families: Families) -> Bool { installed.isSuperset(of: families) }

  /// Whether calls of other libraries reach the patch in this program.
  ///
  /// > gevent: has no need of it.
  public static var isEffective: Bool {
    var file: UnsafePointer<CChar>?
    return evg_patch_bypassed(&file) == nil
  }

  /// Runs `body` with libc's own calls, which block the thread. For the calling greenlet only; those
  /// that it spawns are patched.
  ///
  /// - Returns: What `body` returns.
  public static func withoutPatching<R, Failure: Error>(
    _ body: () throws(Failure) -> R
  ) throws(Failure) -> R {
    try EvergreenHub.withoutPatching(body)
  }
}

private func bypassAdvice(_ name: String, _ file: String) -> String {
  "monkey patching is not effective: \(name) is that of \(file), not of this program. Link "
    + "EvergreenMonkey into the executable itself; if it is in a shared library, name that before "
    + "libc on the link line, or start the program with LD_PRELOAD set to it"
}
