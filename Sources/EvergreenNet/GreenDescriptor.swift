// Evergreen: a non-blocking descriptor on which greenlets wait.
// SPDX-License-Identifier: MIT
//
// One greenlet may wait to read and another to write. Each direction has a descriptor watch of its
// own, made once. After a wait to read it rests: most likely the next wait is for the same, and libev
// need not be told. After a wait to write it is stopped, for there is nearly always room.
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
  @exclusivity(unchecked) package private(set) var number: Int32
  /// The last read left nothing in the kernel.
  @exclusivity(unchecked) package var isDrained = false
  package let hub = Hub.current
  private let sides: UnsafeMutablePointer<Side>

  private struct Side {
    var io: evg_io
    /// Who is between two steps of one operation; who waits is known to the watch.
    var user: Unmanaged<AnyGreenlet>?
  }

  package enum Direction: Int { case read, write }

  /// Takes over a descriptor that does not block.
  package init(_ number: Int32) {
    self.number = number
    sides = .allocate(capacity: 2)
    func prepare(_ side: UnsafeMutablePointer<Side>, _ events: Int32) {
      evg_io_init(
        UnsafeMutableRawPointer(side).assumingMemoryBound(to: evg_io.self), number, events, true,
        ioIsReady, nil)
      side.pointee.user = nil
    }
    prepare(sides, evg_read)
    prepare(sides + 1, evg_write)
  }

  deinit {
    close()
    if !evg_io_is_active(io(.read)) { return sides.deallocate() }
    giveToLoop()
  }

  /// A watch rests in a loop that cannot be asked from here: another thread's, or one that is gone.
  private func giveToLoop() {
    nonisolated(unsafe) let (hub, sides) = (self.hub, self.sides)
    let isTaken = hub.backDoor.post {
      hub.stop(UnsafeMutableRawPointer(sides).assumingMemoryBound(to: evg_io.self))
      sides.deallocate()
    }
    if !isTaken { sides.deallocate() }
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
    try checkUnused(direction, operation)
    if hub.chargeIO() { try giveTurn(direction, for: operation, midway: midway) }
    var waitsNow = waitsFirst && !deadline.isNow
    var refusals = 0
    while true {
      guard number >= 0 else { throw closed(operation, address()) }
      if !waitsNow {
        let result = withoutPatching { call(number) }
        if result != -1 { return result }
        let error = errno
        if error == EINTR { continue }
        guard error == EAGAIN || error == EWOULDBLOCK else {
          throw failure(operation, error, address())
        }
      }
      waitsNow = false
      guard try waitToRepeat(direction, operation, deadline, refusals) else {
        throw failure(operation, ETIMEDOUT, address())
      }
      refusals += 1
    }
  }

  // What is rare is not inlined: it would enlarge the frames that lie on the stacks of all who wait.

  @inline(never)
  private func closed(_ operation: SocketError.Operation, _ address: SocketAddress?) -> any Error {
    SocketError.closed(operation, address)
  }

  @inline(never)
  private func failure(
    _ operation: SocketError.Operation, _ error: Int32, _ address: SocketAddress?
  ) -> any Error {
    SocketError(operation, Errno(rawValue: error), address)
  }

  @inline(__always)
  private func waitToRepeat(
    _ direction: Direction, _ operation: SocketError.Operation, _ deadline: Deadline,
    _ refusals: Int
  ) throws -> Bool {
    if direction == .write && refusals > 1 {
      return try pause(direction, for: operation, until: deadline, after: refusals)
    }
    return try wait(direction, for: operation, until: deadline)
  }

  /// Lets others run; midway nobody in this direction. Else one of them may have begun, and wait now.
  @inline(never)
  private func giveTurn(
    _ direction: Direction, for operation: SocketError.Operation, midway: Bool
  ) throws {
    guard midway else {
      try hub.giveTurn()
      return try checkUnused(direction, operation)
    }
    sides[direction.rawValue].user = .passUnretained(Greenlet.current)
    defer { sides[direction.rawValue].user = nil }
    try hub.giveTurn()
  }

  /// Waits a while where readiness says nothing: the kernel calls a Unix datagram socket writable
  /// although the receiver's queue is full, and would have us ask again at once, for ever.
  ///
  /// - Parameters:
  ///   - direction: Whose user waits, to be woken by ``close()``.
  ///   - operation: For texts of errors.
  ///   - deadline: The end of the wait.
  ///   - refusals: How often the kernel has said no, 2 or more; the pause grows with it.
  /// - Returns: False if `deadline` came.
  /// - Throws: ``ConcurrentUse``; what is thrown into the caller while it waits.
  @inline(never)
  package func pause(
    _ direction: Direction, for operation: SocketError.Operation, until deadline: Deadline,
    after refusals: Int
  ) throws -> Bool {
    try checkUnused(direction, operation)
    let milliseconds = Int64(1) << min(refusals - 2, 5)
    let pauseEnd = Deadline(after: .milliseconds(milliseconds), on: hub)
    let end = pauseEnd.nanoseconds < deadline.nanoseconds ? pauseEnd : deadline
    let isWoken = try hub.wait(for: io(direction), reason(direction), until: end, .nothing)
    return isWoken || end != deadline
  }

  /// Waits until the descriptor is ready, or has been closed. False if `deadline` came first.
  @inline(never)
  package func wait(
    _ direction: Direction, for operation: SocketError.Operation, until deadline: Deadline
  ) throws -> Bool {
    try checkUnused(direction, operation)
    do {
      return try hub.wait(
        for: io(direction), reason(direction), until: deadline,
        direction == .read ? .again : .once)
    } catch let failure as WatchFailure {
      throw SocketError(operation, failure)
    }
  }

  @inline(__always)
  private func reason(_ direction: Direction) -> WaitReason {
    direction == .read
      ? WaitReason("reading descriptor", Int64(number))
      : WaitReason("writing descriptor", Int64(number))
  }

  /// Throws ``ConcurrentUse`` while a greenlet waits in this direction.
  @inline(__always)
  func checkUnused(_ direction: Direction, _ operation: SocketError.Operation) throws {
    let side = sides + direction.rawValue
    if side.pointee.io.context != nil || side.pointee.user != nil {
      try refuse(direction, operation)
    }
  }

  @inline(never)
  private func refuse(_ direction: Direction, _ operation: SocketError.Operation) throws {
    hub.checkIsCurrent("a socket")
    let user = sides[direction.rawValue].user?.takeUnretainedValue()
    if let user, user.isReady {
      // It stayed in the parent of this process, between two steps of an operation.
      sides[direction.rawValue].user = nil
      return
    }
    throw ConcurrentUse(
      of: "descriptor \(number) to \(operation)", by: Greenlet.current,
      while: user ?? hub.greenlet(waitingFor: io(direction)))
  }

  @inline(__always)
  private func io(_ direction: Direction) -> UnsafeMutablePointer<evg_io> {
    UnsafeMutableRawPointer(sides + direction.rawValue).assumingMemoryBound(to: evg_io.self)
  }

  // MARK: Ending

  /// Wakes who waits in this direction, to look again.
  package func wake(_ direction: Direction) {
    let io = io(direction)
    hub.stop(io)
    if io.pointee.context != nil { ioIsReady(io, 0) }
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
      hub.checkIsCurrent("a socket")
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
/// The descriptor stays what it is; it need not be non-blocking. If it is a socket's and that is closed
/// meanwhile, the wait fails. If `close(2)` is called instead, it ends only by its timeout: close what
/// greenlets wait on through the object that owns it.
///
/// - Parameters:
///   - descriptor: An open descriptor of any kind.
///   - timeout: The longest wait; `nil` waits for ever, `.zero` only looks.
/// - Returns: Whether it is ready.
/// - Throws: ``SocketError`` if it is no open descriptor, or no longer one; what is thrown into the
///   caller.
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
  do { try checkDescriptor(descriptor) } catch {
    throw SocketError.about(descriptor, .wait, error)
  }
  try hub.admitIO()
  var look = pollfd(fd: descriptor, events: poll, revents: 0)
  if systemPoll(&look) > 0 { return true }
  return try withUnsafeTemporaryAllocation(of: evg_io.self, capacity: 1) { memory in
    let io = memory.baseAddress!
    evg_io_init(io, descriptor, events, true, ioIsReady, nil)
    hub.loop.noteWatch(of: descriptor, begins: true)
    defer { hub.loop.noteWatch(of: descriptor, begins: false) }
    do {
      return try hub.wait(
        for: io, WaitReason(text, Int64(descriptor)), until: Deadline(after: timeout, on: hub),
        .once)
    } catch let failure as WatchFailure {
      throw SocketError(.wait, failure)
    }
  }
}

/// What there is to be had of one descriptor now.
func systemPoll(_ one: inout pollfd) -> Int32 {
  #if canImport(Glibc)
  withoutPatching { Glibc.poll(&one, 1, 0) }
  #else
  Darwin.poll(&one, 1, 0)
  #endif
}
