// Evergreen: tests of idle watchers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

@Suite struct IdleWatcherTests {
  @Test func isCalledWhileNothingElseHappens() throws {
    try withLoop { loop in
      let idle = loop.idle()
      var calls = 0
      idle.start { calls += 1 }
      loop.timer(after: .milliseconds(5)).start { idle.stop() }
      loop.run()
      #expect(calls > 1)
    }
  }

  @Test func higherPriorityKeepsItFromBeingCalled() throws {
    try withLoop { loop in
      let idle = loop.idle()
      idle.priority = -1
      var calls = 0
      idle.start { calls += 1 }
      let busy = loop.idle()
      var rounds = 0
      busy.start {
        rounds += 1
        if rounds == 5 {
          #expect(calls == 0)
          busy.stop()
        }
      }
      while calls == 0 { loop.run(.once) }
      #expect(rounds == 5)
    }
  }
}
