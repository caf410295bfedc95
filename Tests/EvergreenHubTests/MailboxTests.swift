// Evergreen: tests of the door for other threads
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Mailbox", .timeLimit(.minutes(1)))
struct MailboxTests {
  @Test func aPostFromAThreadWakesTheLoop() async throws {
    try await runGreen {
      let mailbox = Hub.current.mailbox
      let event = Smuggled(value: Event())
      let gate = ThreadGate()
      let thread = OwnThread {
        gate.wait()
        mailbox.post {
          #expect(Hub.currentIfAny != nil)
          try sleep(for: .milliseconds(1))  // it may block
          event.value.set()
        }
      }
      spawn {
        try sleep(for: .milliseconds(2))
        gate.open()
      }
      try event.value.wait()
      thread.join()
    }
  }

  @Test func aPostWakesAHubThatWaitsForALongTimer() async throws {
    try await runGreen {
      let mailbox = Hub.current.mailbox
      let sleeper = spawn { try sleep(for: .seconds(3600)) }
      let victim = Smuggled(value: sleeper)
      let thread = OwnThread { mailbox.post { try victim.value.kill() } }
      try sleeper.join()
      #expect(sleeper.error is GreenletExit)
      thread.join()
    }
  }

  @Test func postsRunInTheirOrder() async throws {
    try await runGreen {
      let mailbox = Hub.current.mailbox
      let log = SharedLog()
      let thread = OwnThread { for number in 0..<1000 { mailbox.post { log.add("\(number)") } } }
      while log.entries.count < 1000 { try sleep(for: .milliseconds(1)) }
      thread.join()
      #expect(log.entries == (0..<1000).map(String.init))
    }
  }

  @Test func manyThreadsPostAndNothingIsLost() async throws {
    try await runGreen {
      let mailbox = Hub.current.mailbox
      let count = Smuggled(value: Box(0))
      let done = Smuggled(value: Event())
      let threads = (0..<8).map { _ in
        OwnThread {
          for _ in 0..<500 {
            #expect(
              mailbox.post {
                count.value.value += 1
                if count.value.value == 4000 { done.value.set() }
              })
          }
        }
      }
      try done.value.wait()
      #expect(count.value.value == 4000)
      for thread in threads { thread.join() }
    }
  }

  @Test func aPostNeverRunsSynchronously() async throws {
    try await runGreen {
      let log = SharedLog()
      let hub = Hub.current
      hub.mailbox.post { log.add("posted") }
      hub.mailbox.post { log.add("posted again") }
      log.add("caller")
      #expect(log.entries == ["caller"])
      try idle()
      try hub.join()
      #expect(log.entries == ["caller", "posted", "posted again"])
    }
  }

  @Test func aPostToABusyHubIsServed() async throws {
    try await runGreen {
      let log = SharedLog()
      let mailbox = Hub.current.mailbox
      OwnThread { mailbox.post { log.add("posted") } }.join()
      try withTimeout(.seconds(30)) { while log.entries.isEmpty { try Greenlet.yield() } }
    }
  }

  @Test func aFailingPostIsReported() async throws {
    try await runGreen {
      let log = Log()
      Hub.current.onError = { greenlet, error in log.add("\(error) \(greenlet.spawnedAt)") }
      let line = #line + 1
      Hub.current.mailbox.post { throw OneError(number: 6) }
      try Hub.current.join(timeout: .milliseconds(1))
      try idle()
      #expect(log.entries == ["OneError(number: 6) EvergreenHubTests/MailboxTests.swift:\(line)"])
    }
  }

  @Test func aPostFromATaskArrives() async throws {
    let log = SharedLog()
    try await runGreen {
      let mailbox = Hub.current.mailbox
      let event = Smuggled(value: Event())
      Task.detached {
        mailbox.post {
          log.add("posted")
          event.value.set()
        }
      }
      try event.value.wait()
    }
    #expect(log.entries == ["posted"])
  }

  @Test func isRefusedAfterTheEnd() throws {
    let log = SharedLog()
    OwnThread {
      let mailbox = Hub.withHub { hub in
        let mailbox = hub.mailbox
        #expect(mailbox.post { log.add("too late to run") })
        return mailbox
      }
      #expect(!mailbox.post { log.add("never") })
    }.join()
    #expect(!log.entries.contains("never"))
  }

  @Test func postsWhileTheHubEndsAreSafe() throws {
    for _ in 0..<20 {
      final class Door: @unchecked Sendable {
        // Unchecked: written before the gate opens.
        var mailbox: Mailbox?
      }
      let door = Door()
      let gate = ThreadGate()
      let hubThread = OwnThread {
        Hub.withHub { hub in
          door.mailbox = hub.mailbox
          gate.open()
          for _ in 0..<50 { try? Greenlet.yield() }
        }
      }
      let poster = OwnThread {
        gate.wait()
        for _ in 0..<1_000_000 where !door.mailbox!.post({}) { return }
      }
      hubThread.join()
      poster.join()
      #expect(!door.mailbox!.post {})
    }
  }

  @Test func anAsyncWatchersSenderWakesTheLoop() async throws {
    try await runGreen {
      let event = Event()
      let watcher = Hub.current.eventLoop.async()
      watcher.start { event.set() }
      let sender = watcher.sender
      let thread = OwnThread { sender.send() }
      try event.wait()
      thread.join()
      watcher.stop()
    }
  }
}
