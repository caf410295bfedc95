// Evergreen: the door of a hub for other threads.
// SPDX-License-Identifier: MIT

import CLocks
import EventLoop
import EvergreenBase
import Greenlets
import Synchronization

/// Gives work to a hub from any thread.
///
/// ```swift
/// let mailbox = Hub.current.mailbox  // on the hub's thread
/// Thread { mailbox.post { counter.add(1) } }.start()
/// ```
///
/// As long as somebody holds a hub's mailbox, the hub does not take a standstill for a deadlock. In
/// the child of a fork that counts what threads of the parent held, for a thread of the child may
/// have got it from there.
///
/// > gevent: `loop.run_callback_threadsafe`.
public final class Mailbox: Sendable {
  private let core: MailboxCore

  init(core: MailboxCore) {
    self.core = core
    core.holders.add(1, ordering: .relaxed)
  }

  deinit {
    core.holders.subtract(1, ordering: .releasing)
    core.wakeHub()  // which looks again whether anything can wake it
  }

  /// Runs `body` in a greenlet of its own on the hub, soon, in the order of posting.
  ///
  /// Callable from any thread, the hub's own too, and from tasks; not from a signal handler.
  ///
  /// - Returns: `false` if the hub has ended, or stayed in the parent of this process; then `body`
  ///   never runs.
  ///
  /// > Switch point: No.
  @discardableResult
  public func post(
    file: StaticString = #fileID, line: UInt = #line, _ body: @escaping @Sendable () throws -> Void
  ) -> Bool {
    core.post { spawn(file: file, line: line, body) }
  }
}

extension Hub {
  /// The door for other threads.
  public var mailbox: Mailbox {
    if let mailbox = mail.shared { return mailbox }
    let mailbox = Mailbox(core: mail)
    mail.shared = mailbox
    return mailbox
  }

  /// A door for the library's own threads: runs `body` on the hub's stack, where it must not
  /// block. Does not count as a waker; ``externalWakers`` does.
  package var backDoor: MailboxCore { mail }

  func deliverMail() {
    for letter in mail.takeAll() { letter() }
  }
}

package final class MailboxCore: @unchecked Sendable {
  // Unchecked: `shared` belongs to the hub's thread, the loop is told only what any thread may.

  private struct State {
    var letters: [@Sendable () -> Void] = []
    var isOpen = true
    /// Not that of this process: the hub's thread stayed in a parent.
    var forks = evg_forks()
    var isReachable: Bool { isOpen && forks == evg_forks() }
  }
  private let state = Guarded(State())
  private let mailIsThere = Atomic(false)
  private let loop: any LoopInterface
  let holders = Atomic(0)
  weak var shared: Mailbox?

  init(loop: any LoopInterface) { self.loop = loop }

  var hasMail: Bool { mailIsThere.load(ordering: .acquiring) }
  var isHeld: Bool { holders.load(ordering: .acquiring) > 0 }

  @discardableResult
  package func post(_ letter: @escaping @Sendable () -> Void) -> Bool {
    state.withLock { state in
      guard state.isReachable else { return false }
      state.letters.append(letter)
      // Under the lock, so that the loop cannot be destroyed meanwhile.
      if !mailIsThere.exchange(true, ordering: .acquiringAndReleasing) { loop.interrupt() }
      return true
    }
  }

  package func wakeHub() {
    state.withLock { if $0.isReachable { loop.interrupt() } }
  }

  func takeAll() -> [@Sendable () -> Void] {
    state.withLock { state in
      mailIsThere.store(false, ordering: .releasing)
      defer { state.letters = [] }
      return state.letters
    }
  }

  func close() {
    let undelivered = state.withLock { state in
      state.isOpen = false
      defer { state.letters = [] }
      return state.letters
    }
    _ = undelivered  // goes now, outside the lock, with what it holds
  }

  /// In the child of a fork, on the thread that goes on.
  func followFork() {
    let letters = takeAll()
    if !letters.isEmpty { abandon(letters) }
    state.withLock { $0.forks = evg_forks() }
  }
}
