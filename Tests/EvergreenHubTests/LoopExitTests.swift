// Evergreen: tests of the detection of deadlocks
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("LoopExit", .timeLimit(.minutes(1)))
struct LoopExitTests {
  @Test func reachesTheMainGreenletWhenNothingCanWakeIt() async throws {
    try await runGreen {
      let exit = #expect(throws: LoopExit.self) { try Event().wait() }
      #expect("\(exit!)".contains("nothing is left that could wake the main greenlet"))
      #expect(exit!.report.contains("  the main greenlet: waits for an Event, for "))
    }
  }

  @Test func listsWhoIsParkedForWhatAndWhereItWasSpawned() async throws {
    try await runGreen {
      let event = Event()
      let line = #line + 1
      let first = spawn { try event.wait() }
      let second = spawn { try first.join() }
      second.name = "joiner"
      let exit = #expect(throws: LoopExit.self) { try second.join() }
      let lines = exit!.report.split(separator: "\n").map(String.init)
      #expect(lines.count == 4)
      #expect(lines[0] == "3 greenlets:")
      #expect(
        lines[1].hasPrefix("  the main greenlet: waits for the end of greenlet \(second.id), for "))
      func place(_ line: Int) -> String {
        "spawned at EvergreenHubTests/LoopExitTests.swift:\(line)"
      }
      #expect(
        lines.contains {
          $0.contains("greenlet \(first.id): waits for an Event, for ") && $0.contains(place(line))
        })
      #expect(
        lines.contains {
          $0.contains("greenlet \(second.id) \"joiner\": waits for the end of greenlet \(first.id)")
            && $0.contains(place(line + 1))
        })
      #expect(exit!.description.hasSuffix(exit!.report))
    }
  }

  @Test func leavesTheHubUsable() async throws {
    try await runGreen {
      let event = Event()
      let parked = spawn { try event.wait() }
      for _ in 0..<3 {
        #expect(throws: LoopExit.self) { try parked.join() }
        try sleep(for: .milliseconds(1))
        try #expect(spawn { 4 }.get() == 4)
      }
      event.set()
      try parked.join()
    }
  }

  @Test func doesNotComeWhileATimerRuns() async throws {
    try await runGreenInVirtualTime { clock in
      let event = Event()
      spawn {
        try sleep(for: .seconds(100))
        event.set()
      }
      try event.wait()
      let late = Event()
      spawn(after: .seconds(100)) { late.set() }
      try late.wait()
      #expect(clock.elapsed == .seconds(200))
      #expect(throws: Timeout.self) { try withTimeout(.seconds(1)) { try Event().wait() } }
      try #expect(!Event().wait(timeout: .seconds(1)))
    }
  }

  @Test func doesNotComeWhileAWatcherIsActive() async throws {
    try await runGreen {
      let event = Event()
      let timer = Hub.current.eventLoop.timer(after: .milliseconds(5))
      timer.start { event.set() }
      try event.wait()
    }
  }

  @Test func comesThoughAnUnreferencedWatcherIsActive() async throws {
    try await runGreen {
      let timer = Hub.current.eventLoop.timer(after: .seconds(3600))
      timer.isReferenced = false
      timer.start {}
      #expect(throws: LoopExit.self) { try Event().wait() }
      timer.stop()
    }
  }

  @Test func doesNotComeWhileAThreadHoldsAMailbox() async throws {
    try await runGreen {
      let event = Smuggled(value: Event())
      let mailbox = Hub.current.mailbox
      let mayPost = ThreadGate()
      let thread = OwnThread {
        mayPost.wait()
        mailbox.post { event.value.set() }
      }
      let main = Smuggled(value: Hub.current)
      spawn { mayPost.open() }
      try event.value.wait()
      #expect(main.value.isCurrent)
      thread.join()
    }
  }

  @Test func comesAfterTheMailboxWasDropped() async throws {
    try await runGreen {
      let gate = ThreadGate()
      let thread = try hand(Hub.current.mailbox) { mailbox in
        gate.wait()
        _ = consume mailbox
      }
      // The thread lets go of it while the hub stands still.
      spawn { gate.open() }
      #expect(throws: LoopExit.self) { try Event().wait() }
      thread.join()
      #expect(throws: LoopExit.self) { try Event().wait() }
      // Another one is as good as the first.
      let mailbox = Hub.current.mailbox
      let event = Smuggled(value: Event())
      mailbox.post { event.value.set() }
      try event.value.wait()
    }
  }

  @Test func doesNotComeWhileAPoolsThreadWorks() async throws {
    try await runGreen {
      let pool = ThreadPool(maxThreads: 1)
      try #expect(pool.run { 6 * 7 } == 42)
      #expect(throws: LoopExit.self) { try Event().wait() }
      pool.shutDown()
    }
  }

  @Test func goesToMainEvenIfAnotherFellAsleepLast() async throws {
    try await runGreen {
      let log = Log()
      let child = spawn {
        do { try Event().wait() } catch {
          log.add("\(type(of: error))")
          throw error
        }
      }
      #expect(throws: LoopExit.self) { try child.join() }
      #expect(log.entries.isEmpty)
      #expect(!child.isReady)
      try child.kill()
      #expect(log.entries == ["GreenletExit"])
    }
  }

  @Test func mainThatYieldsOnlyDoesNotGetIt() async throws {
    try await runGreen {
      spawn { try Event().wait() }
      for _ in 0..<1000 { try Greenlet.yield() }
      try idle()
      try sleep(for: .zero)
    }
  }

  private func hand(
    _ mailbox: consuming Mailbox, to body: @escaping @Sendable (consuming Mailbox) -> Void
  ) throws -> OwnThread {
    let carrier = Carrier(mailbox)
    return OwnThread { body(carrier.take()) }
  }

  /// Gives away its one reference.
  private final class Carrier: @unchecked Sendable {
    // Unchecked: filled by one thread before the other one starts.
    private var mailbox: Mailbox?
    init(_ mailbox: consuming Mailbox) { self.mailbox = mailbox }
    func take() -> Mailbox {
      defer { mailbox = nil }
      return mailbox!
    }
  }
}
