// Evergreen: tests of the raw paths that the hub uses
// SPDX-License-Identifier: MIT

import CLibev
import EventLoop
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Raw watchers with stable addresses, and what they reported.
private final class Rig {
  let loop: any LoopInterface
  private(set) var log: [String] = []
  private var timers: [UnsafeMutablePointer<evg_timer>] = []
  private var names: [UnsafeMutableRawPointer: String] = [:]
  /// Whether a descriptor watch goes on when it has fired.
  var keepsWatching = false
  private var ios: [UnsafeMutablePointer<evg_io>] = []
  var onFire: (String) -> Void = { _ in }

  init(_ loop: any LoopInterface) {
    self.loop = loop
  }

  deinit {
    for timer in timers {
      loop.stop(timer)
      timer.deallocate()
    }
    for io in ios {
      loop.stop(io)
      io.deallocate()
    }
  }

  func timer(_ name: String) -> UnsafeMutablePointer<evg_timer> {
    let timer = UnsafeMutablePointer<evg_timer>.allocate(capacity: 1)
    evg_timer_init(
      timer,
      { timer in
        let rig = Unmanaged<Rig>.fromOpaque(timer.pointee.context!).takeUnretainedValue()
        #expect(!timer.pointee.armed)
        #expect(rig.loop.readClock() >= timer.pointee.deadline)
        rig.fired(timer)
      }, Unmanaged.passUnretained(self).toOpaque())
    timers.append(timer)
    names[timer] = name
    return timer
  }

  func io(_ name: String, _ fd: Int32, _ events: Int32, fresh: Bool = true)
    -> UnsafeMutablePointer<evg_io>
  {
    let io = UnsafeMutablePointer<evg_io>.allocate(capacity: 1)
    evg_io_init(
      io, fd, events, fresh,
      { io, events in
        let rig = Unmanaged<Rig>.fromOpaque(io.pointee.context!).takeUnretainedValue()
        #expect(evg_io_is_active(io))
        if !rig.keepsWatching { rig.loop.stop(io) }
        rig.fired(io)
      }, Unmanaged.passUnretained(self).toOpaque())
    ios.append(io)
    names[io] = name
    return io
  }

  private func fired(_ watcher: UnsafeMutableRawPointer) {
    let name = names[watcher] ?? "?"
    log.append(name)
    onFire(name)
  }

  func pollUntilIdle() {
    while loop.referenceCount > 0 { loop.poll(wait: true) }
  }
}

@Suite struct LoopInterfaceTests {
  /// As libev does where the kernel refuses to watch one more.
  private func giveUp(_ io: UnsafeMutablePointer<evg_io>, _ loop: Loop) {
    let raw = loop.state.pointee.raw
    let watcher = UnsafeMutableRawPointer(io).assumingMemoryBound(to: ev_io.self)
    ev_io_stop(raw, watcher)
    ev_feed_event(raw, watcher, evg_error | evg_read | evg_write)
  }

  @Test func aWatchThatLibevGivesUpFailsAndCanBeMadeAnew() throws {
    try withLoop { loop in
      let pair = Pair()
      let io = UnsafeMutablePointer<evg_io>.allocate(capacity: 1)
      defer { io.deallocate() }
      evg_io_init(
        io, pair.reading, evg_read, true, { io, _ in io.pointee.is_ready = true }, nil)
      // While somebody waits.
      loop.start(io)
      giveUp(io, loop)
      loop.poll(wait: false)
      #expect(io.pointee.is_ready && io.pointee.has_failed && !evg_io_is_active(io))
      #expect(loop.activeCount == 0)
      // While it rests: nobody is told, and the next wait begins a new watch.
      io.pointee.is_ready = false
      io.pointee.has_failed = false
      loop.start(io)
      loop.rest(io)
      giveUp(io, loop)
      loop.poll(wait: false)
      #expect(!io.pointee.is_ready && !evg_io_is_active(io))
      #expect(loop.activeCount == 0)
      pair.put()
      loop.start(io)
      loop.poll(wait: true)
      #expect(io.pointee.is_ready && !io.pointee.has_failed)
      loop.stop(io)
      #expect(loop.run(.noWait) == false)
    }
  }

  @Test(arguments: Backend.available)
  func timersFireOnceInOrderAndNeverEarly(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let rig = Rig(loop)
      let start = loop.readClock()
      let order = (0..<500).map { ($0 * 7919) % 500 }
      for index in order {
        loop.start(rig.timer("\(index)"), at: start + UInt64(index) * 20_000)
      }
      #expect(loop.referenceCount > 0)
      #expect(loop.activeCount == 500)
      rig.pollUntilIdle()
      #expect(rig.log == (0..<500).map { "\($0)" })
      #expect(loop.activeCount == 0)
      loop.poll(wait: false)
      #expect(rig.log.count == 500)
    }
  }

  @Test func deadlinesDoNotDependOnTheLoopsTime() throws {
    try withLoop { loop in
      let rig = Rig(loop)
      let busyUntil = readClock() + 10_000_000
      while readClock() < busyUntil {}
      for nanoseconds: UInt64 in [0, 1, 2, 10, 100, 999, 12_345, 1_000_001] {
        loop.start(rig.timer("t"), at: loop.readClock() + nanoseconds)
      }
      rig.pollUntilIdle()
      #expect(rig.log.count == 8)
    }
  }

  @Test func pastAndFarDeadlines() throws {
    try withLoop { loop in
      let rig = Rig(loop)
      loop.start(rig.timer("past"), at: 0)
      let never = rig.timer("never")
      loop.start(never, at: .max)
      loop.poll(wait: true)
      #expect(rig.log == ["past"])
      #expect(never.pointee.armed && loop.referenceCount > 0)
      loop.stop(never)
      loop.stop(never)
      #expect(!never.pointee.armed && loop.referenceCount == 0)
    }
  }

  @Test func armedTimerMoves() throws {
    try withLoop { loop in
      let rig = Rig(loop)
      let timer = rig.timer("t")
      loop.start(timer, at: .max)
      loop.start(timer, at: loop.readClock() + 1_000_000)
      #expect(loop.activeCount == 1)
      rig.pollUntilIdle()
      #expect(rig.log == ["t"])
    }
  }

  @Test func expiredTimerMayBeStoppedBeforeItsCall() throws {
    try withLoop { loop in
      let rig = Rig(loop)
      let (first, second) = (rig.timer("first"), rig.timer("second"))
      rig.onFire = { _ in
        loop.stop(first)
        loop.stop(second)
      }
      loop.start(first, at: 1)
      loop.start(second, at: 2)
      loop.poll(wait: false)
      loop.poll(wait: false)
      #expect(rig.log == ["first"])
      #expect(loop.referenceCount == 0)
      loop.verify()
    }
  }

  @Test func timerMayStartAgainInItsCallback() throws {
    try withLoop { loop in
      let rig = Rig(loop)
      let timer = rig.timer("t")
      var rounds = 0
      rig.onFire = { _ in
        rounds += 1
        if rounds < 5 { loop.start(timer, at: loop.now + 1000) }
      }
      loop.start(timer, at: loop.now)
      rig.pollUntilIdle()
      #expect(rounds == 5)
    }
  }

  @Test(arguments: Backend.available)
  func readyDescriptorBeatsExpiredTimer(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let (rig, pair) = (Rig(loop), Pair())
      pair.put()
      loop.start(rig.timer("timer"), at: loop.now)
      loop.start(rig.io("io", pair.reading, evg_read))
      loop.poll(wait: true)
      #expect(rig.log == ["io", "timer"])
    }
  }

  @Test(arguments: Backend.available)
  func descriptorWatchFiresUntilItIsStopped(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let (rig, pair) = (Rig(loop), Pair())
      rig.keepsWatching = true
      let io = rig.io("io", pair.reading, evg_read)
      loop.start(io)
      pair.put()
      for _ in 0..<3 { loop.poll(wait: true) }
      #expect(rig.log == ["io", "io", "io"] && loop.activeCount == 1)
      loop.stop(io)
      loop.poll(wait: false)
      #expect(rig.log.count == 3 && loop.referenceCount == 0)
    }
  }

  @Test(arguments: Backend.available)
  func descriptorWatchMayBeStoppedAndStarted(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let (rig, pair) = (Rig(loop), Pair())
      let io = rig.io("io", pair.reading, evg_read)
      loop.start(io)
      loop.start(io)
      #expect(loop.activeCount == 1)
      loop.poll(wait: false)
      #expect(rig.log.isEmpty)
      pair.put()
      loop.poll(wait: true)
      loop.poll(wait: false)
      #expect(rig.log == ["io"] && loop.referenceCount == 0)
      loop.start(io)  // still readable
      loop.poll(wait: true)
      #expect(rig.log == ["io", "io"])
      loop.start(io)
      loop.stop(io)
      loop.stop(io)
      loop.poll(wait: false)
      #expect(rig.log.count == 2 && loop.referenceCount == 0)
    }
  }

  @Test func pendingDescriptorWatchMayBeStopped() throws {
    try withLoop { loop in
      let (rig, one, other) = (Rig(loop), Pair(), Pair())
      let watches = [
        rig.io("io", one.reading, evg_read), rig.io("io", other.reading, evg_read),
      ]
      rig.onFire = { _ in for watch in watches { loop.stop(watch) } }
      for watch in watches { loop.start(watch) }
      one.put()
      other.put()
      loop.poll(wait: true)
      loop.poll(wait: false)
      #expect(rig.log == ["io"] && loop.activeCount == 0)
      loop.verify()
    }
  }

  @Test(arguments: Backend.available)
  func forgottenDescriptorIsWatchedAnew(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let (rig, old, new) = (Rig(loop), Pair(), Pair())
      let number = old.readingDuplicate(from: 800)
      let first = rig.io("old", number, evg_read, fresh: false)
      loop.start(first)
      loop.poll(wait: false)
      loop.stop(first)
      loop.forget(descriptor: number)
      #expect(dup2(new.reading, number) == number)
      defer { close(number) }
      loop.start(rig.io("new", number, evg_read, fresh: false))
      new.put()
      rig.pollUntilIdle()
      #expect(rig.log == ["new"])
      #expect(loop.activeCount == 0)
    }
  }

  @Test func forgettingAClosedDescriptorIsSafe() throws {
    try withLoop { loop in
      let pair = Pair()
      let number = pair.readingDuplicate(from: 820)
      let rig = Rig(loop)
      let io = rig.io("io", number, evg_read)
      loop.start(io)
      loop.poll(wait: false)
      loop.stop(io)
      loop.forget(descriptor: number)
      close(number)
      loop.poll(wait: false)
      loop.forget(descriptor: number)
      loop.poll(wait: false)
      pair.put()
      loop.poll(wait: false)
      #expect(rig.log.isEmpty)
    }
  }

  @Test func pollDoesNotWaitWithoutReferences() throws {
    try withLoop { loop in
      loop.poll(wait: true)
      #expect(loop.referenceCount == 0)
    }
  }

  @Test(arguments: Backend.available)
  func heldOpenPollWaitsForTheInterrupt(on backend: Backend) throws {
    try withLoop(backend) { loop in
      loop.holdOpen(true)
      loop.holdOpen(true)
      #expect(loop.referenceCount == 0)
      nonisolated(unsafe) let shared = loop
      let start = readClock()
      let thread = startThread {
        usleep(20_000)  // what is measured is that the poll does not return before
        shared.interrupt()
      }
      loop.poll(wait: true)
      #expect(readClock() - start >= 20_000_000)
      pthread_join(thread, nil)
      // An interrupt before the poll counts too.
      loop.interrupt()
      loop.interrupt()
      loop.poll(wait: true)
      loop.holdOpen(false)
      loop.holdOpen(false)
      loop.poll(wait: true)
      #expect(loop.run() == false)
    }
  }

  @Test func destroyedWhileWatchersAreOn() throws {
    let loop = try Loop()
    let (rig, pair) = (Rig(loop), Pair())
    let (timer, io) = (rig.timer("t"), rig.io("io", pair.reading, evg_read))
    loop.start(timer, at: .max)
    loop.start(io)
    loop.holdOpen(true)
    loop.destroy()
    #expect(loop.referenceCount == 0)
    loop.stop(timer)
    loop.stop(io)
    #expect(!timer.pointee.armed && !evg_io_is_active(io))
    loop.forget(descriptor: pair.reading)
    loop.holdOpen(false)
  }

  @Test func pollingADestroyedLoopTraps() async {
    await #expect(processExitsWith: .failure) {
      let loop = try Loop()
      loop.destroy()
      loop.poll(wait: false)
      exit(0)
    }
  }
}
