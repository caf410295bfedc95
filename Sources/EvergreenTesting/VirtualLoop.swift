// Evergreen: a loop whose time passes when everybody waits for it.
// SPDX-License-Identifier: MIT
//
// Descriptors are watched by a real libev loop, which is only ever asked what is ready now. Timers
// are kept here. When nothing is ready, the clock jumps to the earliest timer, and that one fires.

import CGreenlet
import CLibev
import EventLoop
import EvergreenHub

/// The time of ``runGreenInVirtualTime(_:)``.
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
  private typealias Timer = UnsafeMutablePointer<evg_timer>

  private let real: Loop
  private(set) var now: UInt64 = 1_000_000_000_000
  /// By deadline; those with the same deadline in the order of their start.
  private var timers: [Timer] = []

  init() throws { real = try Loop() }

  func readClock() -> UInt64 { now }

  func advance(by duration: Duration) {
    let (sum, isTooMuch) = now.addingReportingOverflow(duration.clampedNanoseconds)
    now = isTooMuch ? .max - 1 : sum
  }

  func poll(wait: Bool) {
    real.poll(wait: wait && timers.isEmpty)
    if fireDue() || !wait { return }
    if evg_thread_self().pointee.ready_head != nil { return }  // by a descriptor: time stands still
    guard let first = timers.first, first.pointee.deadline != .max else { return }
    now = max(now, first.pointee.deadline)
    _ = fireDue()
  }

  private func fireDue() -> Bool {
    var fired = false
    while let first = timers.first, first.pointee.deadline <= now {
      timers.removeFirst()
      first.pointee.armed = false
      first.pointee.fire(first)
      fired = true
    }
    return fired
  }

  func interrupt() { real.interrupt() }

  func start(_ timer: UnsafeMutablePointer<evg_timer>, at deadline: UInt64) {
    stop(timer)
    timer.pointee.deadline = deadline
    timer.pointee.armed = true
    let place = timers.firstIndex { $0.pointee.deadline > deadline } ?? timers.endIndex
    timers.insert(timer, at: place)
  }

  func stop(_ timer: UnsafeMutablePointer<evg_timer>) {
    guard timer.pointee.armed else { return }
    timer.pointee.armed = false
    timers.removeAll { $0 == timer }
  }

  func stopTimers(where isOver: (UnsafeMutablePointer<evg_timer>) -> Bool) {
    for timer in timers where isOver(timer) { stop(timer) }
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
    for timer in timers { timer.pointee.armed = false }
    timers = []
    real.destroy()
  }
}
