// Evergreen: tests of a greenlet's result
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Greenlet", .timeLimit(.minutes(1)))
struct GreenletTests {
  @Test func getReturnsWhatTheBodyReturned() async throws {
    try await runGreen {
      let greenlet = spawn {
        try sleep(for: .milliseconds(1))
        return "result"
      }
      #expect(greenlet.value == nil)
      try #expect(greenlet.get() == "result")
      #expect(greenlet.value == "result")
      #expect(greenlet.error == nil)
      #expect(greenlet.isReady && greenlet.isSuccessful && !greenlet.isActive)
      try #expect(greenlet.get() == "result", "once more")
    }
  }

  @Test func getThrowsWhatTheBodyThrew() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let greenlet = spawn { () throws -> Int in throw OneError(number: 7) }
      #expect(throws: OneError(number: 7)) { try greenlet.get() }
      #expect(throws: OneError(number: 7)) { try greenlet.get() }
      #expect(greenlet.error as? OneError == OneError(number: 7))
      #expect(greenlet.value == nil)
      #expect(greenlet.isReady && !greenlet.isSuccessful)
    }
  }

  @Test func getAfterAKillThrowsGreenletExit() async throws {
    try await runGreen {
      let greenlet = spawn { try sleep(for: .seconds(60)) }
      try Greenlet.yield()
      try greenlet.kill()
      #expect(throws: GreenletExit.self) { try greenlet.get() }
      #expect(greenlet.isSuccessful)
      #expect(greenlet.error is GreenletExit)
    }
  }

  @Test func getTimesOutAndTheGreenletGoesOn() async throws {
    try await runGreenInVirtualTime { clock in
      let greenlet = spawn {
        try sleep(for: .seconds(10))
        return 42
      }
      let error = thrown { _ = try greenlet.get(timeout: .seconds(3)) }
      #expect((error as? Timeout)?.duration == .seconds(3))
      #expect(clock.elapsed == .seconds(3))
      #expect(throws: Timeout.self) { try greenlet.get(timeout: .zero) }
      #expect(throws: Timeout.self) { try greenlet.get(timeout: .seconds(-1)) }
      #expect(clock.elapsed == .seconds(3))
      try #expect(greenlet.get(timeout: .seconds(100)) == 42)
      #expect(clock.elapsed == .seconds(10))
      try #expect(greenlet.get(timeout: .zero) == 42)
    }
  }

  @Test func joinSaysWhetherItHasEnded() async throws {
    try await runGreenInVirtualTime { clock in
      let greenlet = spawn { try sleep(for: .seconds(10)) }
      try #expect(!greenlet.join(timeout: .zero))
      try #expect(!greenlet.join(timeout: .seconds(-5)))
      #expect(clock.elapsed == .zero)
      try #expect(!greenlet.join(timeout: .seconds(9)))
      #expect(clock.elapsed == .seconds(9))
      try #expect(greenlet.join(timeout: .seconds(9)))
      #expect(clock.elapsed == .seconds(10))
      try #expect(greenlet.join(timeout: .zero))
      try #expect(greenlet.join())
    }
  }

  @Test func joinNeverThrowsTheGreenletsError() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let greenlet = spawn { throw OneError() }
      try #expect(greenlet.join())
    }
  }

  @Test func joinersAreWokenInOrder() async throws {
    try await runGreen {
      let log = Log()
      let event = Event()
      let worker = spawn { try event.wait() }
      let joiners = (0..<100).map { number in
        spawn {
          try worker.join()
          log.add("\(number)")
        }
      }
      try Greenlet.yield()
      try Greenlet.yield()
      #expect(log.entries.isEmpty)
      event.set()
      try joinAll(joiners)
      #expect(log.entries == (0..<100).map(String.init))
    }
  }

  @Test func aResultThatIsReadyBeatsTheClock() async throws {
    try await runGreenInVirtualTime { clock in
      let worker = spawn {
        try sleep(for: .seconds(5))
        return "won"
      }
      try Greenlet.yield()  // so that its timer comes first
      try #expect(worker.get(timeout: .seconds(5)) == "won")
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func aFailureLeavesTheOthersAlone() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let before = spawn { try sleep(for: .milliseconds(5)) }
      let failing = spawn {
        try sleep(for: .milliseconds(1))
        throw OneError()
      }
      let after = spawn {
        for _ in 0..<10 { try sleep(for: .milliseconds(1)) }
        return "fine"
      }
      try failing.join()
      #expect(!before.isReady || before.isSuccessful)
      try before.get()
      try #expect(after.get() == "fine")
    }
  }

  @Test func dropsItsBodyAtTheEnd() async throws {
    try await runGreen {
      final class Resource {}
      weak var held: Resource?
      let greenlet: Greenlet<Void>
      do {
        let resource = Resource()
        held = resource
        greenlet = spawn { withExtendedLifetime(resource) {} }
      }
      #expect(held != nil)
      try greenlet.join()
      #expect(held == nil)
    }
  }

  @Test func isFreedWhenItHasEndedAndNobodyHoldsIt() async throws {
    try await runGreen {
      weak var finished: AnyGreenlet?
      weak var unstarted: AnyGreenlet?
      weak var parked: AnyGreenlet?
      do {
        let one = spawn { try Greenlet.yield() }
        finished = one
        try one.join()
        let other = Greenlet {}
        unstarted = other
        parked = spawn { try sleep(for: .milliseconds(5)) }
      }
      try Greenlet.yield()
      #expect(finished == nil)
      #expect(unstarted == nil)
      #expect(parked != nil, "the hub holds it")
      try Hub.current.join()
      try Greenlet.yield()
      #expect(parked == nil)
    }
  }

  @Test func theMainGreenletCanBeKilledByAnother() async throws {
    try await runGreen {
      let main = Hub.current.main!
      spawn { try main.kill(OneError(number: 3), waiting: false) }
      #expect(throws: OneError(number: 3)) { try sleep(for: .seconds(60)) }
      #expect(!main.isReady)
      try sleep(for: .milliseconds(1))
    }
  }
}
