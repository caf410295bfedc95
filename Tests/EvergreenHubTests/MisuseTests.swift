// Evergreen: tests that a broken rule ends the program with a sentence
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite("Misuse", .timeLimit(.minutes(1)))
struct MisuseTests {
  static let foreign =
    "belongs to the hub of another thread. Reach that hub through its mailbox"
  static let pool = "a task of Swift's cooperative pool may not block"

  // MARK: From a foreign thread

  /// Ends the process if `use` does what it should: it gets a greenlet of another thread's hub.
  static func useElsewhere(
    hasHub: Bool, started: Bool = true, _ use: @escaping @Sendable (Greenlet<Void>) -> Void
  ) {
    let greenlet = Greenlet { try sleep(for: .seconds(60)) }
    if started {
      greenlet.start()
      try? Greenlet.yield()
    }
    let smuggled = Smuggled(value: greenlet)
    OwnThread {
      if hasHub { _ = Hub.current }
      use(smuggled.value)
    }.join()
  }

  private func expectSentence(_ result: ExitTest.Result?) {
    #expect(text(of: result).contains(Self.foreign))
  }

  @Test func joinElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { _ = try? $0.join() }
        }
      })
  }

  @Test func joinElsewhereWithoutAHub() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: false) { _ = try? $0.join() }
        }
      })
  }

  @Test func getElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { _ = try? $0.get(timeout: .seconds(1)) }
        }
      })
  }

  @Test func killElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { _ = try? $0.kill(waiting: false) }
        }
      })
  }

  @Test func killAllElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { try? killAll([$0], waiting: false) }
        }
      })
  }

  @Test func joinAllElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { _ = try? joinAll([$0], timeout: .zero) }
        }
      })
  }

  @Test func linkElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true) { $0.link { _ in } }
        }
      })
  }

  @Test func startElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true, started: false) { $0.start() }
        }
      })
  }

  @Test func startLaterElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          MisuseTests.useElsewhere(hasHub: true, started: false) { $0.start(after: .zero) }
        }
      })
  }

  @Test func cancellingATimeoutElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          let timeout = Smuggled(value: Timeout.start(after: .seconds(60)))
          OwnThread { timeout.value.cancel() }.join()
        }
      })
  }

  @Test func cancellingATimeoutThatHasFiredElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          let event = Event()
          spawn {
            try sleep(for: .milliseconds(1))
            event.set()
          }
          try Greenlet.yield()
          let timeout = Smuggled(value: Timeout.start(after: .milliseconds(2)))
          compute(for: .milliseconds(5))
          try event.wait()
          OwnThread { timeout.value.cancel() }.join()
        }
      })
  }

  @Test func joiningAHubElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          let hub = Smuggled(value: Hub.current)
          OwnThread { _ = try? hub.value.join() }.join()
        }
      })
  }

  @Test func settingAnEventElsewhere() async throws {
    expectSentence(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await runGreenInChild {
          let event = Smuggled(value: Event())
          OwnThread { event.value.set() }.join()
        }
      })
  }

  // MARK: In a task of Swift's pool

  @Test func spawnInATask() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      func plain() { spawn {} }
      await Task.detached { plain() }.value
    }
    let text = text(of: result)
    #expect(text.contains(Self.pool))
    #expect(text.contains("Hub.withHub"))
  }

  @Test func sleepInATask() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      func plain() { try? sleep(for: .milliseconds(1)) }
      await Task.detached { plain() }.value
    }
    #expect(text(of: result).contains(Self.pool))
  }

  @Test func hubInATask() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      func plain() { _ = Hub.current }
      await Task.detached { plain() }.value
    }
    #expect(text(of: result).contains(Self.pool))
  }

  @Test func withHubInATask() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      func plain() { Hub.withHub { _ in } }
      await Task.detached { plain() }.value
    }
    #expect(text(of: result).contains(Self.pool))
  }

  @Test func withHubInATaskThatHasOne() async throws {
    @Sendable func plain() -> Int { Hub.withHub { _ in 5 } }
    try await runGreen { #expect(plain() == 5) }
  }

  @Test func lookingForAHubInATaskIsFine() async throws {
    await Task.detached { #expect(Hub.currentIfAny == nil) }.value
  }

  // MARK: For ever

  @Test func joiningOnesSelf() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let greenlet = spawn { try Greenlet.current.join() }
        greenlet.name = "narcissus"
        try greenlet.join()
      }
    }
    #expect(
      text(of: result).contains("\"narcissus\" waits for its own end, which would be for ever"))
  }

  @Test func gettingOnesOwnResult() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let box = Box<Greenlet<Void>?>(nil)
        box.value = spawn { try box.value!.get(timeout: .seconds(60)) }
        try box.value!.join()
      }
    }
    #expect(text(of: result).contains("waits for its own end, which would be for ever"))
  }

  // MARK: After the end of the hub

  @Test func startingAGreenletOfAHubThatHasEnded() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      OwnThread {
        let greenlet = Hub.withHub { _ in Greenlet {} }
        greenlet.start()
      }.join()
    }
    #expect(text(of: result).contains("evergreen: "))
  }

  @Test func killingAnUnstartedGreenletOfAHubThatHasEnded() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      OwnThread {
        let greenlet = Hub.withHub { _ in Greenlet {} }
        _ = try? greenlet.kill()
      }.join()
    }
    #expect(text(of: result).contains("evergreen: "))
  }

  @Test func anUnstartedGreenletAndATimeoutOutliveTheirHub() throws {
    OwnThread {
      let (greenlet, timeout) = Hub.withHub { _ in
        (Greenlet {}, Timeout.start(after: .seconds(60)))
      }
      #expect(greenlet.spawnedBy == nil)
      #expect(!greenlet.isReady)
      timeout.cancel()
    }.join()
  }

  @Test func aGreenletThatHasEndedOutlivesItsHub() throws {
    OwnThread {
      let (ended, killed) = Hub.withHub { _ in
        let ended = spawn { 4 }
        try? Greenlet.yield()
        return (ended, spawn { try sleep(for: .seconds(60)) })
      }
      #expect((try? ended.get()) == 4)
      #expect(ended.isReady && killed.isReady)
      #expect(killed.error is GreenletExit)
      #expect((try? killed.kill()) == true)
      ended.start()
      #expect(!killed.description.isEmpty)
    }.join()
  }

  @Test func aMailboxOutlivesItsHub() throws {
    OwnThread {
      let mailbox = Hub.withHub { $0.mailbox }
      #expect(!mailbox.post {})
    }.join()
  }

  @Test func theLoopOfAHubIsRunByItAlone() async {
    for (misuse, advice) in [
      (0, "a hub runs this loop"), (1, "the loop of a hub cannot be destroyed"),
    ] {
      let result =
        misuse == 0
        ? await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
          try await runGreenInChild { _ = Hub.current.eventLoop.run() }
        }
        : await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
          try await runGreenInChild { Hub.current.eventLoop.destroy() }
        }
      #expect(text(of: result).contains(advice))
    }
  }
}
