// Evergreen: how a greenlet waits in a call of libc.
// SPDX-License-Identifier: MIT
//
// Nothing can be thrown here: C is below. An error that is due stays due, and the call is told its
// errno (`AnyGreenlet.strike`). Whatever throws next, in Swift, throws the error.

#if os(Linux)
import CGreenCalls
import CGreenlet
import CLibev
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EventLoop
import Glibc
import Greenlets

package enum GreenWaiting {
  /// Tells the green calls how to wait, once.
  package static let isSet: Bool = {
    let hub = UnsafeMutablePointer<evg_patch_hub>.allocate(capacity: 1)
    hub.initialize(
      to: evg_patch_hub(
        adopt: { Hub.adoptThread(rehearsing: rehearseWaits) },
        now: { Hub.current.readClock() }, wait: waitForDescriptor, wait_any: waitForAny,
        pause: pause, suspend: suspend, leave: leave, door: door, wake_other: wakeOther,
        run: runElsewhere,
        give_turn: giveTurn, refusal: refusal, wake_hub: wakeHub, has_resolver: hasResolver,
        resolve: resolve, forget: forget))
    evg_patch_hub_set(hub)
    evg_when_interrupted { _ = evg_interrupt_waits() }
    return true
  }()

  /// Where jobs run that are no look-ups. Each occupies a thread as long as it waits, so there may be
  /// many.
  static let pool = ThreadPool(maxThreads: 1024)
}

/// What has ended a wait that brought nothing: an errno, or 0 if time is up.
private func reason(of greenlet: AnyGreenlet) -> Int32 {
  let context = evg_current()!
  let isInterrupted = context.pointee.is_interrupted
  context.pointee.is_interrupted = false
  let error = greenlet.strike()
  return error != 0 ? error : isInterrupted ? EINTR : 0
}

private func end(of greenlet: AnyGreenlet) -> Int32 {
  let error = reason(of: greenlet)
  return error != 0 ? error : Int32(EVG_WAIT_TIME_UP)
}

@c(evg_green_prepare)
func prepareGreenCalls() { _ = GreenWaiting.isSet }

private let waitForDescriptor: @convention(c) (Int32, Int16, UInt64) -> Int32 = {
  descriptor, events, deadline in
  let hub = Hub.current
  let greenlet = Greenlet.current
  let due = greenlet.strike()
  if due != 0 { return due }
  do throws(Errno) { try checkDescriptor(descriptor) } catch { return error.rawValue }
  let isReading = events & Int16(POLLIN) != 0
  return withUnsafeTemporaryAllocation(of: evg_io.self, capacity: 1) { memory in
    let io = memory.baseAddress!
    evg_io_init(io, descriptor, isReading ? evg_read : evg_write, true, ioIsReady, nil)
    hub.loop.noteWatch(of: descriptor, begins: true)
    defer { hub.loop.noteWatch(of: descriptor, begins: false) }
    let reason = WaitReason(
      isReading ? "reading descriptor" : "writing descriptor", Int64(descriptor))
    let isReady = hub.stay(
      evg_current()!, for: io, reason, until: Deadline(nanoseconds: deadline), .once)
    guard isReady else { return end(of: greenlet) }
    return io.pointee.has_failed ? WatchFailure(of: io).errno.rawValue : Int32(EVG_WAIT_OVER)
  }
}

private let waitForAny: @convention(c) (UnsafeMutableRawPointer?, Int, UInt64) -> Int32 = {
  descriptors, count, deadline in
  let greenlet = Greenlet.current
  let due = greenlet.strike()
  if due != 0 { return -due }
  do throws(Errno) {
    let count = try Hub.current.pollInForeignCode(
      UnsafeMutableBufferPointer(
        start: descriptors?.assumingMemoryBound(to: pollfd.self), count: count),
      until: Deadline(nanoseconds: deadline))
    return count > 0 ? Int32(count) : -reason(of: greenlet)
  } catch {
    return -error.rawValue
  }
}

private let pause: @convention(c) (UnsafePointer<CChar>, UInt64) -> Int32 = { reason, deadline in
  let hub = Hub.current
  let greenlet = Greenlet.current
  let due = greenlet.strike()
  if due != 0 { return due }
  _ = hub.stay(
    evg_current()!, WaitReason(cString: reason), until: Deadline(nanoseconds: deadline),
    enlist: { _ in },
    delist: { _ in })
  return end(of: greenlet)
}

private let suspend: @convention(c) (UnsafePointer<CChar>, Int64, UInt64) -> Bool = {
  reason, argument, deadline in
  Hub.current.suspend(
    evg_current()!, for: WaitReason(cString: reason, argument),
    until: Deadline(nanoseconds: deadline))
}

private let leave: @convention(c) () -> Int32 = { reason(of: Greenlet.current) }

private let door: @convention(c) () -> UnsafeMutableRawPointer = {
  Unmanaged.passUnretained(Hub.current.backDoor).toOpaque()
}

private let wakeOther: @convention(c) (UnsafeMutableRawPointer) -> Void = { door in
  Unmanaged<MailboxCore>.fromOpaque(door).takeUnretainedValue().wakeHub()
}

private let runElsewhere: @convention(c) (UnsafeMutablePointer<evg_patch_job>) -> Int32 = { job in
  let greenlet = Greenlet.current
  let due = greenlet.strike()
  if due != 0 {
    job.pointee.drop(job)
    return due
  }
  nonisolated(unsafe) let job = job
  let resolver = job.pointee.is_look_up ? Hub.current.resolver as? ThreadPoolResolver : nil
  let pool = resolver?.pool ?? GreenWaiting.pool
  let isThrough = pool.runInForeignCode({ job.pointee.run(job) }) {
    job.pointee.drop(job)
  }
  if isThrough { return Int32(EVG_WAIT_OVER) }
  let error = reason(of: greenlet)
  return error != 0 ? error : EAGAIN  // no thread to be had
}

/// Waits in all ways, for what is there already.
private func rehearseWaits() {
  var ends: [Int32] = [-1, -1]
  guard pipe(&ends) == 0 else { return }
  defer { for end in ends { close(end) } }
  _ = write(ends[1], "x", 1)
  _ = waitForDescriptor(ends[0], Int16(POLLIN), .max)
  var polled = [pollfd(fd: ends[0], events: Int16(POLLIN | POLLPRI), revents: 0)]
  _ = waitForAny(&polled, 1, .max)
  _ = pause("a rehearsal", 0)
}

private let giveTurn: @convention(c) () -> Void = { Hub.current.giveTurnInForeignCode() }

/// Foreign code may try again and again: others run meanwhile, and code that gives up only when it
/// likes (`Thread.sleep` at its time, libcurl when its thread has looked a name up) does not spin.
private let refusal: @convention(c) () -> Int32 = {
  let greenlet = Greenlet.current
  let strikes = greenlet.strikes
  guard strikes > 0 else { return 0 }
  if strikes < 32 {
    evg_yield()
  } else {
    let hub = Hub.current
    let pause = Duration.milliseconds(1 << min((strikes - 32) / 16, 4))
    _ = hub.stay(
      evg_current()!, WaitReason("foreign code to give up"), until: hub.deadline(after: pause),
      enlist: { _ in }, delist: { _ in })
  }
  return greenlet.strike()
}

private let forget: @convention(c) (Int32) -> Void = { descriptor in
  Hub.current.loop.forget(descriptor: descriptor)
}

private let wakeHub: @convention(c) () -> Void = { Hub.currentIfAny?.loop.interrupt() }

// MARK: A resolver of the hub's own

private let hasResolver: @convention(c) () -> Bool = {
  !(Hub.current.resolver is ThreadPoolResolver)
}

// In a greenlet of its own, for a resolver may throw what is due in the caller.
private let resolve:
  @convention(c) (UnsafePointer<CChar>, Int32, UnsafeMutablePointer<CChar>, Int32) -> Int32 = {
    node, family, texts, most in
    let host = String(cString: node)
    let asker = spawn {
      try Hub.current.resolver.addresses(
        of: host, port: 0, family: family == AF_UNSPEC ? nil : .init(rawValue: family))
    }
    guard asker.joinInForeignCode() else {
      errno = Greenlet.current.strike()
      _ = try? asker.kill(waiting: false)
      return EAI_SYSTEM
    }
    guard let found = asker.value else { return (asker.error as? ResolverError)?.code ?? EAI_FAIL }
    let answers = found.compactMap(\.host).prefix(Int(most))
    for (index, answer) in answers.enumerated() {
      strncpy(texts + index * Int(EVG_ADDRESS_TEXT), answer, Int(EVG_ADDRESS_TEXT) - 1)
    }
    return Int32(answers.count)
  }
#endif
