// Evergreen: blocks that a kill and timeouts do not interrupt.
// SPDX-License-Identifier: MIT

import CGreenlet
import Greenlets

/// Runs `body`, and holds back what would be thrown into it from outside: kills, the timeouts of
/// enclosing blocks, the cancellation of enclosing groups.
///
/// ```swift
/// defer { shielded { try? withTimeout(.seconds(5)) { try connection.sayGoodbye() } } }
/// ```
///
/// For clean-up that waits. What was held back, or was due already, is thrown at the first switch point
/// after the block. A timeout that starts in the block does run out in it, and should be there: nothing
/// else ends a wait that takes too long. Blocks may be nested.
///
/// Only the calling greenlet is shielded, not those that it spawns. A greenlet that waits in the block
/// for what can never come gets its ``LoopExit``, and a hub that ends gives shielded greenlets the same
/// second as the others, then throws through the shield.
///
/// - Parameter body: What is to be left alone.
/// - Returns: What `body` returns.
/// - Throws: What `body` throws.
///
/// > Switch point: As `body`.
///
/// > gevent: has none; trio has `CancelScope(shield=True)`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func shielded<R>(_ body: () throws -> R) rethrows -> R {
  let greenlet = Greenlet.current
  greenlet.changeShields { $0.raiseShield() }
  defer { greenlet.changeShields { $0.dropShield() } }
  return try body()
}

extension AnyGreenlet {
  /// How many shields are up.
  final var shields: UInt32 { extras?.due.shields ?? 0 }

  fileprivate final func changeShields(_ change: (inout DueErrors) -> Void) {
    withDueErrors { change(&$0) }
    context?.pointee.is_shielded = shields > 0
  }

  final func breakShields() {
    if shields > 0 { changeShields { $0.dropShield(all: true) } }
  }

  /// Takes back what a block that ends may have thrown.
  final func takeBack(_ revocable: any Revocable) {
    if extras != nil { withDueErrors { $0.remove(revocable) } }
  }
}
