// Evergreen: tests of the producers and consumers.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Testing

@Suite struct ProducerConsumerTests {
  @Test(.timeLimit(.minutes(2)), arguments: [(3, 2), (1, 5), (20, 1)])
  func nothingIsLostOrDoubled(producers: Int, consumers: Int) async throws {
    try await runGreen {
      let child = try run(
        "producer-consumer",
        ["--producers", "\(producers)", "--consumers", "\(consumers)", "--capacity", "7"])
      let total = 1000 * producers
      #expect(child.ending == .exit(0) && child.errorLines == [])
      try #require(child.lines.count == 3)
      #expect(child.lines[0] == "\(producers) producers put \(total) numbers")
      let sum = total * (total - 1) / 2
      #expect(child.lines[1] == "\(consumers) consumers took \(total), of the sum \(sum)")
      let most = try #require(child.lines[2].wholeMatch(of: /the queue held (\d+) at most/))
      #expect((1...7).contains(Int(most.1) ?? 0))
    }
  }

  @Test(.timeLimit(.minutes(2)))
  func aConsumerThatFailsEndsAll() async throws {
    try await runGreen {
      let child = try run("producer-consumer", ["--consumers", "1", "--poison", "50"])
      #expect(child.ending != .exit(0) && child.lines == [])
      #expect(child.errorLines.count == 1)
      #expect(child.errorLines.first?.contains("cannot digest 50") == true)
    }
  }
}
