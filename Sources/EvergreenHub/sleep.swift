// Evergreen: letting time pass.
// SPDX-License-Identifier: MIT

import CGreenlet
import Greenlets

/// Waits; the other greenlets run meanwhile.
///
/// - Parameter duration: Never shorter than this. Zero or less only lets the others run.
/// - Throws: What is thrown into the caller: ``GreenletExit``, or the ``Timeout`` of an enclosing
///   block.
///
/// > Switch point: Yes.
///
/// > gevent: `gevent.sleep(seconds)`.
@available(*, noasync, message: "use Task.sleep(for:) in a task")
public func sleep(for duration: Duration) throws {
  if duration <= .zero { return try Greenlet.yield() }
  let hub = Hub.current
  try sleep(until: hub.deadline(after: duration), on: hub)
}

/// Waits until an instant.
///
/// - Parameter instant: Never earlier than this. One that has passed only lets the others run.
/// - Throws: What is thrown into the caller: ``GreenletExit``, or the ``Timeout`` of an enclosing
///   block.
///
/// > Switch point: Yes.
@available(*, noasync, message: "use Task.sleep(until:) in a task")
public func sleep(until instant: ContinuousClock.Instant) throws {
  try sleep(for: ContinuousClock.now.duration(to: instant))
}

private func sleep(until deadline: Deadline, on hub: Hub) throws {
  _ = try hub.wait(WaitReason("sleep"), until: deadline, enlist: { _ in }, delist: { _ in })
}

/// Waits until no greenlet is ready and no event is pending: a stronger ``Greenlet/yield()``.
///
/// - Throws: What is thrown into the caller: ``GreenletExit``, or the ``Timeout`` of an enclosing
///   block.
///
/// > Switch point: Yes.
///
/// > gevent: `gevent.idle()`.
@available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
public func idle() throws {
  let hub = Hub.current
  _ = try hub.wait(
    WaitReason("the loop to be idle"), until: .never,
    enlist: { hub.idlers.append($0) }, delist: { hub.idlers.remove($0) })
}
