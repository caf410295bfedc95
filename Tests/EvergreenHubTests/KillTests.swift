// Evergreen: tests of killing greenlets, in every phase of their lives
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Kill", .timeLimit(.minutes(1)))
struct KillTests {
  /// Where in its life the victim is.
  enum Stage: CaseIterable { case unstarted, delayed, scheduled, parked, readyToRun, ended }

  final class Victim {
    let log = Log()
    let event = Event()
    private(set) var greenlet: Greenlet<Int>!

    init(at stage: Stage) throws {
      greenlet = Greenlet { [log, event] in
        log.add("begin")
        defer { log.add("cleanup") }
        try event.wait()
        log.add("woken")
        try sleep(for: .seconds(3600))
        log.add("never")
        return 1
      }
      switch stage {
      case .unstarted: break
      case .delayed: greenlet.start(after: .seconds(1000))
      case .scheduled: greenlet.start()
      case .parked:
        greenlet.start()
        try Greenlet.yield()
      case .readyToRun:
        greenlet.start()
        try Greenlet.yield()
        event.set()
      case .ended:
        greenlet = spawn { 2 }
        try greenlet.join()
      }
    }

    func expectKilled(at stage: Stage, with error: (any Error)?) {
      let expected: [String] =
        switch stage {
        case .unstarted, .delayed, .scheduled, .ended: []
        case .parked: ["begin", "cleanup"]
        // What it has won it gets; the kill waits at the next switch point.
        case .readyToRun: ["begin", "woken", "cleanup"]
        }
      #expect(log.entries == expected)
      #expect(greenlet.isReady)
      #expect(!greenlet.isActive)
      if stage == .ended {
        #expect(greenlet.value == 2)
        #expect(greenlet.error == nil)
        #expect(greenlet.isSuccessful)
      } else if let error = error as? OneError {
        #expect(greenlet.value == nil)
        #expect(greenlet.error as? OneError == error)
        #expect(!greenlet.isSuccessful)
      } else {
        #expect(greenlet.value == nil)
        #expect(greenlet.error is GreenletExit)
        #expect(greenlet.isSuccessful)
      }
    }
  }

  @Test(arguments: Stage.allCases)
  func waitingReturnsWhenItHasEnded(_ stage: Stage) async throws {
    try await runGreenInVirtualTime { clock in
      let victim = try Victim(at: stage)
      try #expect(victim.greenlet.kill())
      victim.expectKilled(at: stage, with: nil)
      #expect(clock.elapsed == .zero)
    }
  }

  @Test(arguments: Stage.allCases)
  func notWaitingEndsItSoon(_ stage: Stage) async throws {
    try await runGreenInVirtualTime { clock in
      let victim = try Victim(at: stage)
      let endedAtOnce = try victim.greenlet.kill(waiting: false)
      #expect(endedAtOnce == ![.parked, .readyToRun].contains(stage))
      #expect(endedAtOnce == victim.greenlet.isReady)
      #expect(!victim.log.entries.contains("cleanup"), "the killer keeps running")
      try victim.greenlet.join()
      victim.expectKilled(at: stage, with: nil)
      #expect(clock.elapsed == .zero)
    }
  }

  @Test(arguments: Stage.allCases, [true, false])
  func anErrorOfOnesOwnBecomesItsError(_ stage: Stage, waiting: Bool) async throws {
    try await runGreenInVirtualTime { _ in
      let reports = Log()
      Hub.current.onError = { _, error in reports.add("\(error)") }
      let links = Log()
      let victim = try Victim(at: stage)
      victim.greenlet.linkFailure { links.add("\($0.error!)") }
      try victim.greenlet.kill(OneError(number: 9), waiting: waiting)
      try victim.greenlet.join()
      victim.expectKilled(at: stage, with: OneError(number: 9))
      try Hub.current.join()
      let expected = stage == .ended ? [] : ["OneError(number: 9)"]
      #expect(links.entries == expected)
      #expect(reports.entries == expected, "once each")
    }
  }

  @Test(arguments: Stage.allCases)
  func twiceIsAsOnce(_ stage: Stage) async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { _, _ in }
      let victim = try Victim(at: stage)
      try victim.greenlet.kill(waiting: false)
      try victim.greenlet.kill(OneError(), waiting: false)
      try victim.greenlet.kill(OneError())
      victim.expectKilled(at: stage, with: nil)
      try #expect(victim.greenlet.kill())
      try #expect(victim.greenlet.kill(waiting: false))
    }
  }

  @Test(arguments: Stage.allCases)
  func reachesLinksAndJoiners(_ stage: Stage) async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let victim = try Victim(at: stage)
      let greenlet = victim.greenlet!
      greenlet.link { _ in log.add("link") }
      let joiner = spawn {
        try greenlet.join()
        log.add("joiner")
      }
      let getter = spawn {
        do { _ = try greenlet.get() } catch is GreenletExit { log.add("exit") }
      }
      spawn {
        try greenlet.kill()
        log.add("killer")
      }
      try joinAll([joiner, getter])
      try Hub.current.join()
      #expect(
        log.entries.sorted() == (stage == .ended ? [] : ["exit"]) + ["joiner", "killer", "link"])
    }
  }

  @Test func startAfterAKillDoesNothing() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = Greenlet { log.add("run") }
      try greenlet.kill()
      greenlet.start()
      greenlet.start(after: .zero)
      try sleep(for: .milliseconds(2))
      #expect(log.entries.isEmpty)
      #expect(greenlet.error is GreenletExit)
    }
  }

  @Test(arguments: [Stage.unstarted, .delayed, .scheduled])
  func ofOneThatHasNotBegunDoesNotRunTheHandlerInTheKiller(_ stage: Stage) async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let victim = try Victim(at: stage)
      Hub.current.onError = { greenlet, error in
        #expect(greenlet === victim.greenlet)
        #expect(Greenlet.current === greenlet)
        log.add("handler")
        try sleep(for: .seconds(1))
        log.add("handled \(error)")
      }
      try #expect(victim.greenlet.kill(OneError(), waiting: false))
      log.add("killer")
      try Hub.current.join()
      #expect(log.entries == ["killer", "handler", "handled OneError(number: 0)"])
    }
  }

  @Test(arguments: [Stage.unstarted, .delayed, .scheduled])
  func ofOneThatHasNotBegunIsReportedAtTheEndOfTheHubToo(_ stage: Stage) async throws {
    let log = SharedLog()
    try await runGreen {
      Hub.current.onError = { _, error in log.add("\(error)") }
      try Victim(at: stage).greenlet.kill(OneError())
    }
    #expect(log.entries == ["OneError(number: 0)"])
  }

  @Test func inACallbackOfTheLoopDoesNotRunTheHandlerThere() async throws {
    try await runGreen {
      let log = Log()
      let victim = Greenlet {}
      Hub.current.onError = { _, _ in
        try sleep(for: .milliseconds(1))
        log.add("handled")
      }
      let timer = Hub.current.eventLoop.timer(after: .zero)
      timer.start { try victim.kill(OneError(), waiting: false) }
      try victim.join()
      try Hub.current.join()
      #expect(log.entries == ["handled"])
    }
  }

  @Test func aDelayedVictimsTimerIsTakenBack() async throws {
    try await runGreenInVirtualTime { clock in
      let victim = spawn(after: .seconds(1000)) {}
      try victim.kill()
      try #expect(Hub.current.join())
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func ofAParkedOneThrowsWhereItWaits() async throws {
    try await runGreen {
      let caught = Box<(any Error)?>(nil)
      let victim = spawn {
        do { try sleep(for: .seconds(60)) } catch {
          caught.value = error
          throw error
        }
      }
      try Greenlet.yield()
      #expect(victim.isActive)
      try victim.kill()
      #expect(caught.value is GreenletExit)
    }
  }

  @Test func ofOnesSelfThrowsAtOnceWhenWaiting() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn {
        defer { log.add("cleanup") }
        try Greenlet.current.kill()
        log.add("never")
      }
      try victim.join()
      #expect(log.entries == ["cleanup"])
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func ofOnesSelfThrowsAtTheNextSwitchPointWhenNotWaiting() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let log = Log()
      let victim = spawn {
        try #expect(!Greenlet.current.kill(OneError(), waiting: false))
        log.add("still here")
        try Greenlet.yield()
        log.add("never")
      }
      try victim.join()
      #expect(log.entries == ["still here"])
      #expect(victim.error is OneError)
    }
  }

  @Test func ofOnesSelfAtTheEndIsForgotten() async throws {
    try await runGreen {
      let victim = spawn {
        try Greenlet.current.kill(waiting: false)
        return 1
      }
      try #expect(victim.get() == 1)
      #expect(victim.isSuccessful)
    }
  }

  @Test func mayBeSwallowedAndThenNeedsAnother() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn {
        for round in 0..<3 {
          do { try sleep(for: .seconds(60)) } catch is GreenletExit { log.add("\(round)") }
        }
        return "lived"
      }
      try Greenlet.yield()
      for _ in 0..<2 {
        try #expect(!victim.kill(waiting: true, timeout: .milliseconds(1)))
      }
      #expect(log.entries == ["0", "1"])
      #expect(!victim.isReady)
      try #expect(victim.kill())
      #expect(victim.value == "lived")
      #expect(victim.isSuccessful)
      #expect(victim.error == nil)
    }
  }

  @Test func timesOutOnAStubbornVictim() async throws {
    try await runGreenInVirtualTime { clock in
      let victim = spawn {
        do { try sleep(for: .seconds(60)) } catch { try sleep(for: .seconds(10)) }
      }
      try Greenlet.yield()
      try #expect(!victim.kill(timeout: .seconds(3)))
      #expect(clock.elapsed == .seconds(3))
      try victim.join()
      #expect(clock.elapsed == .seconds(10))
    }
  }

  @Test func cleanUpMayBlockAndIsWaitedFor() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      let victim = spawn {
        defer {
          try? sleep(for: .seconds(5))
          log.add("clean")
        }
        try sleep(for: .seconds(60))
      }
      try Greenlet.yield()
      try victim.kill()
      #expect(log.entries == ["clean"])
      #expect(clock.elapsed == .seconds(5))
    }
  }

  @Test func theKillerCanBeKilledWhileItWaits() async throws {
    try await runGreenInVirtualTime { _ in
      let victim = spawn {
        do { try sleep(for: .seconds(60)) } catch { try sleep(for: .seconds(10)) }
      }
      try Greenlet.yield()
      let killer = spawn { try victim.kill() }
      try Greenlet.yield()
      try Greenlet.yield()
      try killer.kill()
      #expect(killer.error is GreenletExit)
      #expect(!victim.isReady)
      try victim.join()
    }
  }

  @Test func comesBeforeATimeoutThatIsDueToo() async throws {
    try await runGreenInVirtualTime { _ in
      let event = Event()
      let log = Log()
      let target = Box<AnyGreenlet?>(nil)
      spawn {  // its timer is the first of the two, so it runs when the other has fired too
        try sleep(for: .seconds(5))
        try target.value!.kill(waiting: false)
      }
      let victim = spawn {
        try withTimeout(.seconds(5)) {
          do { try event.wait() } catch {
            log.add("\(type(of: error))")
            throw error
          }
        }
      }
      target.value = victim
      try victim.join()
      #expect(log.entries == ["GreenletExit"])
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func twoGreenletsKillEachOther() async throws {
    try await runGreen {
      let other = Box<AnyGreenlet?>(nil)
      let one = spawn {
        try sleep(for: .milliseconds(1))
        try other.value!.kill()
      }
      other.value = spawn {
        try sleep(for: .milliseconds(1))
        try one.kill()
      }
      try joinAll([one, other.value!])
      #expect(one.isSuccessful && other.value!.isSuccessful)
    }
  }

  @Test func joinOrKillAtScopeExit() async throws {
    // What gevent's context manager does: joined on the normal way out, killed on an error.
    try await runGreenInVirtualTime { _ in
      func scope(_ body: (Greenlet<String>) throws -> Void) throws -> Greenlet<String> {
        let greenlet = spawn {
          try sleep(for: .seconds(1))
          return "done"
        }
        do {
          try body(greenlet)
          try greenlet.join()
        } catch {
          try greenlet.kill()
        }
        return greenlet
      }
      try #expect(scope { _ in }.value == "done")
      let killed = try scope { _ in
        try Greenlet.yield()
        throw OneError()
      }
      #expect(killed.value == nil)
      #expect(killed.error is GreenletExit)
    }
  }
}

@Suite("killAll", .timeLimit(.minutes(1)))
struct KillAllTests {
  @Test func endsThoseThatHaveBegunAndThoseThatHaveNot() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      func victim(_ name: String) -> Greenlet<Void> {
        Greenlet {
          log.add("\(name) begins")
          defer { log.add("\(name) cleans up") }
          try sleep(for: .seconds(60))
        }
      }
      let running = (0..<3).map { victim("running \($0)").start() }
      try Greenlet.yield()
      let scheduled = victim("scheduled").start()
      let delayed = victim("delayed").start(after: .seconds(10))
      let unstarted = victim("unstarted")
      log.clear()
      try killAll(running + [scheduled, delayed, unstarted])
      #expect(log.entries == (0..<3).map { "running \($0) cleans up" }, "in the order given")
      for greenlet in running + [scheduled, delayed, unstarted] {
        #expect(greenlet.isReady)
        #expect(greenlet.error is GreenletExit)
      }
      try #expect(Hub.current.join())
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func notWaitingReturnsAtOnce() async throws {
    try await runGreen {
      let log = Log()
      let victims = (0..<3).map { number in
        spawn {
          defer { log.add("\(number)") }
          try sleep(for: .seconds(60))
        }
      }
      try Greenlet.yield()
      try killAll(victims, waiting: false)
      #expect(log.entries.isEmpty)
      #expect(!victims.contains { $0.isReady })
      try joinAll(victims)
      #expect(log.entries == ["0", "1", "2"])
    }
  }

  @Test func throwsATimeoutWhenSomeAreStubborn() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      func stubborn() -> Greenlet<Void> {
        spawn {
          while true {
            do {
              try sleep(for: .seconds(60))
              return
            } catch is GreenletExit {
              log.add("caught")
            }
          }
        }
      }
      let victims = [stubborn(), spawn { try sleep(for: .seconds(60)) }, stubborn()]
      try Greenlet.yield()
      let error = thrown { try killAll(victims, timeout: .seconds(2)) }
      #expect((error as? Timeout)?.duration == .seconds(2))
      #expect(clock.elapsed == .seconds(2))
      #expect(victims.map(\.isReady) == [false, true, false])
      #expect(log.entries == ["caught", "caught"], "one error each")
      try joinAll(victims)
    }
  }

  @Test func timeoutCoversUnstartedOnesToo() async throws {
    try await runGreenInVirtualTime { clock in
      let victims = (0..<3).map { _ in Greenlet {} }
      try killAll(victims, timeout: .seconds(1))
      #expect(!victims.contains { !$0.isReady })
      #expect(clock.elapsed == .zero)
    }
  }

  @Test func theErrorIsTheOneGiven() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let running = spawn { try sleep(for: .seconds(60)) }
      try Greenlet.yield()
      let scheduled = spawn {}
      try killAll([running, scheduled], with: OneError(number: 5))
      #expect(running.error as? OneError == OneError(number: 5))
      #expect(scheduled.error as? OneError == OneError(number: 5))
    }
  }

  @Test func acceptsNoneEndedOnesAndRepetitions() async throws {
    try await runGreen {
      try killAll([])
      let ended = spawn { 1 }
      try ended.join()
      let victim = spawn { try sleep(for: .seconds(60)) }
      try Greenlet.yield()
      try killAll([ended, victim, victim, ended] as [AnyGreenlet])
      #expect(ended.value == 1)
      #expect(victim.error is GreenletExit)
    }
  }

  @Test func mayIncludeTheCaller() async throws {
    try await runGreen {
      let log = Log()
      let others = (0..<2).map { _ in spawn { try sleep(for: .seconds(60)) } }
      let caller = Box<AnyGreenlet?>(nil)
      caller.value = spawn {
        defer { log.add("cleanup") }
        try killAll([caller.value!] + others)
        log.add("never")
      }
      try joinAll(others)
      try caller.value!.join()
      #expect(log.entries == ["cleanup"])
      #expect(caller.value!.error is GreenletExit)
      #expect(!others.contains { !($0.error is GreenletExit) })
    }
  }
}
