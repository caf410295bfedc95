// Evergreen: tests of switches inside C++ handlers, and while a C++ exception unwinds the stack
// SPDX-License-Identifier: MIT

import CxxExceptions
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

/// A C++ function that calls back, with `body` as what it calls. An error may not leave `body`:
/// nothing unwinds C++ but C++.
private func cxx<R>(
  _ call: (cxx_body, UnsafeMutableRawPointer) -> R, _ body: () -> Void
) -> R {
  withoutActuallyEscaping(body) { body in
    withUnsafeTemporaryAllocation(of: (() -> Void).self, capacity: 1) { memory in
      memory.initializeElement(at: 0, to: body)
      defer { memory.deinitialize() }
      return call(
        { $0.assumingMemoryBound(to: (() -> Void).self).pointee() }, memory.baseAddress!)
    }
  }
}

private func handling(_ number: Int32, _ body: () -> Void) -> Int32 {
  cxx({ cxx_handle(number, $0, $1) }, body)
}

/// Gives way a number of times, and says whether `test` held each time.
private func yields(_ times: Int, while test: () -> Bool) -> Bool {
  var held = test()
  for _ in 0..<times {
    do { try Greenlet.yield() } catch { return false }
    held = held && test()
  }
  return held
}

@Suite(.timeLimit(.minutes(1)), .serialized) struct CxxExceptionTests {
  @Test func exceptionsBelongToTheGreenletThatHandlesThem() async throws {
    try await runGreen {
      // The later ones leave their handlers earlier as well as later than those before them.
      let greenlets = (1...20 as ClosedRange<Int32>).map { number in
        spawn {
          var kept = true
          for round in 0..<20 as Range<Int32> {
            let mine = number * 100 + round
            let times = Int(number * 7 % 5 + round % 3)
            let seen = handling(mine) { kept = yields(times) { cxx_current() == mine } && kept }
            kept = kept && seen == mine && cxx_current() == 0 && cxx_uncaught() == 0
            try Greenlet.yield()
            kept = kept && cxx_current() == 0
          }
          return kept
        }
      }
      let kept = try greenlets.map { try $0.get() }
      #expect(!kept.contains(false))
    }
    #expect(cxx_live() == 0)
  }

  @Test func whatIsThrownAgainIsTheGreenletsOwn() async throws {
    try await runGreen {
      let greenlets = (1...10 as ClosedRange<Int32>).map { number in
        spawn {
          var seen: [Int32] = []
          for _ in 0..<10 {
            seen.append(
              cxx({ cxx_rethrow(number, $0, $1) }) { _ = yields(Int(number) % 4) { true } })
          }
          return seen == Array(repeating: number, count: 10)
        }
      }
      let kept = try greenlets.map { try $0.get() }
      #expect(!kept.contains(false))
    }
    #expect(cxx_live() == 0)
  }

  @Test func nestedHandlersOfSeveralGreenlets() async throws {
    try await runGreen {
      let greenlets = (1...10 as ClosedRange<Int32>).map { number in
        spawn {
          var seen: [Int32] = []
          let result = cxx({ cxx_nest(number, number + 100, $0, $1) }) {
            _ = yields(Int(number) % 3 + 1) { true }
            seen.append(cxx_current())
          }
          return seen == [number, number + 100, number] && result == 1000 * number + number + 100
        }
      }
      let kept = try greenlets.map { try $0.get() }
      #expect(!kept.contains(false))
    }
    #expect(cxx_live() == 0)
  }

  @Test func exceptionsOnTheirWayAreNotCountedInOtherGreenlets() async throws {
    try await runGreen {
      let unwinding = (1...3 as ClosedRange<Int32>).map { number in
        spawn {
          cxx({ cxx_unwind(number, $0, $1) }) { #expect(yields(5) { cxx_uncaught() == 1 }) }
        }
      }
      let other = spawn {
        var kept = true
        for _ in 0..<4 {
          try Greenlet.yield()
          kept = kept && cxx_uncaught() == 0 && cxx_current() == 0 && handling(9) {} == 9
        }
        return kept
      }
      let kept = try other.get()
      #expect(kept)
      let counts = try unwinding.map { try $0.get() }
      #expect(counts == [110, 110, 110])
      #expect(cxx_uncaught() == 0)
    }
    #expect(cxx_live() == 0)
  }

  @Test func aNewGreenletHasNone() async throws {
    try await runGreen {
      var seen: [Int32] = []
      let number = handling(1) {
        // The second takes over the stack of the first.
        let children = (2...3 as ClosedRange<Int32>).map { number in
          spawn {
            seen.append(cxx_current())
            seen.append(handling(number) {})
          }
        }
        for child in children { _ = try? child.join() }
        seen.append(cxx_current())
      }
      #expect(number == 1)
      #expect(seen == [0, 2, 0, 3, 1])
    }
    #expect(cxx_live() == 0)
  }

  @Test func switchesByHandKeepThem() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = RawGreenlet { _ in
        handling(1) { _ = try? main.switch(cxx_current()) }
      }
      var seen: [Int32?] = []
      let number = handling(2) {
        seen.append(try? child.switch() as? Int32)
        seen.append(cxx_current())
      }
      seen.append(cxx_current())
      seen.append(try child.switch() as? Int32)  // this handler ends after the later one
      #expect(number == 2)
      #expect(seen == [1, 2, 0, 1])
    }
    #expect(cxx_live() == 0)
  }

  @Test func aKilledGreenletLeavesItsHandler() async throws {
    try await runGreen {
      var seen: [Int32] = []
      let greenlet = spawn {
        var error: (any Error)?
        seen.append(
          handling(1) {
            do { try sleep(for: .seconds(3600)) } catch let thrown { error = thrown }
            seen.append(cxx_current())
          })
        if let error { throw error }
      }
      try Greenlet.yield()
      #expect(handling(2) { _ = try? greenlet.kill() } == 2)
      #expect(greenlet.isReady)
      #expect(seen == [1, 1])
      #expect(cxx_current() == 0)
    }
    #expect(cxx_live() == 0)
  }

  @Test func aDroppedGreenletLeavesItsHandler() async throws {
    try await runGreen {
      var seen: [Int32] = []
      let main = RawGreenlet.current
      var child: RawGreenlet? = RawGreenlet { _ in
        var error: (any Error)?
        seen.append(
          handling(1) {
            do { try main.switch() } catch let thrown { error = thrown }
            seen.append(cxx_current())
          })
        if let error { throw error }
        return nil
      }
      try child!.switch()
      #expect(handling(2) { child = nil } == 2)
      #expect(seen == [1, 1])
      #expect(cxx_current() == 0)
    }
    #expect(cxx_live() == 0)
  }

  @Test func threadsKeepTheirOwn() async throws {
    try await runGreen {
      let handled = Atomic(0)
      let threads = (1...3 as ClosedRange<Int32>).map { thread in
        startThread {
          let main = RawGreenlet.current
          let greenlets = (1...10 as ClosedRange<Int32>).map { number in
            RawGreenlet { _ in
              let mine = thread * 100 + number
              for _ in 0..<50 {
                let seen = handling(mine) {
                  _ = try? main.switch()
                  if cxx_current() == mine { handled.add(1, ordering: .relaxed) }
                }
                if seen == mine { handled.add(1, ordering: .relaxed) }
              }
              return nil
            }
          }
          for _ in 0...50 {
            for greenlet in greenlets { _ = try? greenlet.switch() }
          }
        }
      }
      for thread in threads { pthread_join(thread, nil) }
      #expect(handled.load(ordering: .relaxed) == 3 * 10 * 50 * 2)
    }
    #expect(cxx_live() == 0)
  }

  @Test func theChildOfAForkIsStillInItsHandler() async throws {
    try await runGreen {
      let other = spawn {
        _ = handling(2) { try? Greenlet.yield() }
      }
      try Greenlet.yield()
      var code: Int32?
      let number = cxx({ cxx_rethrow(1, $0, $1) }) {
        let child = ForkedChild {
          struct Wrong: Error {}
          guard cxx_current() == 1, handling(3, {}) == 3, cxx_current() == 1 else { throw Wrong() }
        }
        code = try? child.wait()
      }
      #expect(number == 1)
      #expect(code == 0)
      try other.join()
    }
    #expect(cxx_live() == 0)
  }

  @Test func aHandlerThatIsJumpedOutOfIsNotTheNextGreenlets() async throws {
    let living = cxx_live()
    try await runGreen {
      for reused in [true, false] {
        let jumping = spawn {
          cxx({ cxx_jump_out(1, $0, $1) }) {}
          #expect(cxx_current() == 1)
        }
        if !reused { try jumping.join() }
        let next = spawn { cxx_current() }
        #expect(try next.get() == 0)
        try jumping.join()
      }
      #expect(cxx_current() == 0)
    }
    #expect(cxx_live() == living + 2)  // what was jumped over leaks, as anywhere
  }
}
