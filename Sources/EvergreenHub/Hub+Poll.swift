// Evergreen: waiting for several descriptors at once, exactly as poll(2) would.
// SPDX-License-Identifier: MIT
//
// For Swift's `poll`, and for C code that calls poll(2), select(2) and their kin:
//
// 1. The kernel is asked first, without waiting. Mostly something is ready: nothing else is done then.
//    Files, which nobody can watch, and descriptors that are not open have had their answer, too.
// 2. Each descriptor gets a watch in the loop. If the same one stands there several times it has
//    several, which costs the kernel nothing.
// 3. libev knows reading and writing; a hang-up or an error it calls either. For what it cannot tell
//    (urgent data, the end of the peer's sending, a hang-up while there is data that nobody wants) it
//    would report too much, in each pass, or too little. Such descriptors go into a set of the
//    kernel's own, an epoll, which can be read when one of them has what was asked for, neither
//    earlier nor later. Their watches in the loop are for no event: by them alone it is learnt that
//    somebody closes the descriptor.
// 4. Where one cannot be watched, because the kernel has no more memory, descriptors or watches to
//    give, or no epoll, the kernel is asked again from time to time: poll(2) has no such error.
// 5. Whatever woke it, the kernel's answer counts. If there is none any more, because another greenlet
//    has taken what was there, the wait goes on.

import CGreenlet
import CLibev
package import EventLoop

#if canImport(Glibc)
package import Glibc
#else
package import Darwin
#endif

extension Hub {
  /// Waits until poll(2) has something to report of one of `descriptors`, and lets that report it.
  ///
  /// All is as there: negative descriptors are passed over, files are always ready, and what is not
  /// open is, with `POLLNVAL`; so is what is closed during the wait.
  ///
  /// - Parameters:
  ///   - descriptors: `revents` are written when it returns.
  ///   - deadline: The end of the wait; `.now` only looks.
  /// - Returns: Of how many there is something to report; 0 if `deadline` came first.
  /// - Throws: The ``Errno`` of poll(2); what is thrown into the caller while it waits.
  package func poll(
    _ descriptors: UnsafeMutableBufferPointer<pollfd>, until deadline: Deadline
  ) throws -> Int {
    try admitIO()
    let count = try askKernel(about: descriptors)
    if count > 0 || deadline.isNow { return count }
    try checkForDueError()
    let wait = PollWait(for: descriptors, on: self)
    defer { wait.end() }
    let ready = try wait.run(until: deadline)
    if ready == 0 { try checkForDueError() }
    return ready
  }

  /// The same for foreign code, at which nothing can be thrown, and which has looked already.
  ///
  /// - Returns: Of how many there is something to report; 0 if `deadline` came first, or if an error
  ///   is due in the caller, or after a signal.
  /// - Throws: The ``Errno`` of poll(2).
  package func pollInForeignCode(
    _ descriptors: UnsafeMutableBufferPointer<pollfd>, until deadline: Deadline
  ) throws(Errno) -> Int {
    // Without descriptors and without an end only a signal's handler can wake it.
    if descriptors.isEmpty { externalWakers += 1 }
    defer { if descriptors.isEmpty { externalWakers -= 1 } }
    let wait = PollWait(for: descriptors, on: self)
    defer { wait.end() }
    return try wait.run(until: deadline)
  }
}

private func askKernel(
  about descriptors: UnsafeMutableBufferPointer<pollfd>
) throws(Errno) -> Int {
  try checked {
    #if canImport(Glibc)
    withoutPatching { Int(Glibc.poll(descriptors.baseAddress, nfds_t(descriptors.count), 0)) }
    #else
    Int(Darwin.poll(descriptors.baseAddress, nfds_t(descriptors.count), 0))
    #endif
  }
}

/// The wait of one greenlet for several descriptors.
final class PollWait {
  private let hub: Hub
  private let context = evg_current().unsafelyUnwrapped
  private let descriptors: UnsafeMutableBufferPointer<pollfd>
  /// Each descriptor's, and that of the kernel's set. Not on the stack, for there may be thousands.
  private let watches: UnsafeMutablePointer<evg_io>
  private var set: Int32 = -1
  private var node: UnsafeMutablePointer<WaitNode>?
  /// The places of those that were closed during the wait. By now their numbers may be others'.
  private var closed: [Int] = []
  /// The loop does not see all of what may happen.
  private var isBlind = false

  private static let lookInterval = Duration.milliseconds(10)

  init(for descriptors: UnsafeMutableBufferPointer<pollfd>, on hub: Hub) {
    self.hub = hub
    self.descriptors = descriptors
    watches = .allocate(capacity: descriptors.count + 1)
    hub.polls[ObjectIdentifier(self)] = self
    for index in descriptors.indices { watch(index) }
    start(watches + descriptors.count, of: set, evg_read)
  }

  deinit { watches.deallocate() }

  private func watch(_ index: Int) {
    let descriptor = descriptors[index]
    let events = loopEvents(for: descriptor.events)
    start(watches + index, of: descriptor.fd, events ?? 0)
    guard descriptor.fd >= 0 else { return }
    hub.loop.noteWatch(of: descriptor.fd, begins: true)
    if events == nil && !addToSet(index) { isBlind = true }
  }

  private func addToSet(_ index: Int) -> Bool {
    if set < 0 { set = evg_poll_set_open() }
    let (number, events) = (descriptors[index].fd, descriptors[index].events)
    let error = evg_poll_set_put(set, number, events, false)
    guard error == EEXIST else { return error == 0 }
    let all = descriptors[...index].reduce(0) { $1.fd == number ? $0 | $1.events : $0 }
    return evg_poll_set_put(set, number, all, true) == 0
  }

  private func start(_ io: UnsafeMutablePointer<evg_io>, of descriptor: Int32, _ events: Int32) {
    evg_io_init(
      io, descriptor, events, events != 0, pollHasFired, Unmanaged.passUnretained(self).toOpaque())
    if descriptor >= 0 { hub.start(io) }
  }

  /// - Returns: Of how many there is something to report; 0 if `deadline` came first, or if the wait
  ///   must be left.
  func run(until deadline: Deadline) throws(Errno) -> Int {
    let reason =
      descriptors.count == 1 && descriptors[0].fd >= 0
      ? WaitReason("polling descriptor", Int64(descriptors[0].fd))
      : WaitReason("polling, number of descriptors:", Int64(descriptors.count))
    while true {
      let look = isBlind ? Deadline(after: PollWait.lookInterval, on: hub) : .never
      let isLast = deadline.nanoseconds <= look.nanoseconds
      let isWoken = hub.stay(
        context, reason, until: isLast ? deadline : look, enlist: { node = $0 },
        delist: { _ in node = nil })
      node = nil
      if !isWoken && Hub.mustLeave(in: context) { return 0 }
      var count = try askKernel(about: descriptors)
      for index in closed {
        if descriptors[index].revents == 0 { count += 1 }
        descriptors[index].revents = Int16(POLLNVAL)
      }
      if count > 0 || (isLast && !isWoken) { return count }
    }
  }

  fileprivate func hasFired(_ io: UnsafeMutablePointer<evg_io>) {
    if io.pointee.is_forgotten {
      closed.append(io - watches)
    } else if io.pointee.has_failed {
      isBlind = true
    }
    guard let node else { return }
    node.signal()
  }

  /// Leaves nothing behind.
  func end() {
    guard hub.polls.removeValue(forKey: ObjectIdentifier(self)) != nil else { return }
    hub.stop(watches + descriptors.count)
    if set >= 0 {
      hub.loop.forget(descriptor: set)
      evg_poll_set_close(set)
    }
    for index in descriptors.indices.reversed() {
      hub.stop(watches + index)
      let number = watches[index].watcher.fd
      if number >= 0 { hub.loop.noteWatch(of: number, begins: false) }
    }
  }

  /// In the child of a fork.
  func followFork() {
    if context.pointee.state == EVG_LOST { end() }
  }
}

private let pollHasFired: @convention(c) (UnsafeMutablePointer<evg_io>, Int32) -> Void = {
  io, _ in
  Unmanaged<PollWait>.fromOpaque(io.pointee.context.unsafelyUnwrapped).takeUnretainedValue()
    .hasFired(io)
}

/// What the loop is to watch for these events; `nil` if it cannot tell them from others.
private func loopEvents(for events: Int16) -> Int32? {
  let wanted = Int32(UInt16(bitPattern: events)) & ~(POLLERR | POLLHUP | POLLNVAL)
  switch wanted {
  case POLLIN, POLLIN | POLLRDNORM: return evg_read
  case POLLOUT, POLLOUT | POLLWRNORM: return evg_write
  case POLLIN | POLLOUT, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM: return evg_read | evg_write
  default: return nil
  }
}
