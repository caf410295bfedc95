// Evergreen: tests of raw greenlets beside those of the hub
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Switching by hand", .timeLimit(.minutes(1)))
struct HandSwitchTests {
  @Test func intoAParkedGreenletIsRefused() async throws {
    try await runGreen {
      let raw = Box<RawGreenlet?>(nil)
      let event = Event()
      let sleeper = spawn {
        raw.value = RawGreenlet.current
        try sleep(for: .seconds(3600))
      }
      try Greenlet.yield()
      for _ in 0..<2 {
        let error = #expect(throws: SwitchError.self) { try raw.value!.switch() }
        #expect(error!.description.contains("waits in its hub for sleep"))
        #expect(throws: SwitchError.self) { try raw.value!.switch(5) }
        #expect(throws: SwitchError.self) { try raw.value!.throw(OneError()) }
      }
      #expect(!sleeper.isReady)
      let waiter = spawn {
        raw.value = RawGreenlet.current
        try event.wait()
        return "undisturbed"
      }
      try Greenlet.yield()
      let error = #expect(throws: SwitchError.self) { try raw.value!.switch() }
      #expect(error!.description.contains("an Event"))
      event.set()
      #expect(throws: SwitchError.self, "it waits for its turn") { try raw.value!.switch() }
      try #expect(waiter.get() == "undisturbed")
      try sleeper.kill()
    }
  }

  @Test func intoTheMainGreenletWhileItWaitsIsRefused() async throws {
    try await runGreen {
      let main = RawGreenlet.current
      let child = spawn { thrown { try main.switch() } }
      try #expect(child.get() is SwitchError)
    }
  }

  @Test func intoAGreenletThatHasEndedGoesNowhereBad() async throws {
    try await runGreen {
      let raw = Box<RawGreenlet?>(nil)
      try spawn { raw.value = RawGreenlet.current }.join()
      #expect(raw.value!.isDead)
      #expect(thrown { try raw.value!.switch() } is SwitchError)
    }
  }

  @Test func aRawGreenletMayBlockOnBehalfOfTheOneThatSwitchedToIt() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let outer = spawn {
        let raw = RawGreenlet { value in
          try sleep(for: .seconds(5))
          log.add("raw \(value!)")
          return "back"
        }
        let answer = try raw.switch(1)
        log.add("\(answer!)")
        return raw.isDead
      }
      let other = spawn {
        try sleep(for: .seconds(1))
        log.add("other")
      }
      try #expect(outer.get())
      try other.join()
      #expect(log.entries == ["other", "raw 1", "back"])
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func aKillReachesARawGreenletThatWaits() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn {
        let raw = RawGreenlet { _ in
          defer { log.add("raw") }
          try sleep(for: .seconds(3600))
          return nil
        }
        defer { log.add("outer") }
        try raw.switch()
        log.add("raw has ended")
        try sleep(for: .seconds(3600))
      }
      try Greenlet.yield()
      try #expect(victim.kill(timeout: .seconds(10)))
      #expect(log.entries == ["raw", "raw has ended", "outer"])
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func nobodySwitchesToAGreenletForWhichARawOneWaits() async throws {
    try await runGreen {
      let gate = Event()
      var own: RawGreenlet?
      let greenlet = spawn {
        own = .current
        let raw = RawGreenlet { _ in
          try gate.wait()
          return 5
        }
        return try raw.switch() as? Int
      }
      try Greenlet.yield()
      let error = #expect(throws: SwitchError.self) { try own?.switch() }
      #expect("\(error!)".contains("for which a raw greenlet waits"))
      gate.set()
      try #expect(greenlet.get() == 5)
    }
  }

  @Test func aKillReachesThroughSeveralRawGreenlets() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn {
        let outer = RawGreenlet { _ in
          defer { log.add("outer raw") }
          let inner = RawGreenlet { _ in
            defer { log.add("inner raw") }
            try sleep(for: .seconds(3600))
            return nil
          }
          try inner.switch()
          try Greenlet.yield()
          log.add("never")
          return nil
        }
        try outer.switch()
        try Greenlet.yield()
        log.add("never")
      }
      try Greenlet.yield()
      try #expect(victim.kill(timeout: .seconds(10)))
      #expect(log.entries == ["inner raw", "outer raw"])
    }
  }

  @Test func aKillThatARawGreenletSwallowsIsOver() async throws {
    try await runGreen {
      let victim = spawn {
        let raw = RawGreenlet { _ in
          do { try sleep(for: .seconds(3600)) } catch is GreenletExit {}
          return "lived"
        }
        let answer = try raw.switch() as? String
        try Greenlet.yield()
        return answer
      }
      try Greenlet.yield()
      try #expect(victim.kill(timeout: .seconds(10)))
      #expect(victim.value == "lived")
    }
  }

  @Test func aRawGreenletThatIsDroppedIsNoKill() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn {
        let waiter = RawGreenlet { [main = RawGreenlet.current] _ in
          defer { log.add("dropped") }
          return try main.switch()
        }
        try waiter.switch()
        let ticks = Generator<Int> { _ in try sleep(for: .seconds(3600)) }
        defer {
          try? sleep(for: .milliseconds(1))  // not interrupted by what `waiter` ended with
          log.add("cleaned up")
        }
        do {
          _ = try ticks.nextOrThrow()
        } catch {
          withExtendedLifetime(consume waiter) {}
          log.add("caught")
          do { try sleep(for: .milliseconds(1)) } catch { log.add("killed again") }
          throw error
        }
      }
      try Greenlet.yield()
      try #expect(victim.kill(timeout: .seconds(10)))
      #expect(log.entries == ["dropped", "caught", "cleaned up"])
    }
  }

  @Test func aRawGreenletThatNeedsAHubFirstWorksForTheThreadsOwnCode() {
    let log = SharedLog()
    OwnThread {
      let ticks = Generator<Int> { yield in
        for number in 0..<2 {
          try sleep(for: .milliseconds(1))
          try yield(number)
        }
      }
      log.add("\(ticks.next() ?? -1)")
      #expect(Greenlet.current === Hub.current.main)
      #expect(thrown { try sleep(for: .milliseconds(1)) } == nil)
      #expect((try? spawn { 3 }.get()) == 3)
      log.add("\(ticks.next() ?? -1)")
      #expect(ticks.next() == nil)
      #expect(ticks.error == nil)
      #expect((try? spawn { 4 }.get()) == 4)
      log.add("end")
    }.join()
    #expect(log.entries == ["0", "1", "end"])
  }

  @Test func aHubMayBeginAndEndInARawGreenlet() {
    let log = SharedLog()
    OwnThread {
      for number in 0..<2 {
        let raw = RawGreenlet { _ in
          try Hub.withHub { _ in
            spawn { try sleep(for: .seconds(3600)) }
            return try spawn {
              try sleep(for: .milliseconds(1))
              return number
            }.get()
          }
        }
        log.add("\((try? raw.switch() as? Int) ?? -1)")
        #expect(Hub.currentIfAny == nil)
        #expect(raw.isDead)
      }
    }.join()
    #expect(log.entries == ["0", "1"])
  }

  @Test func aGeneratorMayBlock() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let consumer = spawn {
        let ticks = Generator<Int> { yield in
          for number in 0..<3 {
            try sleep(for: .seconds(1))
            try yield(number)
          }
        }
        for tick in ticks { log.add("\(tick) at \(clock.elapsed.components.seconds)") }
      }
      try consumer.join()
      #expect(log.entries == ["0 at 1", "1 at 2", "2 at 3"])
    }
  }
}
