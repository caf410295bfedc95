// Evergreen: tests of links
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Links", .timeLimit(.minutes(1)))
struct LinkTests {
  @Test(arguments: [1, 3, 4, 1000])
  func runInTheOrderInWhichTheyWereAdded(_ count: Int) async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {}
      for number in 0..<count { greenlet.link { _ in log.add("\(number)") } }
      try Hub.current.join()
      #expect(log.entries == (0..<count).map(String.init))
    }
  }

  @Test func getTheGreenletOnceAndRunInGreenletsOfTheirOwn() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn { 5 }
      greenlet.link { ended in
        #expect(ended === greenlet)
        #expect(ended.isReady)
        #expect(Greenlet.current !== ended)
        #expect(Greenlet.current !== Hub.current.main)
        log.add("link")
      }
      try greenlet.join()
      #expect(log.entries.isEmpty)
      try Hub.current.join()
      try Hub.current.join()
      #expect(log.entries == ["link"])
    }
  }

  @Test func mayBlockWithoutHoldingUpTheOthers() async throws {
    try await runGreenInVirtualTime { _ in
      let log = Log()
      let greenlet = spawn {}
      greenlet.link { _ in
        try sleep(for: .seconds(10))
        log.add("slow")
      }
      greenlet.link { _ in log.add("quick") }
      try Hub.current.join()
      #expect(log.entries == ["quick", "slow"])
    }
  }

  @Test func runAfterEachKindOfEnd() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let log = Log()
      func watch(_ greenlet: AnyGreenlet, as name: String) {
        greenlet.link { _ in log.add("\(name): end") }
        greenlet.linkSuccess { _ in log.add("\(name): success") }
        greenlet.linkFailure { _ in log.add("\(name): failure") }
      }
      let returning = spawn {}
      watch(returning, as: "returning")
      try Hub.current.join()
      let failing = spawn { throw OneError() }
      watch(failing, as: "failing")
      try Hub.current.join()
      let killed = spawn { try sleep(for: .seconds(60)) }
      watch(killed, as: "killed")
      try Greenlet.yield()
      try killed.kill()
      try Hub.current.join()
      let unstarted = Greenlet {}
      watch(unstarted, as: "unstarted")
      try unstarted.kill()
      try Hub.current.join()
      let killedWithError = spawn { try sleep(for: .seconds(60)) }
      watch(killedWithError, as: "killed with an error")
      try Greenlet.yield()
      try killedWithError.kill(OneError())
      try Hub.current.join()
      #expect(
        log.entries == [
          "returning: end", "returning: success",
          "failing: end", "failing: failure",
          "killed: end", "killed: success",
          "unstarted: end", "unstarted: success",
          "killed with an error: end", "killed with an error: failure",
        ])
    }
  }

  @Test func doNotRunAfterUnlink() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {}
      greenlet.link { _ in log.add("first") }
      let second = greenlet.link { _ in log.add("second") }
      greenlet.link { _ in log.add("third") }
      greenlet.unlink(second)
      greenlet.unlink(second)
      try Hub.current.join()
      greenlet.unlink(second)
      #expect(log.entries == ["first", "third"])
    }
  }

  @Test func unlinkDuringTheNotificationIsHeeded() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {}
      let later = Box<Link?>(nil)
      greenlet.link { ended in
        log.add("first")
        ended.unlink(later.value!)
      }
      later.value = greenlet.link { _ in log.add("taken back") }
      greenlet.link { _ in log.add("third") }
      try Hub.current.join()
      #expect(log.entries == ["first", "third"])
    }
  }

  @Test func addedDuringTheNotificationRunToo() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {}
      greenlet.link { ended in
        log.add("first")
        ended.link { _ in log.add("added") }
      }
      greenlet.link { _ in log.add("second") }
      try Hub.current.join()
      #expect(log.entries == ["first", "second", "added"])
    }
  }

  @Test func addedAfterTheEndRunSoonButNotAtOnce() async throws {
    try await runGreen {
      let log = Log()
      let greenlet = spawn {}
      try greenlet.join()
      for number in 0..<10 { greenlet.link { _ in log.add("\(number)") } }
      let unlinked = greenlet.link { _ in log.add("unlinked") }
      greenlet.unlink(unlinked)
      #expect(log.entries.isEmpty)
      try Hub.current.join()
      greenlet.link { _ in log.add("late") }
      try Hub.current.join()
      #expect(log.entries == (0..<10).map(String.init) + ["late"])
    }
  }

  @Test func anErrorInOneIsReportedAndDoesNotStopTheOthers() async throws {
    try await runGreen {
      let log = Log()
      Hub.current.onError = { greenlet, error in log.add("reported \(error) of \(greenlet.name)") }
      let greenlet = spawn {}
      greenlet.name = "worker"
      greenlet.link { _ in log.add("first") }
      greenlet.link { _ in throw OneError(number: 1) }
      greenlet.link { _ in log.add("third") }
      greenlet.link { _ in throw OneError(number: 4) }
      greenlet.link { _ in log.add("fifth") }
      try Hub.current.join()
      #expect(
        log.entries == [
          "first", "reported OneError(number: 1) of link of worker", "third",
          "reported OneError(number: 4) of link of worker", "fifth",
        ])
      #expect(greenlet.isSuccessful)
    }
  }

  @Test func leaveNothingHeld() async throws {
    try await runGreen {
      final class Resource {}
      weak var held: Resource?
      let greenlet = spawn {}
      do {
        let resource = Resource()
        held = resource
        greenlet.link { _ in withExtendedLifetime(resource) {} }
      }
      #expect(held != nil)
      try Hub.current.join()
      #expect(held == nil)
    }
  }
}
