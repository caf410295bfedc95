// Evergreen: tests of a main queue that is served by the main thread's hub.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Testing

@Suite struct MainQueueTests {
  @Test(.timeLimit(.minutes(2)))
  func theMainActorAndTheMainQueueRunOnTheHub() async throws {
    try await runGreen {
      let child = try run("main-queue-program", [])
      #expect(child.errorLines == [])
      #expect(
        child.lines == [
          "the main actor counts 1", "and waits 2 true", "the main queue runs here: true",
          "a greenlet is on the main actor: 3", "then: true",
        ])
      #expect(child.ending == .exit(0))
    }
  }
}
