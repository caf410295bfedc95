// Evergreen: tests of prepare and check watchers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

@Suite struct PrepareAndCheckWatcherTests {
  @Test func surroundEachPoll() throws {
    try withLoop { loop in
      var log: [String] = []
      let (prepare, check) = (loop.prepare(), loop.check())
      prepare.start { log.append("prepare \(loop.iteration)") }
      check.start { log.append("check \(loop.iteration)") }
      loop.timer(after: .zero).start { log.append("timer") }
      loop.run(.once)
      loop.run(.noWait)
      #expect(log == ["prepare 0", "check 1", "timer", "prepare 1", "check 2"])
    }
  }

  @Test func prepareMayStartWatchersForThisPass() throws {
    try withLoop { loop in
      let pair = Pair()
      pair.put()
      let prepare = loop.prepare()
      var calls = 0
      prepare.start {
        prepare.stop()
        let io = try loop.io(pair.reading, .read)
        try io.start {
          calls += 1
          io.stop()
        }
      }
      loop.run(.once)
      #expect(calls == 1)
    }
  }
}
