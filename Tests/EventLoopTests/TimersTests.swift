// Evergreen: tests of the wheels in which the hub's timers lie
// SPDX-License-Identifier: MIT

import CLibev
import Testing

/// Wheels whose time is what the test says.
private final class Wheels {
  let timers = UnsafeMutablePointer<evg_timers>.allocate(capacity: 1)
  private(set) var entries: [UnsafeMutablePointer<evg_timer>] = []
  private(set) var fired: [Int] = []
  private(set) var looks = 0

  init(at now: UInt64 = 0) {
    evg_timers_open(timers)
    timers.pointee.position = now >> 20
  }

  deinit {
    for entry in entries { entry.deallocate() }
    timers.deallocate()
  }

  /// Its number is its place in the order of starts.
  func start(at deadline: UInt64) {
    let timer = UnsafeMutablePointer<evg_timer>.allocate(capacity: 1)
    timer.initialize(
      to: evg_timer_make({ _ in }, UnsafeMutableRawPointer(bitPattern: entries.count + 1)))
    timer.pointee.deadline = deadline
    timer.pointee.armed = true
    entries.append(timer)
    evg_timers_add(timers, timer)
  }

  func stop(_ number: Int) {
    let timer = entries[number]
    timer.pointee.armed = false
    timer.pointee.node.previous.pointee.next = timer.pointee.node.next
    timer.pointee.node.next.pointee.previous = timer.pointee.node.previous
  }

  var nextLook: UInt64 { evg_timers_next_look(timers) }

  /// Lets time come to `now`.
  func look(at now: UInt64) {
    looks += 1
    withUnsafeTemporaryAllocation(of: evg_timer_node.self, capacity: 1) { memory in
      let taken = memory.baseAddress!
      evg_timers_take_due(timers, now, taken)
      var node = taken.pointee.next
      while node != taken {
        let timer = UnsafeMutableRawPointer(node).assumingMemoryBound(to: evg_timer.self)
        #expect(timer.pointee.armed && timer.pointee.deadline <= now)
        timer.pointee.armed = false
        fired.append(Int(bitPattern: timer.pointee.context) - 1)
        node = node.pointee.next
      }
    }
  }

  /// Looks whenever it should, until none is left.
  func runOut() {
    while nextLook != .max { look(at: nextLook) }
  }
}

@Suite("Timers of the hub")
struct TimersTests {
  @Test func allFireByDeadlineAndThenByStartFromNanosecondsToYears() {
    var random = SystemRandomNumberGenerator()
    let begin: UInt64 = 123_456_789_012_345
    let wheels = Wheels(at: begin)
    var deadlines: [UInt64] = []
    for _ in 0..<1500 {
      // Of every magnitude, and some of them equal.
      let deadline =
        begin + UInt64.random(in: 0...((1 << UInt64.random(in: 1...57)) - 1), using: &random)
      for _ in 0..<Int.random(in: 1...2, using: &random) {
        deadlines.append(deadline)
        wheels.start(at: deadline)
      }
    }
    var stopped: Set<Int> = []
    for number in deadlines.indices where Bool.random(using: &random) {
      wheels.stop(number)
      stopped.insert(number)
    }
    wheels.runOut()
    let expected = deadlines.indices.filter { !stopped.contains($0) }
      .sorted { (deadlines[$0], $0) < (deadlines[$1], $1) }
    #expect(wheels.fired == expected)
  }

  @Test(arguments: [1, 511, 512, 513, 1025, 20_000])
  func thoseOfOneTickFireByDeadlineAndThenByStartHoweverMany(count: Int) {
    var random = SystemRandomNumberGenerator()
    let tick: UInt64 = 1 << 20
    let begin = 123_456_789 * tick
    let wheels = Wheels(at: begin - 10_000 * tick)
    // Many of them equal; one of the next tick, which must not come along.
    let deadlines = (0..<count).map { number in
      begin + UInt64.random(in: 0..<(number % 2 == 0 ? tick : 16), using: &random)
    }
    for deadline in deadlines { wheels.start(at: deadline) }
    wheels.start(at: begin + tick)
    wheels.look(at: begin - 1)
    #expect(wheels.fired == [])
    let expected = deadlines.indices.sorted { (deadlines[$0], $0) < (deadlines[$1], $1) }
    let middle = begin + tick / 2
    wheels.look(at: middle)
    #expect(wheels.fired == expected.filter { deadlines[$0] <= middle })
    wheels.look(at: begin + tick - 1)
    #expect(wheels.fired == expected)
    wheels.look(at: begin + tick)
    #expect(wheels.fired == expected + [count])
    #expect(wheels.nextLook == .max)
  }

  @Test func whatIsStartedMeanwhileComesInItsPlace() {
    var random = SystemRandomNumberGenerator()
    let wheels = Wheels()
    var now: UInt64 = 0
    var deadlines: [UInt64] = []
    for _ in 0..<2000 {
      let deadline = now + UInt64.random(in: 1...(1 << UInt64.random(in: 1...40)), using: &random)
      deadlines.append(deadline)
      wheels.start(at: deadline)
      if Bool.random(using: &random) {
        now += UInt64.random(in: 0...(1 << UInt64.random(in: 1...36)), using: &random)
        wheels.look(at: now)
      }
      #expect(wheels.nextLook >= now || wheels.nextLook >> 20 == now >> 20)
    }
    wheels.runOut()
    #expect(wheels.fired.count == deadlines.count)
    #expect(Set(wheels.fired).count == deadlines.count)
  }

  @Test func aSingleTimerNeedsOneLook() {
    for deadline in [1, 1_000_000, 5_000_000_000, 3_600_000_000_000, 1 << 60] as [UInt64] {
      let wheels = Wheels()
      wheels.start(at: deadline)
      #expect(wheels.nextLook == deadline)
      wheels.look(at: deadline - 1)
      #expect(wheels.fired == [])
      wheels.look(at: deadline)
      #expect(wheels.fired == [0])
      #expect(wheels.nextLook == .max)
    }
  }

  @Test func manyOfOneSlotNeedFewLooks() {
    let wheels = Wheels()
    for number in 0..<10_000 { wheels.start(at: 3_600_000_000_000 + UInt64(number % 100)) }
    wheels.runOut()
    #expect(wheels.fired.count == 10_000)
    #expect(wheels.looks <= 100 + 6)
  }

  @Test func oneThatIsDueAlreadyFiresAtTheNextLook() {
    let wheels = Wheels(at: 10_000_000_000)
    wheels.start(at: 5)
    wheels.start(at: 3)
    #expect(wheels.nextLook == 3)
    wheels.look(at: 10_000_000_000)
    #expect(wheels.fired == [1, 0])
  }

  @Test func closingStopsAll() {
    let wheels = Wheels()
    for power in 0..<63 { wheels.start(at: 1 << UInt64(power)) }
    evg_timers_close(wheels.timers)
    #expect(wheels.entries.allSatisfy { !$0.pointee.armed })
    #expect(wheels.nextLook == .max)
  }
}
