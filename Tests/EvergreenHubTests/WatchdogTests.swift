// Evergreen: tests of the detection of blocked hubs
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

/// In processes of their own: there is one handler for all hubs of a process.
@Suite("Watchdog", .timeLimit(.minutes(1)))
struct WatchdogTests {
  @Test func reportsTheGreenletThatBlocksOnce() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        try #require(Hub.current.blockingThreshold == .milliseconds(50))
        let other = spawn { try sleep(for: .seconds(3600)) }
        let culprit = spawn { compute { !log.entries.isEmpty } }
        culprit.name = "culprit"
        try culprit.join()
        try sleep(for: .milliseconds(20))
        try other.kill()
        try #require(log.entries.count == 1, "\(log.entries)")
        let report = log.entries[0]
        let who = "\"culprit\" (spawned at EvergreenHubTests/WatchdogTests.swift:"
        try #require(report.contains(who), "\(report)")
        try #require(report.contains(") has blocked its hub for "), "\(report)")
        try #require(report.contains("ThreadPool"), "\(report)")
        try #require(report.split(separator: "\n").count > 1, "\(report)")  // it shows where
      }
    }
  }

  @Test func reportsTheOnlyOneBesideAMainGreenletThatWaits() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        let culprit = spawn { compute { !log.entries.isEmpty } }
        culprit.name = "culprit"
        try culprit.join()
        try #require(log.entries.count == 1, "\(log.entries)")
        try #require(log.entries[0].contains("\"culprit\" (spawned at "), "\(log.entries)")
      }
    }
  }

  @Test func reportsACallbackOfTheLoop() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        let timer = Hub.current.eventLoop.timer(after: .zero)
        let hasFired = Box(false)
        timer.start {
          compute { !log.entries.isEmpty }
          hasFired.value = true
        }
        while !hasFired.value { try Greenlet.yield() }
        try #require(log.entries.count == 1, "\(log.entries)")
        try #require(log.entries[0].hasPrefix("a callback of the loop has"), "\(log.entries)")
      }
    }
  }

  @Test func reportsTheMainGreenlet() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        let other = spawn { try sleep(for: .seconds(3600)) }
        try sleep(for: .milliseconds(1))
        compute { !log.entries.isEmpty }
        try other.kill()
        try #require(log.entries.count == 1, "\(log.entries)")
        try #require(log.entries[0].hasPrefix("the main greenlet"), "\(log.entries)")
      }
    }
  }

  @Test func reportsEachPlaceOnce() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        let other = spawn { try sleep(for: .seconds(3600)) }
        for isFirst in [true, false] {
          try sleep(for: .milliseconds(100))
          block(for: isFirst ? longest : .milliseconds(1500)) { isFirst && !log.entries.isEmpty }
        }
        try sleep(for: .milliseconds(1))
        try #require(log.entries.count == 1, "\(log.entries)")
        blockElsewhere { log.entries.count > 1 }
        try sleep(for: .milliseconds(1))
        try other.kill()
        try #require(log.entries.count == 2, "\(log.entries)")
        try #require(log.entries[1].contains("blockElsewhere"))
      }
    }
  }

  @Test func isSilentAboutIdleAndYieldingHubs() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(200)
        let others = (0..<3).map { _ in
          spawn { try sleep(for: .seconds(3600)) }
        }
        try sleep(for: .milliseconds(1200))
        let begin = ContinuousClock.now
        while begin.duration(to: .now) < .milliseconds(1200) {
          compute(for: .milliseconds(1))
          try Greenlet.yield()
        }
        let mailbox = Hub.current.mailbox
        try Event().wait(timeout: .milliseconds(700))
        mailbox.post {}
        try killAll(others)
        try #require(log.entries.isEmpty, "\(log.entries)")
      }
    }
  }

  @Test func isSilentWhenNobodyElseWaits() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(50)
        try Greenlet.yield()
        compute(for: .milliseconds(1200))
        try #require(log.entries.isEmpty, "\(log.entries)")
      }
    }
  }

  @Test func isSilentWhenSwitchedOff() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      try await runGreenInChild {
        for off in [nil, Duration.zero] {
          Hub.current.blockingThreshold = .milliseconds(50)
          Hub.current.blockingThreshold = off
          try #require(Hub.current.blockingThreshold == nil)
          let other = spawn { try sleep(for: .seconds(3600)) }
          try sleep(for: .milliseconds(1))
          compute(for: .milliseconds(1200))
          try other.kill()
        }
        try #require(log.entries.isEmpty, "\(log.entries)")
      }
    }
  }

  @Test func looksAtSeveralHubs() async throws {
    await #expect(processExitsWith: .success) {
      let log = SharedLog()
      Hub.onBlocked { log.add($0) }
      let threads = (0..<2).map { number in
        OwnThread {
          Hub.withHub { hub in
            hub.blockingThreshold = .milliseconds(50)
            spawn { try sleep(for: .seconds(3600)) }
            let culprit =
              number == 0
              ? spawn { block { log.has("culprit 0") } }
              : spawn { blockElsewhere { log.has("culprit 1") } }
            culprit.name = "culprit \(number)"
            _ = try? culprit.join()
          }
        }
      }
      for thread in threads { thread.join() }
      for number in 0..<2 {
        try #require(log.entries.filter { $0.contains("\"culprit \(number)\"") }.count == 1)
      }
    }
  }
}
