// Evergreen: GreenCalls beside Foundation and Glibc, by its name.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import Foundation
import Glibc
import GreenCalls
import Testing

@Suite(.timeLimit(.minutes(2)))
struct NextToFoundationTests {
  @Test func callsByNameAreGreen() async throws {
    try await runGreen {
      var ends: [Int32] = [-1, -1]
      #expect(pipe(&ends) == 0)
      let (reading, writing) = (ends[0], ends[1])
      var order: [String] = []
      let reader = spawn {
        var byte: UInt8 = 0
        order.append("reads")
        let count = GreenCalls::read(reading, &byte, 1)
        order.append("has read \(count) \(byte)")
      }
      let writer = spawn {
        order.append("sleeps")
        GreenCalls.usleep(10_000)
        order.append("writes")
        #expect(GreenCalls.write(writing, [7 as UInt8], 1) == 1)
      }
      try writer.join()
      try reader.join()
      #expect(order == ["reads", "sleeps", "writes", "has read 1 7"])
      #expect(Data(order[0].utf8).count == 5)
      GreenCalls.close(reading)
      GreenCalls.close(writing)
    }
  }
}
