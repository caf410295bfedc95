// Evergreen: tests of what a switch keeps: errno, rounding, C frames, the chain of frames
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

#if os(Linux)
import Runtime
#endif

@Suite(.timeLimit(.minutes(1))) struct ContextTests {
  // MARK: errno and rounding

  @Test func errnoBelongsToTheGreenlet() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      errno = 99
      let child = RawGreenlet { _ in
        let fresh = errno
        errno = 7
        try main.switch()
        return [fresh, errno]
      }
      try child.switch()
      #expect(errno == 99)
      errno = 98
      let seen = try child.switch() as? [Int32]
      #expect(errno == 98)
      #expect(seen == [0, 7])
      errno = 0
    }
  }

  @Test func errnoOfTheHubsGreenlets() async throws {
    try await runGreen {
      let greenlets = (1...20).map { number in
        spawn {
          var kept = true
          for round in 0..<20 {
            let mine = Int32(number * 100 + round)
            errno = mine
            try Greenlet.yield()
            kept = kept && errno == mine
          }
          return kept
        }
      }
      errno = 5
      try Greenlet.yield()
      #expect(errno == 5)
      for greenlet in greenlets { try #expect(greenlet.get()) }
      errno = 0
    }
  }

  /// The next greenlet takes over the stack of a finished one without a switch.
  @Test func aGreenletThatInheritsAStackStartsClean() async throws {
    try await runGreen {
      let first = spawn {
        errno = 77
        fesetround(Rounding.up)
      }
      let second = spawn { [errno, fegetround()] }
      try #expect(second.get() == [0, Rounding.nearest])
      #expect(first.isReady)
    }
  }

  @Test func theRoundingModeBelongsToTheGreenlet() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      func third() -> Double { opaque(1.0) / opaque(3.0) }
      let nearest = third()
      let modes = [Rounding.up, Rounding.down, Rounding.zero, Rounding.nearest]
      let children = modes.map { mode in
        RawGreenlet { _ in
          fesetround(mode)
          while fegetround() == mode { try main.switch(third()) }
          return nil
        }
      }
      for _ in 0..<3 {
        let values = try children.map { try $0.switch() as! Double }
        #expect(values == [nearest.nextUp, nearest, nearest, nearest])
        #expect(fegetround() == Rounding.nearest)
        #expect(third() == nearest)
      }
    }
  }

  @Test func theRoundingModeOfTheHubsGreenlets() async throws {
    try await runGreen {
      let modes = [Rounding.up, Rounding.down, Rounding.zero, Rounding.nearest]
      let greenlets = (0..<40).map { index in
        spawn {
          let mode = modes[index % 4]
          fesetround(mode)
          var kept = true
          for _ in 0..<10 {
            try Greenlet.yield()
            kept = kept && fegetround() == mode
          }
          return kept
        }
      }
      try Greenlet.yield()
      #expect(fegetround() == Rounding.nearest)
      for greenlet in greenlets { try #expect(greenlet.get()) }
      #expect(fegetround() == Rounding.nearest)
    }
  }

  @Test func aNewGreenletStartsWithTheDefaultRounding() async throws {
    try await runGreen {
      fesetround(Rounding.up)
      defer { fesetround(Rounding.nearest) }
      try #expect(RawGreenlet { _ in fegetround() }.switch() as? Int32 == Rounding.nearest)
      #expect(fegetround() == Rounding.up)
    }
  }

  // MARK: C frames

  #if os(Linux)
  private typealias Comparator =
    @convention(c) (UnsafeRawPointer?, UnsafeRawPointer?, UnsafeMutableRawPointer?) -> Int32
  private typealias QuickSort =
    @convention(c) (
      UnsafeMutableRawPointer, Int, Int, Comparator, UnsafeMutableRawPointer
    ) -> Void

  /// `qsort_r`, which the headers hide from Swift.
  private var quickSort: QuickSort {
    unsafeBitCast(dlsym(nil, "qsort_r"), to: QuickSort.self)
  }

  /// Calls `between` at each comparison, with qsort's frame below.
  private func sorted(_ numbers: [Int32], _ between: @escaping () -> Void) -> [Int32] {
    var numbers = numbers
    let context = Box(between)
    withExtendedLifetime(context) {
      quickSort(
        &numbers, numbers.count, MemoryLayout<Int32>.size,
        { one, other, context in
          Unmanaged<Box<() -> Void>>.fromOpaque(context!).takeUnretainedValue().value()
          let (one, other) = (
            one!.load(as: Int32.self), other!.load(as: Int32.self)
          )
          return one < other ? -1 : one > other ? 1 : 0
        }, Unmanaged.passUnretained(context).toOpaque())
    }
    return numbers
  }

  private func shuffled(_ count: Int32) -> [Int32] {
    (0..<count).map { $0 * 7919 % count }
  }

  @Test func twoSortsInterleaveByHand() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let log = Log()
      let sorters = (0..<2).map { index in
        RawGreenlet { _ in
          sorted(shuffled(101)) {
            log("\(index)")
            _ = try! main.switch()
          }
        }
      }
      var results: [[Int32]] = []
      while results.count < 2 {
        for sorter in sorters where !sorter.isDead {
          if let result = try sorter.switch() { results.append(result as! [Int32]) }
        }
      }
      #expect(results == [Array(0..<101), Array(0..<101)])
      #expect(log.lines.count > 400)
      #expect(log.lines.prefix(6) == ["0", "1", "0", "1", "0", "1"])
    }
  }

  @Test func sortsOfTheHubsGreenletsInterleave() async throws {
    try await runGreen {
      let log = Log()
      let sorters = (0..<5).map { index in
        spawn {
          sorted(shuffled(97)) {
            log("\(index)")
            try? Greenlet.yield()
          }
        }
      }
      for sorter in sorters { try #expect(sorter.get() == Array(0..<97)) }
      #expect(log.lines.prefix(10) == ["0", "1", "2", "3", "4", "0", "1", "2", "3", "4"])
    }
  }

  @Test func aSortInsideASort() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        while true {
          let inner = sorted(shuffled(11)) { _ = try! main.switch(false) }
          #expect(inner == Array(0..<11))
          try main.switch(true)
        }
      }
      let ends = Box(0)
      let outer = sorted(shuffled(53)) {
        if try! child.switch() as! Bool { ends.value += 1 }
      }
      #expect(outer == Array(0..<53))
      #expect(ends.value >= 1)
      // The child is inside qsort, which cannot be unwound: let it come out first.
      while try child.switch() as? Bool == false {}
    }
  }
  #endif

  // MARK: The hub's greenlets switched by hand

  @Test func aGreenletParkedInItsHubIsNotSwitchedTo() async throws {
    try await runGreen {
      let handle = Box<RawGreenlet?>(nil)
      let inner = Box<RawGreenlet?>(nil)
      let gate = Gate()
      let greenlet = spawn {
        handle.value = RawGreenlet.current
        inner.value = RawGreenlet { _ in
          try gate.wait()
          return "woken"
        }
        return try inner.value!.switch() as! String
      }
      let sleeper = spawn {
        let me = RawGreenlet.current
        try gate.wait()
        return me
      }
      try idle()
      do {
        try inner.value!.switch("by hand")
        Issue.record("switched")
      } catch let error as SwitchError {
        #expect(error.description.contains("waits in its hub for the gate"))
      }
      #expect(throws: SwitchError.self) { try inner.value!.throw(OneError()) }
      #expect(!sleeper.isReady && !greenlet.isReady)
      gate.open()
      try #expect(greenlet.get() == "woken")
      let parked = try sleeper.get()
      #expect(parked.isDead)
      #expect(handle.value!.isDead)
    }
  }

  @Test func aSleepingGreenletsOwnCodeIsNotSwitchedTo() async throws {
    try await runGreen {
      let handle = Box<RawGreenlet?>(nil)
      let gate = Gate()
      let greenlet = spawn {
        handle.value = RawGreenlet.current
        try gate.wait()
        return 5
      }
      try idle()
      #expect(throws: SwitchError.self) { try handle.value!.switch() }
      #expect(throws: SwitchError.self) { try handle.value!.throw() }
      gate.open()
      // Woken but not running yet: that is its hub's turn, too.
      #expect(throws: SwitchError.self) { try handle.value!.switch() }
      try #expect(greenlet.get() == 5)
    }
  }

  @Test func theMainGreenletParkedInTheHubIsNotSwitchedTo() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let greenlet = spawn { try main.switch("by hand") }
      #expect(throws: SwitchError.self) { try greenlet.get() }
    }
  }

  @Test func rawGreenletsActForWhoeverSwitchedToThem() async throws {
    try await runGreen {
      let me = RawGreenlet.current
      let names = Box<[String]>([])
      let shared = RawGreenlet { first in
        var caller = first as! RawGreenlet
        while true {
          names.value.append(Greenlet.current.name)
          caller = try caller.switch() as! RawGreenlet
        }
      }
      for name in ["a", "b"] {
        let greenlet = spawn { _ = try shared.switch(RawGreenlet.current) }
        greenlet.name = name
        try greenlet.get()
      }
      try shared.switch(me)
      #expect(names.value == ["a", "b", "main"])
    }
  }

  // MARK: Frames

  #if os(Linux)
  @inline(never)
  private func descend(_ depth: Int, _ body: Box<() -> [String]>) -> [String] {
    if depth == 0 { return body.value() }
    return opaque(descend(depth - 1, body))
  }

  /// Is on the stack of whoever switches to a greenlet, and on no other.
  @inline(never)
  private func above(_ body: Box<() -> [String]>) -> [String] { opaque(body.value()) }

  private func backtrace() -> [String] {
    guard let trace = try? Backtrace.capture(limit: 200).symbolicated() else { return [] }
    return trace.frames.map { $0.symbol?.rawName ?? "?" }
  }

  private func contains(_ frames: [String], _ name: String) -> Bool {
    frames.contains { $0.contains("ContextB0V\(name.utf8.count)\(name)") }
  }

  private func checkFrames(_ frames: [String]) {
    #expect(contains(frames, "backtrace"))
    #expect(contains(frames, "descend"))
    #expect(!contains(frames, "above"))
    // Behind it comes the trampoline only, which has no name, for it is hidden.
    #expect(frames.firstIndex(of: "context_main") == frames.count - 2)
  }

  @Test func aBacktraceEndsAtTheEntryOfTheGreenlet() async throws {
    try await runGreen {
      checkFrames(
        above(
          Box {
            let raw = RawGreenlet { _ in descend(3, Box { backtrace() }) }
            return (try? raw.switch()) as? [String] ?? []
          }))
      checkFrames(
        above(
          Box {
            let greenlet = spawn { descend(3, Box { backtrace() }) }
            return (try? greenlet.get()) ?? []
          }))
    }
  }

  @Test func aBacktraceIsTheSameAfterSwitches() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        descend(
          4,
          Box {
            for _ in 0..<3 { _ = try? main.switch(backtrace()) }
            return []
          })
      }
      let before = try child.switch() as? [String] ?? []
      checkFrames(before)
      for _ in 0..<2 {
        let after = above(Box { (try? child.switch()) as? [String] ?? [] })
        #expect(after == before)
      }
    }
  }
  #endif

  /// Looks at a greenlet that computes, from another thread.
  @Test func anotherThreadSeesTheFramesOfTheRunningGreenlet() async throws {
    try await runGreen {
      var question = sigset_t()  // which this thread would not hear
      sigemptyset(&question)
      sigaddset(&question, SIGURG)
      pthread_sigmask(SIG_UNBLOCK, &question, nil)
      let begun = Atomic(false)
      let target = UInt(pthread_self())
      let others = (0..<3).map { _ in spawn { try Greenlet.yield() } }
      let looked = Atomic(false)
      let answer = Smuggled<evg_glimpse?>(nil)
      let watcher = startThread {
        while !begun.load(ordering: .acquiring) { sched_yield() }
        var glimpse = evg_glimpse()
        if evg_look_at(target, &glimpse) { answer.value = glimpse }
        looked.store(true, ordering: .releasing)
      }
      let busy = spawn {
        begun.store(true, ordering: .releasing)
        while !looked.load(ordering: .acquiring) {}
        return Greenlet.current.id
      }
      busy.name = "busy"
      let id = try busy.get()
      try joinAll(others)
      pthread_join(watcher, nil)
      let glimpse = try #require(answer.value)
      let name = withUnsafeBytes(of: glimpse.name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      #expect(Int(glimpse.id) == id)
      #expect(name == "busy")
      let origin = try #require(glimpse.origin)
      #expect(String(cString: origin).contains("ContextTests.swift"))
      #expect(glimpse.others >= 4)
      // It ends by itself, at the entry, and not because there is no more room.
      #expect(glimpse.count > 3 && glimpse.count < Int(EVG_FRAMES))
    }
  }

  // MARK: The end of the process

  @Test func aProcessThatExitsWithLiveGreenletsIsClean() async throws {
    await #expect(processExitsWith: .success) {
      Hub.withHub(loop: nil) { _ in
        let gate = Gate()
        for index in 0..<100 {
          spawn {
            defer { _exit(9) }
            if index % 2 == 0 { try gate.wait() } else { try sleep(for: .seconds(1000)) }
          }
        }
        let main = RawGreenlet.current
        var raw: [RawGreenlet] = []
        for _ in 0..<100 {
          let child = RawGreenlet { _ in
            defer { _exit(9) }
            return try main.switch()
          }
          _ = try? child.switch()
          raw.append(child)
        }
        try? idle()
        exit(0)
      }
    }
  }

  @Test func aProcessThatExitsFromInsideAGreenletIsClean() async throws {
    await #expect(processExitsWith: .exitCode(7)) {
      try Hub.withHub(loop: nil) { _ in
        for _ in 0..<10 { spawn { try sleep(for: .seconds(1000)) } }
        try spawn {
          _ = try RawGreenlet { _ in
            _ = Generator<Int> { yield in try yield(1) }.next()
            exit(7)
          }.switch()
        }.get()
      }
    }
  }

  @Test func aProcessThatExitsWhileAnotherThreadSwitchesIsClean() async throws {
    await #expect(processExitsWith: .success) {
      let begun = Atomic(0)
      for _ in 0..<3 {
        _ = startThread {
          Hub.withHub { _ in
            for _ in 0..<100 { spawn { while true { try Greenlet.yield() } } }
            begun.add(1, ordering: .releasing)
            while true { try? Greenlet.yield() }
          }
        }
      }
      while begun.load(ordering: .acquiring) < 3 { sched_yield() }
      exit(0)
    }
  }

  @Test func aHubThatEndsWithLiveGreenletsUnwindsThem() async throws {
    try await runGreen {
      let (deferred, left) = try onThread {
        let counter = Tracked.Counter()
        Hub.withHub { _ in
          let gate = Gate()
          for index in 0..<100 {
            spawn {
              let tracked = Tracked(counter)
              defer { _ = tracked }
              let me = RawGreenlet.current
              let child = RawGreenlet { _ in
                let inner = Tracked(counter)
                defer { _ = inner }
                return try me.switch()
              }
              try child.switch()
              if index % 2 == 0 { try gate.wait() } else { try sleep(for: .seconds(1000)) }
            }
          }
          try? idle()
        }
        return (counter.all, counter.live)
      }
      #expect(deferred == 200)
      #expect(left == 0)
    }
  }
}
