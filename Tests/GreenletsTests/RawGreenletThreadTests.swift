// Evergreen: tests of raw greenlets and threads
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase
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

@Suite(.timeLimit(.minutes(1))) struct RawGreenletThreadTests {
  @Test func greenletsAreIsolatedPerThread() async throws {
    try await runGreen {
      let sum = Atomic(0)
      let threads = (0..<10).map { index in
        startThread {
          let main = RawGreenlet.current
          let greenlets = (0..<10).map { number in
            RawGreenlet { _ in
              for round in 0..<100 { try main.switch(index * number * round) }
              return nil
            }
          }
          for round in 0..<100 {
            for (number, greenlet) in greenlets.enumerated() {
              if (try? greenlet.switch()) as? Int == index * number * round {
                sum.add(1, ordering: .relaxed)
              }
            }
          }
          for greenlet in greenlets {
            if (try? greenlet.switch()) == nil || !greenlet.isDead {
              sum.add(0, ordering: .relaxed)
            }
          }
        }
      }
      for thread in threads { pthread_join(thread, nil) }
      #expect(sum.load(ordering: .relaxed) == 10_000)
    }
  }

  @Test func eachThreadHasItsOwnMain() async throws {
    try await runGreen {
      let here = Smuggled(RawGreenlet.current)
      let isOther = try onThread {
        RawGreenlet.current !== here.value && RawGreenlet.current === RawGreenlet.current
      }
      #expect(isOther)
    }
  }

  @Test func switchingFromAnotherThreadIsRefused() async throws {
    try await runGreen {
      let log = Log()
      let main = RawGreenlet.current
      let suspended = RawGreenlet { _ in
        log("\(try main.switch() as! String)")
        return nil
      }
      try suspended.switch()
      let unstarted = RawGreenlet { _ in nil }
      let dead = RawGreenlet { _ in nil }
      try dead.switch()
      let all = Smuggled([main, suspended, unstarted, dead])
      let refusals = try onThread {
        var refusals = 0
        for greenlet in all.value {
          do { try greenlet.switch("no") } catch is SwitchError { refusals += 1 }
          do { try greenlet.throw() } catch is SwitchError { refusals += 1 }
          do { try greenlet.throw(OneError()) } catch is SwitchError { refusals += 1 }
        }
        return refusals
      }
      #expect(refusals == 12)
      #expect(suspended.isActive && !unstarted.isDead)
      try suspended.switch("yes")
      #expect(log.lines == ["yes"])
    }
  }

  @Test func aParentOnAnotherThreadIsRefused() async throws {
    try await runGreen {
      let here = Smuggled(RawGreenlet.current)
      let refused = try onThread {
        let child = RawGreenlet { _ in nil }
        do {
          try child.setParent(here.value)
          return false
        } catch is SwitchError {
          return child.parent === RawGreenlet.current
        }
      }
      #expect(refused)
    }
  }

  @Test func madeWithAParentOnAnotherThreadEndsTheProgram() async throws {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      let here = Smuggled(RawGreenlet.current)
      try onThread { _ = RawGreenlet(parent: here.value) { _ in nil } }
    }
    #expect(errorText(of: result).contains("must belong to the thread that makes"))
  }

  // What lies on the stacks of a thread that has ended is lost, so these run in processes of their
  // own, which end without a look at what is left.

  @Test func greenletsOfAThreadThatHasEndedAreRefused() async throws {
    await #expect(processExitsWith: .success) {
      let left = try onThread {
        let main = RawGreenlet.current
        let suspended = RawGreenlet { _ in try main.switch() }
        try suspended.switch()
        let dead = RawGreenlet { _ in nil }
        try dead.switch()
        return Smuggled([main, suspended, RawGreenlet { _ in nil }, dead])
      }
      @Sendable func refusals() throws -> Int {
        var refusals = 0
        for greenlet in left.value {
          do { try greenlet.switch() } catch is SwitchError { refusals += 1 }
          do { try greenlet.throw() } catch is SwitchError { refusals += 1 }
          do { try greenlet.throw(OneError()) } catch is SwitchError { refusals += 1 }
        }
        return refusals
      }
      require(left.value[0].isDead && left.value[1].isDead, "they are dead")
      require(try refusals() == 12, "refused here")
      // The same from later threads, which get the memory of the one that has ended.
      for _ in 0..<4 { require(try onThread(refusals) == 12, "refused there") }
      _exit(0)
    }
  }

  @Test func greenletsOfAThreadThatHasEndedCanBeDroppedAnywhere() async throws {
    await #expect(processExitsWith: .success) {
      for _ in 0..<20 {
        let left = try onThread {
          let main = RawGreenlet.current
          let suspended = RawGreenlet { _ in try main.switch() }
          try suspended.switch()
          return Smuggled<[RawGreenlet]?>([main, suspended, RawGreenlet { _ in nil }])
        }
        let answer = try onThread {
          let first = RawGreenlet { _ in "works" }
          _ = RawGreenlet.current
          left.value = nil
          return try first.switch() as? String
        }
        require(answer == "works", "others work")
      }
      _exit(0)
    }
  }

  @Test func aThreadThatEndsWithSuspendedGreenletsDoesNotCrash() async throws {
    await #expect(processExitsWith: .success) {
      for _ in 0..<10 {
        try onThread {
          let main = RawGreenlet.current
          for _ in 0..<10 {
            // Held by its own stack, so nobody can unwind it.
            let child = RawGreenlet { _ in
              let me = RawGreenlet.current
              try main.switch()
              return me
            }
            try child.switch()
          }
        }
      }
      _exit(0)
    }
  }

  @Test func oneDroppedInAnotherThreadIsUnwoundByItsOwnLater() async throws {
    try await runGreen {
      let owner = pthread_self()
      let log = Log()
      let main = RawGreenlet.current
      let held = Smuggled<RawGreenlet?>(
        RawGreenlet { _ in
          defer { log(pthread_equal(pthread_self(), owner) != 0 ? "by its owner" : "elsewhere") }
          return try main.switch()
        })
      try held.value!.switch()
      try onThread { held.value = nil }
      #expect(log.lines == [])
      #expect(InUse().stacks == 1)
      // At the next switch of any kind.
      try #expect(RawGreenlet { _ in "value" }.switch() as? String == "value")
      #expect(log.lines == ["by its owner"])
      #expect(InUse().stacks == 0)
    }
  }

  @Test func oneDroppedInAnotherThreadIsUnwoundWhenItsOwnEnds() async throws {
    try await runGreen {
      let unwound = Atomic(0)
      let held = Smuggled<RawGreenlet?>(nil)
      try onThread {
        let owner = pthread_self()
        let main = RawGreenlet.current
        held.value = RawGreenlet { _ in
          defer {
            if pthread_equal(pthread_self(), owner) != 0 { unwound.add(1, ordering: .relaxed) }
          }
          return try main.switch()
        }
        try held.value!.switch()
        try onThread { held.value = nil }
      }
      #expect(unwound.load(ordering: .relaxed) == 1)
    }
  }

  @Test func unstartedOnesCanBeDroppedAnywhere() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let held = Smuggled<[RawGreenlet]>([])
      for _ in 0..<100 {
        let tracked = Tracked(counter)
        held.value.append(RawGreenlet { _ in tracked })
      }
      try onThread { held.value = [] }
      #expect(counter.all == 100)
      #expect(counter.live == 0)
    }
  }

  @Test func manyAreDroppedInAnotherThreadWhileTheirOwnSwitches() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let shared = Guarded<[RawGreenlet]>([])
      let isDone = Atomic(false)
      let dropper = startThread {
        while true {
          let isLast = isDone.load(ordering: .acquiring)
          let all = shared.withLock { held in
            defer { held = [] }
            return held
          }
          if all.isEmpty && isLast { return }
        }
      }
      let main = RawGreenlet.current
      for _ in 0..<2000 {
        let child = RawGreenlet(stackSize: 32 * 1024) { _ in
          let tracked = Tracked(counter)
          defer { _ = tracked }
          return try main.switch()
        }
        try child.switch()
        shared.withLock { $0.append(child) }
      }
      isDone.store(true, ordering: .releasing)
      pthread_join(dropper, nil)
      try RawGreenlet { _ in nil }.switch()
      #expect(counter.all == 2000)
      #expect(counter.live == 0)
      #expect(InUse() == InUse(contexts: 1, stacks: 0))
    }
  }

  @Test func manyThreadsMakeAndDropGreenletsAtOnce() async throws {
    try await runGreen {
      let counter = Tracked.Counter()
      let left = Atomic(0)
      let threads = (0..<16).map { _ in
        startThread {
          let main = RawGreenlet.current
          for _ in 0..<50 {
            var children: [RawGreenlet] = []
            for _ in 0..<10 {
              let child = RawGreenlet(stackSize: 32 * 1024) { _ in
                let tracked = Tracked(counter)
                defer { _ = tracked }
                return try main.switch()
              }
              _ = try? child.switch()
              children.append(child)
            }
            for child in children.prefix(5) { _ = try? child.switch() }
            children = []
          }
          left.add(Int(InUse().contexts + InUse().stacks), ordering: .relaxed)
        }
      }
      for thread in threads { pthread_join(thread, nil) }
      #expect(counter.all == 16 * 500)
      #expect(counter.live == 0)
      #expect(left.load(ordering: .relaxed) == 0)
    }
  }

  /// In a process of its own, where nothing else takes memory.
  @Test(.enabled(if: !Sanitizer.any))
  func memoryDoesNotGrowWithThreadsThatEnd() async throws {
    await #expect(processExitsWith: .success) {
      func run(threads: Int) throws {
        for _ in 0..<threads {
          try onThread {
            let main = RawGreenlet.current
            var children: [RawGreenlet] = []
            for index in 0..<50 {
              let child = RawGreenlet { _ in try main.switch([UInt8](repeating: 1, count: 1000)) }
              try child.switch()
              if index % 2 == 0 { try child.switch() }
              children.append(child)
            }
            try Hub.withHub { _ in
              let all = (0..<50).map { _ in spawn { try idle() } }
              try joinAll(all.prefix(25))
            }
          }
        }
      }
      try run(threads: 20)
      let before = memory()
      try run(threads: 300)
      let after = memory()
      require(after.resident < before.resident + 2 << 20, "resident: \(before) \(after)")
      require(after.reserved < before.reserved + 8 << 20, "reserved: \(before) \(after)")
    }
  }

  @Test(.enabled(if: !Sanitizer.any))
  func memoryDoesNotGrowWithGreenletsThatEnd() async throws {
    await #expect(processExitsWith: .success) {
      try onThread {
        func run(rounds: Int) throws {
          let main = RawGreenlet.current
          for round in 0..<rounds {
            let child = RawGreenlet { _ in
              for n in Generator<Int>({ yield in for n in 0..<3 { try yield(n) } }) {
                try main.switch(n)
              }
              return nil
            }
            try child.switch()
            if round % 2 == 0 { try child.throw() }
            if round % 3 == 0 { _ = try? child.throw(OneError()) }
          }
          try Hub.withHub { _ in
            for _ in 0..<rounds / 10 {
              let all = (0..<10).map { _ in
                spawn {
                  for _ in Generator<Int>({ yield in try yield(1) }) { try Greenlet.yield() }
                }
              }
              try joinAll(all)
            }
          }
        }
        try run(rounds: 2000)
        let before = memory()
        try run(rounds: 20_000)
        let after = memory()
        require(after.resident < before.resident + 2 << 20, "resident: \(before) \(after)")
        require(InUse() == InUse(contexts: 0, stacks: 0), "\(InUse())")
      }
    }
  }
}

/// Bytes of this process, from the kernel.
func memory() -> (resident: Int, reserved: Int) {
  guard let file = fopen("/proc/self/statm", "r") else { return (0, 0) }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  guard fgets(&line, 256, file) != nil else { return (0, 0) }
  let fields = String(decoding: line.map(UInt8.init).prefix { $0 != 0 }, as: UTF8.self).split(
    separator: " "
  ).compactMap { Int($0) }
  let page = sysconf(Int32(_SC_PAGESIZE))
  return (fields[1] * page, fields[0] * page)
}
