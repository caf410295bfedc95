// Evergreen: tests of signals answered by greenlets
// SPDX-License-Identifier: MIT
//
// Each in a process of its own: a signal belongs to the whole process.

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

@Suite("Signal handlers", .timeLimit(.minutes(1)))
struct SignalHandlerTests {
  @Test func runInAGreenletAndMayBlock() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let event = Event()
        let handler = try Hub.current.onSignal(SIGUSR1) {
          try #require(Greenlet.current !== Hub.current.main)
          try sleep(for: .milliseconds(1))
          event.set()
        }
        try #require(handler.signal == SIGUSR1)
        for _ in 0..<3 {
          event.clear()
          kill(getpid(), SIGUSR1)
          try event.wait()
        }
        handler.cancel()
      }
    }
  }

  @Test func interruptALongWait() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let sleeper = spawn { try sleep(for: .seconds(3600)) }
        let handler = try Hub.current.onSignal(SIGUSR1) { try sleeper.kill() }
        let thread = OwnThread { kill(getpid(), SIGUSR1) }
        try sleeper.join()
        handler.cancel()
        thread.join()
      }
    }
  }

  @Test func keepAStandstillFromBeingADeadlock() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let event = Event()
        let handler = try Hub.current.onSignal(SIGUSR1) { event.set() }
        let gate = ThreadGate()
        let thread = OwnThread {
          gate.wait()
          kill(getpid(), SIGUSR1)
        }
        spawn { gate.open() }
        try event.wait()  // with nothing but the signal to end it
        thread.join()
        handler.cancel()
        handler.cancel()
        let error = thrown { try Event().wait() }
        try #require(error is LoopExit)
      }
    }
  }

  @Test func thoseThatOnlyDisturbAreNothingToWaitFor() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let log = SharedLog()
        let hub = Hub.current
        let handler = try hub.onSignal(SIGUSR1, keepsRunning: false) { log.add("handled") }
        try check(hub.join())
        try #require(thrown { try Event().wait() } is LoopExit)
        kill(getpid(), SIGUSR1)
        try sleep(for: .milliseconds(50))
        try #require(log.entries == ["handled"])
        handler.cancel()
        let keeper = try hub.onSignal(SIGUSR1) {}
        try check(!hub.join(timeout: .milliseconds(1)))
        keeper.cancel()
        try check(hub.join())
      }
    }
  }

  @Test func cancelledOnesDoNotRun() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let log = Log()
        let event = Event()
        let first = try Hub.current.onSignal(SIGUSR1) { log.add("first") }
        let second = try Hub.current.onSignal(SIGUSR1) {
          log.add("second")
          event.set()
        }
        kill(getpid(), SIGUSR1)
        try event.wait()
        try #require(log.entries.sorted() == ["first", "second"])
        first.cancel()
        event.clear()
        kill(getpid(), SIGUSR1)
        try event.wait()
        try Greenlet.yield()
        try #require(log.entries.sorted() == ["first", "second", "second"])
        second.cancel()
      }
    }
  }

  @Test func theDefaultActionComesBack() async throws {
    #if os(Linux)
    let expected = ExitTest.Condition.signal(SIGUSR1)
    await #expect(processExitsWith: expected) {
      try await runGreenInChild {
        let handler = try Hub.current.onSignal(SIGUSR1) {}
        handler.cancel()
        kill(getpid(), SIGUSR1)
        try sleep(for: .seconds(10))
      }
    }
    #endif
  }

  @Test func belongToOneHub() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let handler = try Hub.current.onSignal(SIGUSR1) {}
        let log = SharedLog()
        OwnThread {
          Hub.withHub { hub in
            log.add(thrown { _ = try hub.onSignal(SIGUSR1) {} } is LoopError ? "taken" : "free")
          }
        }.join()
        handler.cancel()
        OwnThread {
          Hub.withHub { hub in
            log.add(thrown { _ = try hub.onSignal(SIGUSR1) {} } is LoopError ? "taken" : "free")
          }
        }.join()
        try #require(log.entries == ["taken", "free"])
        let impossible = thrown { try Hub.current.onSignal(SIGKILL) {} }
        try #require(impossible is LoopError)
        // A refused handler is no waker.
        try #require(thrown { try Event().wait() } is LoopExit)
      }
    }
  }

  @Test func failingOnesAreReported() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let event = Event()
        let log = Log()
        Hub.current.onError = { greenlet, error in
          log.add("\(greenlet.name): \(error)")
          event.set()
        }
        let handler = try Hub.current.onSignal(SIGUSR1) { throw OneError(number: 5) }
        kill(getpid(), SIGUSR1)
        try event.wait()
        try #require(log.entries == ["handler of signal \(SIGUSR1): OneError(number: 5)"])
        handler.cancel()
      }
    }
  }

  @Test func reportIsWrittenToStandardError() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let handler = try Hub.current.reportOnSignal()
        try #require(handler.signal == SIGUSR2)
        let sleeper = spawn { try sleep(for: .seconds(3600)) }
        sleeper.name = "sleeper"
        try Greenlet.yield()
        kill(getpid(), SIGUSR2)
        try sleep(for: .milliseconds(300))
        handler.cancel()
        try sleeper.kill()
        // It is no waker: a program that asks for reports is told of its deadlocks all the same.
        let another = try Hub.current.reportOnSignal(SIGUSR1)
        try #require(thrown { try Event().wait() } is LoopExit)
        another.cancel()
      }
    }
    let text = text(of: result)
    #expect(text.contains("greenlets:\n"))
    #expect(text.contains("the main greenlet: waits for sleep"))
    #expect(text.contains("\"sleeper\": waits for sleep, for "))
    #expect(text.contains("spawned at EvergreenHubTests/SignalHandlerTests.swift:"))
  }

  @Test func endWithTheirHub() async throws {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        try Hub.current.onSignal(SIGUSR1) {}; return
      }
      try await runGreenInChild {
        try Hub.current.onSignal(SIGUSR1) {}; return
      }
    }
  }

  @Test func cancelAfterTheEndOfTheHubDoesNothing() async throws {
    await #expect(processExitsWith: .success) {
      OwnThread {
        let handler = Hub.withHub { try? $0.onSignal(SIGUSR1) {} }
        handler?.cancel()
      }.join()
    }
  }
}
