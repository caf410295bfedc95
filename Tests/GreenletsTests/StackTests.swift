// Evergreen: tests of stacks: sizes, reuse, trimming, exhaustion
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.timeLimit(.minutes(1))) struct StackTests {
  // MARK: Sizes

  @Test func theSizeIsPerSpawn() async throws {
    try await runGreen {
      func size() -> UInt32 { evg_current()!.pointee.stack_size }
      try #expect(spawn { size() }.get() == 256 * 1024)
      try #expect(spawn(stackSize: 1 << 20) { size() }.get() == 1 << 20)
      try #expect(spawn(stackSize: 100_000) { size() }.get() == 128 * 1024)
      try #expect(spawn(stackSize: 1) { size() }.get() == 32 * 1024)
      try #expect(RawGreenlet(stackSize: 65536) { _ in size() }.switch() as? UInt32 == 65536)
      Hub.current.stackSize = 512 * 1024
      try #expect(spawn { size() }.get() == 512 * 1024)
    }
  }

  @Test func allOfItCanBeUsed() async throws {
    try await runGreen {
      for shift in 17...24 {
        let size = 1 << shift
        // What the test itself takes is on top.
        try #expect(spawn(stackSize: size) { useStack(size - 64 * 1024) }.get() > 1)
      }
    }
  }

  @Test func greenletsOfDifferentSizesFollowEachOther() async throws {
    try await runGreen {
      let sizes = (0..<100).map { 1 << (16 + $0 % 5) }
      let greenlets = sizes.map { size in
        spawn(stackSize: size) {
          let before = evg_current()!.pointee.stack_size
          _ = useStack(size / 2)
          try Greenlet.yield()
          return before
        }
      }
      for (greenlet, size) in zip(greenlets, sizes) { try #expect(greenlet.get() == size) }
    }
  }

  // MARK: Reuse

  @Test func aGreenletHasNoStackBeforeItRuns() async throws {
    try await runGreen {
      let before = InUse().stacks
      let greenlets = (0..<100).map { _ in spawn {} }
      #expect(InUse().stacks == before)
      try joinAll(greenlets)
    }
  }

  @Test func greenletsThatNeverBlockShareOneStack() async throws {
    try await runGreen {
      let stacks = Box<Set<UInt>>([])
      let most = Box(UInt32(0))
      try joinAll(
        (0..<1000).map { _ in
          spawn {
            stacks.value.insert(UInt(bitPattern: evg_current()!.pointee.stack_low))
            most.value = max(most.value, InUse().stacks)
          }
        })
      // The budget of the hub's passes may start another one now and then.
      #expect(stacks.value.count <= 3)
      #expect(most.value <= 3)
    }
  }

  @Test func stacksAreTakenFromThePool() async throws {
    try await runGreen {
      func round() throws -> Set<UInt> {
        let gate = Gate()
        let stacks = Box<Set<UInt>>([])
        let greenlets = (0..<50).map { _ in
          spawn {
            stacks.value.insert(UInt(bitPattern: evg_current()!.pointee.stack_low))
            try gate.wait()
          }
        }
        try idle()
        gate.open()
        try joinAll(greenlets)
        return stacks.value
      }
      let first = try round()
      #expect(first.count == 50)
      for _ in 0..<5 { try #expect(round().subtracting(first).count <= 2) }
    }
  }

  @Test func guardsLieBelowTheStacks() async throws {
    try await runGreen {
      let gate = Gate()
      let lows = Box<[UInt]>([])
      let greenlets = (0..<40).map { _ in
        spawn {
          lows.value.append(UInt(bitPattern: evg_current()!.pointee.stack_low))
          try gate.wait()
        }
      }
      try idle()
      let sorted = lows.value.sorted()
      for (one, next) in zip(sorted, sorted.dropFirst()) {
        #expect(next - one >= 256 * 1024 + UInt(EVG_GUARD_SIZE))
      }
      gate.open()
      try joinAll(greenlets)
    }
  }

  // MARK: Trimming

  @Test(.enabled(if: !Sanitizer.address))
  func trimmingGivesMemoryBack() async throws {
    try await runGreen {
      let gate = Gate()
      let greenlets = (0..<32).map { _ in
        spawn {
          _ = useStack(128 * 1024)
          try gate.wait()
          return evg_stack_high_water(evg_current()!)
        }
      }
      try idle()
      gate.open()
      for greenlet in greenlets { try #expect(greenlet.get() >= 128 * 1024) }
      try idle()
      let warm = evg_stacks_warm()
      #expect(warm >= 30)
      #expect(evg_stacks_trim(10, 5) == 5)
      #expect(evg_stacks_warm() == warm - 5)
      #expect(evg_stacks_trim(10, 1000) == warm - 15)
      #expect(evg_stacks_warm() == 10)
      #expect(evg_stacks_trim(10, 1000) == 0)
      #expect(evg_stacks_trim(0, 1000) == 10)
      // All are cold now: nobody's memory is there any more.
      let fresh = spawn { evg_stack_high_water(evg_current()!) }
      try #expect(fresh.get() < 128 * 1024)
      let used = spawn {
        useStack(64 * 1024)
      }
      try #expect(used.get() > 1)
    }
  }

  @Test func trimmedStacksKeepTheirGuards() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try Hub.withHub { _ in
        try spawn { _ = useStack(64 * 1024) }.get()
        try idle()
        _ = evg_stacks_trim(0, 1000)
        try spawn { StackOverflowTests.overflow() }.get()
      }
    }
    #expect(errorText(of: result).contains("overflowed its 256 KiB stack"))
  }

  // MARK: High water

  @Test(.enabled(if: !Sanitizer.address))
  func theHighWaterMarkGrowsWithUse() async throws {
    try await runGreen {
      let gate = Gate()
      let shallow = spawn(stackSize: 1 << 20) { try gate.wait() }
      let deep = spawn(stackSize: 1 << 20) {
        _ = useStack(500_000)
        try gate.wait()
      }
      let unstarted = Greenlet {}
      try idle()
      #expect(shallow.stackHighWater > 0)
      #expect(shallow.stackHighWater < 200_000)
      #expect(deep.stackHighWater > 500_000)
      #expect(deep.stackHighWater <= 1 << 20)
      #expect(deep.stackHighWater % Int(sysconf(Int32(_SC_PAGESIZE))) == 0)
      #expect(unstarted.stackHighWater == 0)
      gate.open()
      try joinAll([shallow, deep])
      #expect(deep.stackHighWater == 0)
    }
  }

  // MARK: Many

  @Test func tenThousandParkedGreenletsAreWokenAndJoined() async throws {
    try await runGreen {
      let gate = Gate()
      let order = Box<[Int]>([])
      let greenlets = (0..<10_000).map { index in
        spawn {
          try gate.wait()
          order.value.append(index)
          return index
        }
      }
      try idle()
      #expect(gate.count == 10_000)
      #expect(InUse().stacks >= 10_000)
      gate.open()
      try joinAll(greenlets)
      #expect(order.value == Array(0..<10_000))
      #expect(greenlets.allSatisfy { $0.isSuccessful })
    }
  }

  @Test func tenThousandParkedGreenletsAreKilled() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let gate = Gate()
      let greenlets = (0..<10_000).map { _ in
        spawn(stackSize: 64 * 1024) {
          let tracked = Tracked(counter)
          defer { _ = tracked }
          try gate.wait()
        }
      }
      try idle()
      #expect(counter.live == 10_000)
      try killAll(greenlets)
      #expect(counter.live == 0)
      #expect(gate.count == 0)
    }
  }

  // MARK: No memory

  #if os(Linux)
  /// Sanitizers need more addresses than there are.
  @Test(.enabled(if: !Sanitizer.any))
  func aStackThatCannotBeHadFailsTheGreenletAlone() async {
    await #expect(processExitsWith: .success) {
      try onThread {
        try Hub.withHub { hub in
          hub.onError = { _, _ in }
          let gate = Gate()
          try spawn { errno = 1 }.get()  // all that is made on first use is there
          limitAddresses(toMore: 128 << 20)
          let greenlets = (0..<5000).map { index in
            spawn {
              try gate.wait()
              return index
            }
          }
          try idle()
          let failed = greenlets.filter(\.isReady)
          // 128 MiB are 409 stacks of 256 KiB and their guards; nearly all of them are found.
          require(failed.count > 4500 && failed.count < 4700, "\(failed.count) have failed")
          require(failed.allSatisfy { $0.error is StackUnavailable }, "for want of a stack")
          let reason = "\(failed[0].error!)"
          require(reason.contains("no memory for the stack"), reason)
          do {
            _ = try failed[0].get()
            fail("get must throw")
          } catch is StackUnavailable {}
          gate.open()
          try joinAll(greenlets)
          require(greenlets.count(where: \.isSuccessful) == 5000 - failed.count, "others lived")
          // There are stacks again, from the pool.
          require(try spawn { 5 }.get() == 5, "and others live")
        }
      }
    }
  }

  @Test(.enabled(if: !Sanitizer.any))
  func aRawGreenletWithoutAStackFailsInItsParent() async {
    await #expect(processExitsWith: .success) {
      try onThread {
        let main = RawGreenlet.current
        try RawGreenlet { _ in nil }.switch()
        limitAddresses(toMore: 64 << 20)
        var all: [RawGreenlet] = []
        var failures = 0
        for _ in 0..<1000 {
          let child = RawGreenlet(stackSize: 1 << 20) { _ in try main.switch("runs") }
          do {
            require(try child.switch() as? String == "runs", "it runs")
            all.append(child)
          } catch is SwitchError {
            require(child.isDead, "it is dead")
            failures += 1
          }
        }
        require(failures > 500 && all.count >= 16, "\(failures) failed, \(all.count) run")
        all = []
        require(InUse() == InUse(contexts: 0, stacks: 0), "\(InUse())")
        require(try RawGreenlet { _ in 5 }.switch() as? Int == 5, "others live")
      }
    }
  }
  #endif
}

#if os(Linux)
private func limitAddresses(toMore bytes: Int) {
  let limit = rlim_t(memory().reserved + bytes)
  var limits = rlimit(rlim_cur: limit, rlim_max: limit)
  require(setrlimit(__rlimit_resource_t(9), &limits) == 0, "setrlimit")  // RLIMIT_AS
}
#endif
