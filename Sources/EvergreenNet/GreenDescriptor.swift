// Evergreen: a non-blocking descriptor on which greenlets wait.
// SPDX-License-Identifier: MIT
//
// One greenlet may wait to read and another to write. Each direction has a descriptor watch of its
// own, made once and started anew for each wait; libev asks the kernel for nothing if a watch is
// stopped and started between two polls.
//
// Every operation has the same shape, `perform`: try; interrupted, try again; would block, wait;
// else answer. After a read that returned less than was asked for the kernel has nothing left, so
// the next one waits first and saves the call that could only say so.
//
// `close` stops the watches and wakes both waiters before it gives the number back to the system:
// they see the number gone, and whoever gets it next is never disturbed.

import CLibev
package import EvergreenHub
import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

package final class GreenDescriptor {
  /// -1 once it is closed or detached.
  package private(set) var number: Int32
  package let hub = Hub.current
  private let sides: UnsafeMutablePointer<Side>
  /// The last read left nothing in the kernel.
  package var isDrained = false

  private struct Side {
    var io: evg_io
    var user: Unmanaged<AnyGreenlet>?
  }

  package enum Direction: Int { case read, write }

  /// Takes over a descriptor that does not block.
  package init(_ number: Int32) {
    self.number = number
    sides = .allocate(capacity: 2)
    for direction in [Direction.read, .write] {
      let side = sides + direction.rawValue
      evg_io_init(
        UnsafeMutableRawPointer(side).assumingMemoryBound(to: evg_io.self), number,
        direction == .read ? evg_read : evg_write, true, ioIsReady, nil)
      side.pointee.user = nil
    }
  }

  deinit {
    close()
    sides.deallocate()
  }

  package var isOpen: Bool { number >= 0 }

  // MARK: Operations

  /// Makes a system call, and waits and repeats it while it would block.
  ///
  /// - Parameters:
  ///   - operation: For texts of errors.
  ///   - direction: What to wait for.
  ///   - deadline: For the whole of it.
  ///   - waitsFirst: There is nothing to be had yet; do not ask the kernel.
  ///   - midway: The caller has done a part already; nobody may come between.
  ///   - address: For texts of errors.
  ///   - call: The system call, -1 with errno if it fails.
  /// - Returns: What the system call returned.
  /// - Throws: ``SocketError``, ``ConcurrentUse``, what is thrown into the caller while it waits.
  @inline(__always)
  package func perform<I: FixedWidthInteger>(
    _ operation: SocketError.Operation, _ direction: Direction, until deadline: Deadline,
    waitsFirst: Bool = false, midway: Bool = false,
    about address: @autoclosure () -> SocketAddress? = nil, _ call: (Int32) -> I
  ) throws -> I {
    hub.checkIsCurrent()
    try checkUnused(direction, operation)
    if midway && hub.ioBudget <= 0 { try giveTurn(direction) } else { try hub.chargeIO() }
    var waitsNow = waitsFirst && deadline != .now
    var refusals = 0
    while true {
      guard number >= 0 else { throw SocketError.closed(operation, address()) }
      if !waitsNow {
        let result = call(number)
        if result != -1 { return result }
        let error = Errno(rawValue: errno)
        if error == .interrupted { continue }
        guard error == .resourceTemporarilyUnavailable else {
          throw SocketError(operation, error, address())
        }
      }
      waitsNow = false
      let isReady =
        direction == .write && refusals > 1
        ? try pause(direction, for: operation, until: deadline, after: refusals)
        : try wait(direction, for: operation, until: deadline)
      guard isReady else { throw SocketError(operation, .timedOut, address()) }
      refusals += 1
    }
  }

  /// Lets others run, but nobody in this direction.
  @inline(never)
  private func giveTurn(_ direction: Direction) throws {
    let side = sides + direction.rawValue
    side.pointee.user = .passUnretained(try hub.blockingGreenlet())
    defer { side.pointee.user = nil }
    try hub.chargeIO()
  }

  /// Waits a while where readiness says nothing: the kernel calls a Unix datagram socket writable
  /// although the receiver's queue is full, and would have us ask again at once, for ever.
  ///
  /// - Returns: False if `deadline` came.
  @inline(never)
  private func pause(
    _ direction: Direction, for operation: SocketError.Operation, until deadline: Deadline,
    after refusals: Int
  ) throws -> Bool {
    let milliseconds = Int64(1) << min(refusals - 2, 5)
    let pauseEnd = Deadline(after: .milliseconds(milliseconds), on: hub)
    let end = pauseEnd.nanoseconds < deadline.nanoseconds ? pauseEnd : deadline
    return try waiting(direction, operation) { io, reason in
      let isWoken = try hub.wait(for: io, reason, until: end, watching: false)
      return isWoken || end != deadline
    }
  }

  /// Waits until the descriptor is ready, or has been closed. False if `deadline` came first.
  package func wait(
    _ direction: Direction, for operation: SocketError.Operation, until deadline: Deadline
  ) throws -> Bool {
    try waiting(direction, operation) { io, reason in
      try hub.wait(for: io, reason, until: deadline)
    }
  }

  /// Makes the caller the one that waits in this direction, for the time of `body`.
  @inline(__always)
  private func waiting(
    _ direction: Direction, _ operation: SocketError.Operation,
    _ body: (UnsafeMutablePointer<evg_io>, WaitReason) throws -> Bool
  ) throws -> Bool {
    try checkUnused(direction, operation)
    let side = sides + direction.rawValue
    side.pointee.user = .passUnretained(try hub.blockingGreenlet())
    defer { side.pointee.user = nil }
    hub.ioBudget = Hub.mostIO
    let reason =
      direction == .read
      ? WaitReason("reading descriptor", Int64(number))
      : WaitReason("writing descriptor", Int64(number))
    return try body(io(direction), reason)
  }

  /// Throws ``ConcurrentUse`` while a greenlet waits in this direction.
  @inline(__always)
  func checkUnused(_ direction: Direction, _ operation: SocketError.Operation) throws {
    if let user = sides[direction.rawValue].user {
      throw ConcurrentUse(
        of: "descriptor \(number) to \(operation)", by: Greenlet.current,
        while: user.takeUnretainedValue())
    }
  }

  private func io(_ direction: Direction) -> UnsafeMutablePointer<evg_io> {
    UnsafeMutableRawPointer(sides + direction.rawValue).assumingMemoryBound(to: evg_io.self)
  }

  // MARK: Ending

  /// Wakes who waits in this direction, to look again.
  package func wake(_ direction: Direction) {
    let io = io(direction)
    guard io.pointee.context != nil else { return }
    hub.stop(io)
    ioIsReady(io, 0)
  }

  /// Wakes who waits, then closes. Nothing happens the second time.
  package func close() {
    if let number = release() { _ = systemClose(number) }
  }

  /// Wakes who waits, and gives the number away, still open.
  package func release() -> Int32? {
    guard number >= 0 else { return nil }
    if !hub.isCurrent { return releaseElsewhere() }
    let number = number
    self.number = -1
    wake(.read)
    wake(.write)
    hub.loop.forget(descriptor: number)
    return number
  }

  /// The last reference went away after the hub had ended, or on another thread: nobody can be
  /// waiting, for who waits holds a reference. Somebody who is could not be woken from here.
  private func releaseElsewhere() -> Int32 {
    if io(.read).pointee.context != nil || io(.write).pointee.context != nil {
      hub.checkIsCurrent()
    }
    defer { number = -1 }
    return number
  }
}

func systemClose(_ number: Int32) -> Int32 {
  #if canImport(Glibc)
  Glibc.close(number)
  #else
  Darwin.close(number)
  #endif
}

/// Makes a descriptor non-blocking and closed on exec.
func makeNonBlocking(_ descriptor: Int32) throws(Errno) {
  let flags = try checked { fcntl(descriptor, F_GETFL) }
  if flags & O_NONBLOCK == 0 { _ = try checked { fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) } }
  _ = try checked { fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
}

// MARK: Any descriptor

/// Waits until a descriptor can be read, or has an error or an end to report.
///
/// The descriptor stays what it is; it need not be non-blocking. If it is closed meanwhile, the wait
/// ends only by its timeout: close what greenlets wait on through the object that owns it.
///
/// - Parameters:
///   - descriptor: An open descriptor of any kind.
///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
/// - Returns: Whether it is ready.
/// - Throws: ``SocketError`` if it is no open descriptor; what is thrown into the caller.
///
/// > Switch point: Yes, unless it is ready already.
///
/// > gevent: `gevent.socket.wait_read(fileno, timeout)`.
public func waitReadable(_ descriptor: Int32, timeout: Duration? = nil) throws -> Bool {
  try wait(descriptor, evg_read, Int16(POLLIN), "reading descriptor", timeout)
}

/// Waits until a descriptor can be written, or has an error to report; see
/// ``waitReadable(_:timeout:)``.
///
/// > Switch point: Yes, unless it is ready already.
///
/// > gevent: `gevent.socket.wait_write(fileno, timeout)`.
public func waitWritable(_ descriptor: Int32, timeout: Duration? = nil) throws -> Bool {
  try wait(descriptor, evg_write, Int16(POLLOUT), "writing descriptor", timeout)
}

private func wait(
  _ descriptor: Int32, _ events: Int32, _ poll: Int16, _ text: StaticString, _ timeout: Duration?
) throws -> Bool {
  let hub = Hub.current
  do { try checkDescriptor(descriptor) } catch { throw SocketError(.wait, error) }
  try hub.chargeIO()
  var look = pollfd(fd: descriptor, events: poll, revents: 0)
  if systemPoll(&look) > 0 { return true }
  return try withUnsafeTemporaryAllocation(of: evg_io.self, capacity: 1) { memory in
    let io = memory.baseAddress!
    evg_io_init(io, descriptor, events, true, ioIsReady, nil)
    return try hub.wait(
      for: io, WaitReason(text, Int64(descriptor)), until: Deadline(after: timeout, on: hub))
  }
}

private func systemPoll(_ one: inout pollfd) -> Int32 {
  #if canImport(Glibc)
  Glibc.poll(&one, 1, 0)
  #else
  Darwin.poll(&one, 1, 0)
  #endif
}
