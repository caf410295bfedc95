// Evergreen: a loop whose time passes when everybody waits for it.
// SPDX-License-Identifier: MIT
//
// Descriptors are watched by a real libev loop, which is only ever asked what is ready now. Timers
// are kept here. When nothing is ready, the clock jumps to the earliest timer, and that one fires, as
// do others with the same deadline.

import CGreenlet
import CLibev
import EventLoop
import EvergreenHub

/// The time of ``runGreenInVirtualTime(seed:_:)``.
public final class VirtualClock {
  private let loop: VirtualLoop
  private let begin: UInt64

  init(loop: VirtualLoop) {
    self.loop = loop
    begin = loop.now
  }

  /// How much virtual time has passed since the test began.
  public var elapsed: Duration { .nanoseconds(loop.now - begin) }

  /// Makes time pass, without running anybody: timers that are due fire at the next switch.
  public func advance(by duration: Duration) { loop.advance(by: duration) }
}

final class VirtualLoop: LoopInterface {
  private let real: Loop
  private(set) var now: UInt64 = 1_000_000_000_000
  private var timers = VirtualTimers()
  private var started: UInt64 = 0
  /// Decides in which order timers fire that are due together; `nil`: in that of their start.
  private var random: SeededRandom?

  init(random: SeededRandom? = nil) throws {
    real = try Loop()
    self.random = random
  }

  func readClock() -> UInt64 { now }

  func advance(by duration: Duration) {
    let (sum, isTooMuch) = now.addingReportingOverflow(duration.clampedNanoseconds)
    now = isTooMuch ? .max - 1 : sum
  }

  private var isSomebodyReady: Bool { evg_thread_self().pointee.ready_head != nil }

  func poll(wait: Bool) {
    real.poll(wait: wait && timers.isEmpty)
    if fireDue() || !wait { return }
    if isSomebodyReady { return }  // by a descriptor: time stands still
    guard let first = timers.first, first.pointee.deadline != .max else { return }
    now = max(now, first.pointee.deadline)
    _ = fireDue()
  }

  /// Fires the timers that are due: all of them, unless the order is random. Then some of them may be
  /// left for the next time, but only if somebody is ready.
  private func fireDue() -> Bool {
    var fired = false
    while let first = timers.first, first.pointee.deadline <= now {
      if random != nil, isSomebodyReady, random!.oneIn(2) { return true }
      timers.remove(first)
      first.pointee.fire(first)
      fired = true
    }
    return fired
  }

  func interrupt() { real.interrupt() }

  func start(_ timer: UnsafeMutablePointer<evg_timer>, at deadline: UInt64) {
    stop(timer)
    timer.pointee.deadline = deadline
    started += 1
    timers.insert(timer, rank: random?.next() ?? started)
  }

  func stop(_ timer: UnsafeMutablePointer<evg_timer>) { timers.remove(timer) }

  func stopTimers(where isOver: (UnsafeMutablePointer<evg_timer>) -> Bool) {
    for timer in timers.all where isOver(timer) { stop(timer) }
  }

  func start(_ io: UnsafeMutablePointer<evg_io>) { real.start(io) }

  func stop(_ io: UnsafeMutablePointer<evg_io>) { real.stop(io) }

  func rest(_ io: UnsafeMutablePointer<evg_io>) { real.rest(io) }

  func forget(descriptor: Int32) { real.forget(descriptor: descriptor) }

  func noteWatch(of descriptor: Int32, begins: Bool) {
    real.noteWatch(of: descriptor, begins: begins)
  }

  var referenceCount: Int { timers.count + real.referenceCount }

  func holdOpen(_ on: Bool) { real.holdOpen(on) }

  func destroy() {
    timers.removeAll()
    real.destroy()
  }
}
