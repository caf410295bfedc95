// Evergreen: the one way in which a greenlet waits.
// SPDX-License-Identifier: MIT
//
// Every blocking call of the library ends here, in `Hub.wait`:
//
// 1. An error that is due (a kill, a timeout of an enclosing block) is thrown before the wait.
// 2. `enlist` puts the node where the waker will find it.
// 3. The context parks; a deadline is a timer in this very frame.
// 4. Back again, what was won is looked at first, then the due error, then the clock. Whoever did
//    not win is taken out by `delist`. Nothing is left behind on any path.
// 5. If it was none of these, the error that was due has been taken back meanwhile: the wait goes
//    on, and the node has kept its place.

public import CGreenlet
package import CLibev
package import EventLoop
import EvergreenBase

extension Hub {
  /// Waits for a signal to the node.
  ///
  /// - Parameters:
  ///   - reason: For reports.
  ///   - deadline: The end of the wait; `.now` only looks for errors that are due.
  ///   - enlist: Gives the node to the one that will signal it. Must not switch.
  ///   - delist: Takes it back; also called when the waker has taken it already.
  /// - Returns: Whether the node was signaled; false if `deadline` came first.
  /// - Throws: What is due in the waiting greenlet.
  @inline(__always)
  package func wait(
    _ reason: WaitReason, until deadline: Deadline,
    enlist: (UnsafeMutablePointer<WaitNode>) -> Void,
    delist: (UnsafeMutablePointer<WaitNode>) -> Void
  ) throws -> Bool {
    checkIsCurrent()
    let context = evg_current().unsafelyUnwrapped
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
    if deadline.isNow { return false }
    if stay(context, reason, until: deadline, enlist: enlist, delist: delist) { return true }
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
    return false
  }

  /// The wait itself, which throws nothing: if the node was not signaled, an error is due or
  /// `deadline` has come.
  @inline(__always)
  package func stay(
    _ context: UnsafeMutablePointer<evg_context>, _ reason: WaitReason, until deadline: Deadline,
    enlist: (UnsafeMutablePointer<WaitNode>) -> Void,
    delist: (UnsafeMutablePointer<WaitNode>) -> Void
  ) -> Bool {
    var node = WaitNode(context: context)
    return withUnsafeMutablePointer(to: &node) { node in
      enlist(node)
      while true {
        let isTimeUp = suspend(context, for: reason, until: deadline)
        if node.pointee.isSignaled { return true }
        if isTimeUp || Hub.mustLeave(in: context) { break }
      }
      delist(node)
      return false
    }
  }

  /// The same for a node, of the calling context, that the caller puts into a list and takes out again.
  @usableFromInline
  package func stay(
    at node: UnsafeMutablePointer<WaitNode>, _ reason: WaitReason, until deadline: Deadline
  ) -> Bool {
    let context = node.pointee.context.unsafelyUnwrapped
    while true {
      let isTimeUp = suspend(context, for: reason, until: deadline)
      if node.pointee.isSignaled { return true }
      if isTimeUp || Hub.mustLeave(in: context) { return false }
    }
  }

  /// Waits until one node of a group has been signaled, which may be so already.
  ///
  /// - Returns: The node, which is in the group no more; `nil` if an error is due or `deadline` has come.
  package func stay(
    in group: UnsafeMutablePointer<WaitGroup>, _ reason: WaitReason, until deadline: Deadline
  ) -> UnsafeMutablePointer<WaitNode>? {
    let context = evg_current().unsafelyUnwrapped
    group.pointee.context = context
    defer { group.pointee.context = nil }
    while group.pointee.first == nil {
      let isTimeUp = suspend(context, for: reason, until: deadline)
      if group.pointee.first == nil, isTimeUp || Hub.mustLeave(in: context) { break }
    }
    return group.pointee.removeFirst()
  }

  /// Waits for a signal in a list, whatever becomes due in the caller: that stays due. For what must be
  /// done on the way out, too.
  package func stayFirmly(_ reason: WaitReason, in owner: some AnyObject & WaitListOwner) {
    let context = evg_current().unsafelyUnwrapped
    var node = WaitNode(context: context)
    withUnsafeMutablePointer(to: &node) { node in
      owner.waiters.append(node)
      while !node.pointee.isSignaled { _ = suspend(context, for: reason, until: .never) }
    }
  }

  /// Whether a caller that cannot throw must go on without a wait: something is due in it, and stays due.
  @usableFromInline
  package var mustLeaveForeignCode: Bool {
    checkIsCurrent()
    let context = evg_current().unsafelyUnwrapped
    return evg_needs_care(context) && Hub.mustLeave(in: context)
  }

  /// Waits for `node` in a list that the caller reaches through `list`.
  @inline(__always)
  package func wait(
    _ reason: WaitReason, until deadline: Deadline, in owner: some AnyObject & WaitListOwner
  ) throws -> Bool {
    try wait(
      reason, until: deadline, enlist: { owner.waiters.append($0) },
      delist: { owner.waiters.remove($0) })
  }

  /// Throws what is due in the caller.
  @usableFromInline
  package func checkForDueError() throws {
    let context = evg_current().unsafelyUnwrapped
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
  }

  /// What the quick look at a switch point found: throws an error that is due.
  ///
  /// - Throws: ``BlockingInHub`` on the hub's own stack; ``StackUnavailable`` on the reserve, which
  ///   the next one that gets no stack would overwrite.
  @inline(never)
  static func takeCare(of context: UnsafeMutablePointer<evg_context>) throws {
    guard let greenlet = greenlet(of: context) else { throw BlockingInHub() }
    if context.pointee.lacks_stack { throw stackUnavailable() }
    if greenlet.hasDueError { throw greenlet.takeDueError() }
  }

  /// Whether a wait that has brought nothing is over: an error is due, or foreign code is to look
  /// after a signal.
  @inline(never)
  static func mustLeave(in context: UnsafeMutablePointer<evg_context>) -> Bool {
    context.pointee.is_interrupted || greenlet(of: context)?.hasDueError ?? true
  }

  /// The greenlet that waits for a descriptor watch.
  package func greenlet(waitingFor io: UnsafeMutablePointer<evg_io>) -> AnyGreenlet? {
    io.pointee.context.flatMap { Hub.greenlet(of: $0.assumingMemoryBound(to: evg_context.self)) }
  }

  /// Whose context it is; `nil` for the hub's own.
  @inline(__always)
  package static func greenlet(of context: UnsafeMutablePointer<evg_context>) -> AnyGreenlet? {
    context.pointee.owner.map { Unmanaged<AnyGreenlet>.fromOpaque($0).takeUnretainedValue() }
  }

  /// Parks until something wakes the context, or the deadline.
  ///
  /// - Returns: Whether the deadline has come, whatever came before it.
  @inline(__always)
  package func suspend(
    _ context: UnsafeMutablePointer<evg_context>, for reason: WaitReason, until deadline: Deadline
  ) -> Bool {
    context.pointee.wait_text = reason.text
    context.pointee.wait_argument = reason.argument
    context.pointee.wait_since = evg_thread_self().pointee.now
    context.pointee.state = UInt8(EVG_PARKED)
    if context.pointee.is_raw { setRawWaiting(context) }
    var isTimeUp = false
    if deadline.isNever { evg_park() } else { isTimeUp = park(context, until: deadline) }
    if context.pointee.is_raw { setRawWaiting(nil) }
    context.pointee.wait_text = nil
    return isTimeUp
  }

  @inline(never)
  func setRawWaiting(_ waiting: UnsafeMutablePointer<evg_context>?) {
    guard let greenlet = AnyGreenlet.currentIfAny else { return }
    greenlet.ownExtras.rawWaiting = waiting
    greenlet.context?.pointee.is_deputized = waiting != nil
  }

  /// Not inlined, so that the timer burdens the stacks of those alone who have a deadline.
  @inline(never)
  func park(_ context: UnsafeMutablePointer<evg_context>, until deadline: Deadline) -> Bool {
    withUnsafeTemporaryAllocation(of: evg_timer.self, capacity: 1) { memory in
      let timer = memory.baseAddress.unsafelyUnwrapped
      evg_timer_init(timer, wakeContext, context)
      start(timer, at: deadline)
      evg_park()
      let hasFired = !timer.pointee.armed
      stop(timer)
      return hasFired
    }
  }

  // The loop is libev's but in tests: these spare the common case a call through the interface.

  @inline(__always)
  func start(_ timer: UnsafeMutablePointer<evg_timer>, at deadline: Deadline) {
    if let libev {
      evg_timer_start(libev, timer, deadline.nanoseconds)
    } else {
      loop.start(timer, at: deadline.nanoseconds)
    }
  }

  @inline(__always)
  func stop(_ timer: UnsafeMutablePointer<evg_timer>) {
    if let libev { evg_timer_stop(libev, timer) } else { loop.stop(timer) }
  }

  @inline(__always)
  package func start(_ io: UnsafeMutablePointer<evg_io>) {
    if let libev { evg_io_start(libev, io) } else { loop.start(io) }
  }

  @inline(__always)
  package func stop(_ io: UnsafeMutablePointer<evg_io>) {
    if let libev { evg_io_stop(libev, io) } else { loop.stop(io) }
  }

  @inline(__always)
  func rest(_ io: UnsafeMutablePointer<evg_io>) {
    if let libev { evg_io_rest(libev, io) } else { loop.rest(io) }
  }

  @inline(__always)
  package func readClock() -> UInt64 { libev != nil ? evg_read_clock() : loop.readClock() }

  /// What becomes of a descriptor watch in and after a wait.
  package enum Watching {
    /// It is started, and stopped afterwards.
    case once
    /// It is started, and rests afterwards: the next wait will be for the same.
    case again
    /// The loop is not asked; somebody calls ``ioIsReady``, or the deadline comes.
    case nothing
  }

  /// Waits until a descriptor watch fires, or somebody calls ``ioIsReady``.
  ///
  /// - Parameters:
  ///   - io: Made with `evg_io_init`, not active or resting; its `context` is NULL while nobody
  ///     waits.
  ///   - reason: For reports.
  ///   - deadline: The end of the wait.
  ///   - watching: Whether the loop is to watch it.
  /// - Returns: Whether it fired; false if `deadline` came first.
  /// - Throws: What is due in the waiting greenlet; ``WatchFailure``.
  package func wait(
    for io: UnsafeMutablePointer<evg_io>, _ reason: WaitReason, until deadline: Deadline,
    _ watching: Watching
  ) throws -> Bool {
    // As the general `wait`, but the mark of success lies in the watch: the loop's callback need
    // not touch the waiter's stack, which is cold.
    let context = evg_current().unsafelyUnwrapped
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
    if deadline.isNow { return false }
    if stay(context, for: io, reason, until: deadline, watching) {
      if io.pointee.has_failed { throw WatchFailure(of: io) }
      return true
    }
    if evg_needs_care(context) { try Hub.takeCare(of: context) }
    return false
  }

  /// The wait itself, which throws nothing: if the watch has not fired, an error is due or
  /// `deadline` has come. If it has, it may have failed.
  @inline(__always)
  package func stay(
    _ context: UnsafeMutablePointer<evg_context>, for io: UnsafeMutablePointer<evg_io>,
    _ reason: WaitReason, until deadline: Deadline, _ watching: Watching
  ) -> Bool {
    evg_thread_self().pointee.io_budget = Hub.mostIO
    io.pointee.context = UnsafeMutableRawPointer(context)
    io.pointee.is_ready = false
    if watching != .nothing { start(io) }
    while true {
      let isTimeUp = suspend(context, for: reason.watching(io), until: deadline)
      if io.pointee.is_ready || isTimeUp || Hub.mustLeave(in: context) { break }
    }
    if watching == .again { rest(io) } else if watching == .once { stop(io) }
    io.pointee.context = nil
    return io.pointee.is_ready
  }
}

/// Makes calls that are libc's own also where that is patched: for the calling greenlet alone, if one
/// calls.
@inline(__always)
package func withoutPatching<R, Failure: Error>(
  _ call: () throws(Failure) -> R
) throws(Failure) -> R {
  guard let context = evg_current() else { return try call() }
  let before = context.pointee.is_unpatched
  context.pointee.is_unpatched = true
  defer { context.pointee.is_unpatched = before }
  return try call()
}

/// A descriptor cannot be watched any more.
package struct WatchFailure: Error {
  package let descriptor: Int32
  /// `EBADF` if it has been closed; else the kernel watches no more of them, or lacks memory, of
  /// which libev does not tell the one from the other.
  package let errno: Errno

  @inline(never)
  package init(of io: UnsafeMutablePointer<evg_io>) {
    io.pointee.has_failed = false
    descriptor = io.pointee.watcher.fd
    if io.pointee.is_forgotten {
      errno = .badFileDescriptor
      return
    }
    do throws(Errno) {
      try checkDescriptor(descriptor)
      errno = .noSpace
    } catch {
      errno = error
    }
  }
}

let wakeContext: @convention(c) (UnsafeMutablePointer<evg_timer>) -> Void = { timer in
  _ = evg_wake(timer.pointee.context.unsafelyUnwrapped.assumingMemoryBound(to: evg_context.self))
}

/// What fires when a descriptor watch that ``Hub/wait(for:_:until:_:)`` started is ready.
package let ioIsReady: @convention(c) (UnsafeMutablePointer<evg_io>, Int32) -> Void = { io, _ in
  guard let context = io.pointee.context else { return }
  io.pointee.is_ready = true
  _ = evg_wake(context.assumingMemoryBound(to: evg_context.self))
}

package protocol WaitListOwner: AnyObject {
  var waiters: WaitList { get set }
}

extension Hub {
  /// Ends the program with advice if another thread calls.
  ///
  /// - Parameter object: What it calls, for the advice.
  @inlinable
  @inline(__always)
  package func checkIsCurrent(_ object: @autoclosure () -> StaticString = "this object") {
    if evg_thread_self().pointee.hub_object != Unmanaged.passUnretained(self).toOpaque() {
      Hub.refuseForeignThread(object())
    }
  }

  @usableFromInline
  @inline(never)
  static func refuseForeignThread(_ object: StaticString) -> Never {
    fatal(
      "\(object) belongs to the hub of another thread. Reach that hub through its mailbox: "
        + "let mailbox = hub.mailbox there, mailbox.post { } here; or let an Inbox or the completer "
        + "of an AsyncResult carry the values")
  }
}
