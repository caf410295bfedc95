// Evergreen: the usual step of a test.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub

/// Waits until the other greenlets have done all that they can do now: each of them has ended, or
/// waits for time to pass or for something that the test is still to do.
///
/// ```swift
/// let waiter = spawn { try event.wait() }
/// try waitUntilBlocked()
/// #expect(!waiter.isReady)
/// event.set()
/// ```
///
/// No time passes meanwhile: of timers only those fire that are due. In real time that is all of
/// them that are due by then. What other threads and processes are about to do, a thread pool for
/// instance, is not waited for. Of several greenlets that call this, or ``idle()``, the first to call
/// goes on first, and what it then does is done before the next one goes on.
///
/// - Throws: What is thrown into the caller while it waits.
///
/// > Switch point: Yes.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func waitUntilBlocked() throws {
  // What other threads have posted is delivered in the same look of the hub as this one is woken.
  repeat { try idle() } while evg_thread_self().pointee.ready_head != nil
}
