// Evergreen: tests of the life of a hub
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite("Hub", .timeLimit(.minutes(1)))
struct HubTests {
  @Test func aThreadHasOneAndKeepsIt() async throws {
    try await runGreen {
      let hub = Hub.current
      #expect(Hub.current === hub)
      #expect(Hub.currentIfAny === hub)
      #expect(hub.isCurrent)
      spawn { #expect(Hub.current === hub) }
      #expect(Hub.withHub { $0 === hub }, "no second one inside")
      try hub.join()
      #expect(Hub.current === hub)
    }
  }

  /// libev does not ask whether somebody is ready when it begins to wait.
  @Test(arguments: [false, true])
  func whatAPrepareWatcherWakesRunsAtOnce(_ fails: Bool) async throws {
    try await runGreen {
      let loop = Hub.current.eventLoop
      loop.onError = { _, _ in }
      let event = Event()
      let prepare = loop.prepare()
      prepare.start {
        prepare.stop()
        event.set()
        if fails { throw OneError() }
      }
      let begin = ContinuousClock.now
      try #expect(event.wait(timeout: .seconds(30)))
      #expect(ContinuousClock.now - begin < .seconds(15))
    }
  }

  @Test func aPrepareWatcherThatWakesNobodyLetsTheLoopWait() async throws {
    try await runGreen {
      var passes = 0
      let prepare = Hub.current.eventLoop.prepare()
      prepare.start { passes += 1 }
      try sleep(for: .milliseconds(50))
      prepare.stop()
      #expect(passes < 20)
    }
  }

  @Test func eachThreadHasItsOwn() throws {
    let log = SharedLog()
    let threads = (0..<4).map { number in
      OwnThread {
        log.add(Hub.currentIfAny == nil ? "none" : "some")
        let hub = Hub.current
        let sum = spawn { () throws -> Int in
          for _ in 0..<100 { try Greenlet.yield() }
          #expect(Hub.current === hub)
          try sleep(for: .milliseconds(1))
          return number
        }
        log.add("\((try? sum.get()) ?? -1)")
      }
    }
    for thread in threads { thread.join() }
    #expect(log.entries.sorted() == ["0", "1", "2", "3", "none", "none", "none", "none"])
  }

  @Test func isFreedWhenItsThreadEnds() throws {
    final class Seen: @unchecked Sendable {
      // Unchecked: the thread has ended before it is looked at.
      weak var hub: Hub?
      weak var greenlet: AnyGreenlet?
      var wereThere = false
    }
    for _ in 0..<20 {
      let seen = Seen()
      let log = SharedLog()
      let thread = OwnThread {
        let hub = Hub.current
        seen.hub = hub
        let left = spawn {
          defer { log.add("cleanup") }
          try sleep(for: .seconds(3600))
        }
        seen.greenlet = left
        try? Greenlet.yield()
        _ = try? hub.join(timeout: .milliseconds(1))
        seen.wereThere = seen.hub != nil && seen.greenlet != nil
      }
      thread.join()
      #expect(seen.wereThere)
      #expect(seen.hub == nil)
      #expect(seen.greenlet == nil)
      #expect(log.entries == ["cleanup"])
    }
  }

  @Test func withHubFreesItsHub() throws {
    final class Seen: @unchecked Sendable {
      weak var hub: Hub?
    }
    let (first, second) = (Seen(), Seen())
    OwnThread {
      Hub.withHub { first.hub = $0 }
      #expect(Hub.currentIfAny == nil)
      #expect(first.hub == nil)
      Hub.withHub { hub in
        second.hub = hub
        #expect((try? spawn { 3 }.get()) == 3)
      }
      #expect(throws: OneError.self) { try Hub.withHub { _ in throw OneError() } }
      #expect(Hub.currentIfAny == nil)
    }.join()
    #expect(second.hub == nil)
  }

  @Test func manyThreadsLeaveNothingBehind() throws {
    for _ in 0..<10 {
      let threads = (0..<8).map { _ in
        OwnThread {
          let all = (0..<50).map { _ in spawn { try sleep(for: .microseconds(100)) } }
          _ = try? joinAll(all)
          _ = try? Hub.current.join()
        }
      }
      for thread in threads { thread.join() }
    }
  }

  // MARK: The end

  @Test func theEndKillsWhatIsLeftAndLetsItCleanUp() async throws {
    let log = SharedLog()
    try await runGreen {
      spawn {
        defer { log.add("parked") }
        try sleep(for: .seconds(3600))
      }
      spawn {
        defer {
          try? Greenlet.yield()
          try? sleep(for: .milliseconds(1))
          try? Greenlet.yield()
          log.add("blocks in defer")
        }
        try Event().wait()
      }
      spawn {
        do { try sleep(for: .seconds(3600)) } catch is GreenletExit {
          log.add("swallows")
          try sleep(for: .seconds(3600))
        }
      }
      spawn {
        defer { log.add("child of the end") }
        defer {
          spawn {
            log.add("never runs")
            try sleep(for: .seconds(3600))
          }
        }
        try sleep(for: .seconds(3600))
      }
      spawn(after: .seconds(3600)) { log.add("never runs") }
      try Greenlet.yield()
      spawn { log.add("never runs") }
      _ = Greenlet { log.add("never runs") }
    }
    #expect(log.entries.filter { $0 == "never runs" }.count <= 1)
    #expect(
      log.entries.filter { $0 != "never runs" }.sorted() == [
        "blocks in defer", "child of the end", "parked", "swallows",
      ])
  }

  @Test func theEndMayWaitForWhatACleanUpWaitsFor() async throws {
    let log = SharedLog()
    try await runGreen {
      let child = spawn {
        defer { log.add("child") }
        try sleep(for: .seconds(3600))
      }
      spawn {
        defer {
          _ = try? child.join()
          log.add("parent")
        }
        try sleep(for: .seconds(3600))
      }
      try Greenlet.yield()
    }
    #expect(log.entries == ["child", "parent"])
  }

  @Test func theEndDoesNotInterruptACleanUpThatBlocks() async throws {
    let log = SharedLog()
    try await runGreen {
      spawn {
        defer {
          for _ in 0..<3 { #expect(throws: Never.self) { try sleep(for: .milliseconds(2)) } }
          log.add("clean")
        }
        try sleep(for: .seconds(3600))
      }
      try Greenlet.yield()
    }
    #expect(log.entries == ["clean"])
  }

  @Test func theEndGivesATurnToLinksAndToWhatACleanUpSpawns() async throws {
    let log = SharedLog()
    try await runGreen {
      let victim = spawn {
        defer {
          spawn {
            try sleep(for: .milliseconds(1))
            spawn { log.add("grandchild") }
            log.add("child")
          }
        }
        try sleep(for: .seconds(3600))
      }
      victim.link { _ in
        try sleep(for: .milliseconds(1))
        log.add("link")
      }
      try Greenlet.yield()
      spawn(after: .seconds(3600)) { log.add("never") }
      spawn { log.add("never") }
    }
    #expect(log.entries.sorted() == ["child", "grandchild", "link"])
  }

  @Test func theEndDoesNotWaitLongForWhatACleanUpSpawns() async throws {
    let log = SharedLog()
    let begin = ContinuousClock.now
    try await runGreen {
      spawn {
        defer {
          spawn {
            defer { log.add("killed") }
            try sleep(for: .seconds(3600))
          }
          spawn(after: .seconds(3600)) { log.add("never") }
          spawn {
            defer { log.add("released") }
            try Event().wait()
          }
        }
        try sleep(for: .seconds(3600))
      }
      try Greenlet.yield()
    }
    #expect(log.entries.sorted() == ["killed", "released"])
    #expect(ContinuousClock.now - begin < .seconds(30))
  }

  @Test func whatIsDueInTheMainGreenletDoesNotCutACleanUpShort() async throws {
    let log = SharedLog()
    try await runGreen {
      for number in 0..<2 {
        spawn {
          defer {
            do {
              try sleep(for: .milliseconds(20))
              log.add("clean \(number)")
            } catch {
              log.add("cut short")
            }
          }
          try sleep(for: .seconds(3600))
        }
      }
      try Greenlet.yield()
      _ = Timeout.start(after: .milliseconds(1))
      compute(for: .milliseconds(2))
      try Greenlet.current.kill(OneError(), waiting: false)
    }
    #expect(log.entries == ["clean 0", "clean 1"])
  }

  @Test func theEndRunsTheLinksOfTheMainGreenlet() async throws {
    let log = SharedLog()
    try await runGreen {
      let main = Hub.current.main!
      main.linkSuccess { log.add($0 === main ? "success" : "another") }
      main.linkFailure { _ in log.add("failure") }
      let joiner = spawn {
        try main.join()
        log.add("joined")
      }
      try Greenlet.yield()
      #expect(!joiner.isReady)
    }
    #expect(log.entries.sorted() == ["joined", "success"])
  }

  @Test func theEndFreesWhatItsThreadHasKept() {
    final class Seen: @unchecked Sendable {
      // Unchecked: the thread has ended before it is looked at.
      weak var hub: Hub?
      weak var timeout: Timeout?
    }
    let seen = Seen()
    OwnThread {
      let local = GreenletLocal<Event?>(default: nil)
      Hub.withHub { hub in
        seen.hub = hub
        local.value = Event()  // holds the hub
        Hub.current.main.name = "kept"
        seen.timeout = Timeout.start(after: .seconds(3600))
        #expect(seen.timeout?.isPending == true)
      }
      #expect(Hub.currentIfAny == nil)
    }.join()
    #expect(seen.hub == nil)
    #expect(seen.timeout == nil)
  }

  @Test func whatGoesWithTheHubStillFindsIt() {
    final class Guest: Sendable {
      let log: SharedLog
      let hub: ObjectIdentifier
      init(_ log: SharedLog) {
        self.log = log
        hub = ObjectIdentifier(Hub.current)
      }
      deinit {
        let found = Hub.currentIfAny.map { ObjectIdentifier($0) }
        log.add(found == hub ? "its hub" : "\(String(describing: found))")
        if found == hub { spawn {} }
      }
    }
    struct Failure: Error {
      let guest: Guest
    }
    let log = SharedLog()
    OwnThread {
      let local = GreenletLocal<Guest?>(default: nil)
      Hub.withHub { hub in
        local.value = Guest(log)
        hub.attachments[ObjectIdentifier(Guest.self)] = Guest(log)
        let inHandler = Guest(log)
        hub.onError = { _, _ in _ = inHandler }
        let inTimer = Guest(log)
        hub.eventLoop.timer(after: .seconds(3600)).start { _ = inTimer }
        let error = Failure(guest: Guest(log))
        _ = Timeout.start(after: .seconds(3600), throwing: error)
      }
      #expect(Hub.currentIfAny == nil)
    }.join()
    #expect(log.entries == Array(repeating: "its hub", count: 5))
  }

  @Test func theEndFindsOnesWithAHandlerOfErrors() async throws {
    let log = SharedLog()
    try await runGreen {
      Hub.current.onError = { _, error in log.add("\(error)") }
      spawn {
        do { try sleep(for: .seconds(3600)) } catch { throw OneError(number: 1) }
      }
      try Greenlet.yield()
    }
    #expect(log.entries == ["OneError(number: 1)"])
  }

  @Test func theEndComesToManyGreenlets() async throws {
    let log = SharedLog()
    try await runGreen {
      for _ in 0..<5000 {
        spawn {
          defer { log.add("") }
          try Event().wait()
        }
      }
      try Greenlet.yield()
    }
    #expect(log.entries.count == 5000)
  }

  @Test func warnsOfStubbornGreenlets() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      OwnThread {
        Hub.withHub { _ in
          let stubborn = spawn { while true { try? sleep(for: .seconds(3600)) } }
          stubborn.name = "mule"
          try? Greenlet.yield()
        }
      }.join()
      _exit(EXIT_SUCCESS)  // what the stubborn one holds is lost, and nobody shall look for it
    }
    let text = text(of: result)
    #expect(text.contains("a hub ends while greenlets refuse to"))
    #expect(text.contains("\"mule\""))
  }

  @Test func saysNothingAtAnEndWithoutStubbornGreenlets() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      OwnThread {
        Hub.withHub { _ in
          for _ in 0..<10 { spawn { try sleep(for: .seconds(3600)) } }
          try? Greenlet.yield()
        }
      }.join()
    }
    #expect(!text(of: result).contains("evergreen:"))
  }

  @Test func theErrorHandlerMayHoldWhatHoldsTheHub() throws {
    final class Seen: @unchecked Sendable {
      // Unchecked: the thread has ended before it is looked at.
      weak var hub: Hub?
    }
    let seen = Seen()
    OwnThread {
      let hub = Hub.current
      seen.hub = hub
      hub.onError = { _, _ in _ = hub.stackSize }
    }.join()
    #expect(seen.hub == nil)
  }

  // MARK: Callbacks of the loop

  @Test func aFailingCallbackDoesNotDisturbSleepers() async throws {
    try await runGreen {
      let log = Log()
      let loop = Hub.current.eventLoop
      loop.onError = { error, _ in log.add("\(error)") }
      let timer = loop.timer(after: .milliseconds(1), repeating: .milliseconds(1))
      timer.start { throw OneError(number: 1) }
      let begin = ContinuousClock.now
      let sleeper = spawn { try sleep(for: .milliseconds(15)) }
      try sleep(for: .milliseconds(10))
      #expect(begin.duration(to: .now) >= .milliseconds(10))
      try sleeper.get()
      #expect(begin.duration(to: .now) >= .milliseconds(15))
      timer.stop()
      #expect(Set(log.entries) == ["OneError(number: 1)"])
    }
  }

  @Test func aCallbackCannotBlock() async throws {
    try await runGreen {
      let other = spawn { try sleep(for: .seconds(3600)) }
      let parked = RawBox()
      let errors = Log()
      let done = Event()
      let timer = Hub.current.eventLoop.timer(after: .zero)
      timer.start {
        for block in [
          { try sleep(for: .milliseconds(1)) }, { try sleep(for: .zero) },
          { try Greenlet.yield() }, { try idle() }, { try other.join() }, { try other.get() },
          { try other.join(timeout: .seconds(1)) }, { try Hub.current.join() },
          { try withTimeout(.seconds(1)) {} }, { try Event().wait() },
          { try joinAll([other]) },
        ] as [() throws -> Void] {
          errors.add(thrown(by: block).map { "\(type(of: $0))" } ?? "none")
        }
        parked.text = "\(thrown { try sleep(for: .seconds(1)) }!)"
        done.set()
      }
      try done.wait()
      #expect(errors.entries == Array(repeating: "BlockingInHub", count: 11))
      #expect(parked.text.contains("a loop callback runs on the hub and cannot block"))
      #expect(!other.isReady)
      try sleep(for: .milliseconds(1))
      try other.kill()
    }
  }

  private final class RawBox { var text = "" }

  @Test func aCallbackMayDoWhatDoesNotBlock() async throws {
    try await runGreen {
      let log = Log()
      let victim = spawn { try sleep(for: .seconds(3600)) }
      let unstarted = spawn(after: .seconds(3600)) {}
      try Greenlet.yield()
      let done = Event()
      let timer = Hub.current.eventLoop.timer(after: .zero)
      timer.start {
        let child = spawn {
          log.add("spawned")
          try sleep(for: .milliseconds(1))
          done.set()
        }
        #expect(child.spawnedBy == nil, "no greenlet")
        try victim.kill(waiting: false)
        try unstarted.kill(waiting: false)
        Hub.current.mailbox.post {}
        log.add("callback")
      }
      try done.wait()
      #expect(log.entries == ["callback", "spawned"])
      #expect(victim.isReady && unstarted.isReady)
    }
  }

  // MARK: Errors

  @Test func eachErrorIsReportedOnce() async throws {
    try await runGreen {
      let log = Log()
      Hub.current.onError = { greenlet, error in
        #expect(greenlet.isReady)
        #expect(Greenlet.current === greenlet)
        log.add("\(greenlet.name): \(error)")
      }
      let failing = Greenlet { throw OneError(number: 1) }
      failing.name = "failing"
      failing.start()
      _ = try? failing.get()
      _ = try? failing.get()
      _ = try? joinAll([failing], raisingErrors: true)
      let killed = spawn { try sleep(for: .seconds(60)) }
      try Greenlet.yield()
      try killed.kill()
      spawn { throw GreenletExit() }
      spawn { 5 }
      try Hub.current.join()
      #expect(log.entries == ["failing: OneError(number: 1)"])
    }
  }

  @Test func aTimeoutThatEndsAGreenletIsReported() async throws {
    try await runGreen {
      let log = Log()
      Hub.current.onError = { _, error in log.add("\(type(of: error))") }
      spawn { try withTimeout(.milliseconds(1)) { try sleep(for: .seconds(60)) } }
      try Hub.current.join()
      #expect(log.entries == ["Timeout"])
    }
  }

  @Test func aHandlerThatFailsIsContained() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        Hub.current.onError = { _, _ in throw OneError(number: 2) }
        let failing = spawn { throw OneError(number: 1) }
        failing.name = "unlucky"
        let linked = Log()
        failing.link { _ in linked.add("link") }
        try failing.join()
        try sleep(for: .milliseconds(1))
        guard linked.entries == ["link"], try spawn({ 7 }).get() == 7 else { throw OneError() }
      }
    }
    let text = text(of: result)
    #expect(
      text.contains(
        "\"unlucky\" failed: OneError(number: 1); and the hub's error handler failed: "
          + "OneError(number: 2)"))
  }

  @Test func theDefaultHandlerPrints() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let failing = spawn { throw OneError(number: 12) }
        failing.name = "worker"
        try failing.join()
        let killed = spawn { try sleep(for: .seconds(60)) }
        try Greenlet.yield()
        try killed.kill()
      }
    }
    let lines = text(of: result).split(separator: "\n").filter { $0.hasPrefix("evergreen:") }
    #expect(lines.count == 1)
    #expect(lines.first?.hasSuffix("\"worker\" failed: OneError(number: 12)") == true)
  }

  @Test func aHandlerMayUseATimeout() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      Hub.current.onError = { _, _ in
        try withTimeout(.seconds(2), default: log.add("timed out")) {
          try sleep(for: .seconds(60))
        }
      }
      let failing = spawn {
        try Greenlet.current.kill(waiting: false)  // comes to nothing: the end comes first
        throw OneError()
      }
      failing.link { _ in log.add("link") }
      try Hub.current.join()
      #expect(log.entries.sorted() == ["link", "timed out"])
      #expect(clock.elapsed == .seconds(2))
      #expect(failing.error is OneError)
    }
  }

  @Test func aHandlerThatBlocksForEverIsEndedWithItsHub() async throws {
    let log = SharedLog()
    try await runGreen {
      Hub.current.onError = { _, _ in
        defer { log.add("cleanup") }
        try sleep(for: .seconds(3600))
      }
      spawn { throw OneError() }
      try Greenlet.yield()
      #expect(log.entries.isEmpty)
    }
    #expect(log.entries == ["cleanup"])
  }

  @Test func aHandlerMayBlock() async throws {
    try await runGreenInVirtualTime { clock in
      let log = Log()
      Hub.current.onError = { _, error in
        try sleep(for: .seconds(1))
        log.add("\(error)")
      }
      for number in 0..<3 { spawn { throw OneError(number: number) } }
      try Hub.current.join()
      #expect(log.entries == (0..<3).map { "OneError(number: \($0))" })
      #expect(clock.elapsed == .seconds(1))
    }
  }
}
