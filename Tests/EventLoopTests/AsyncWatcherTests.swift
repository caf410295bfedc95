// Evergreen: tests of wake-ups from other threads
// SPDX-License-Identifier: MIT

import EventLoop
import Synchronization
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct AsyncWatcherTests {
  @Test(arguments: Backend.available)
  func wakesAWaitingLoop(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let watcher = loop.async()
      watcher.start { watcher.stop() }
      let sender = watcher.sender
      let thread = startThread { sender.send() }
      #expect(loop.run() == false)
      pthread_join(thread, nil)
    }
  }

  @Test func sendsBeforeTheCallbackAreOne() throws {
    try withLoop { loop in
      let watcher = loop.async()
      var calls = 0
      watcher.start { calls += 1 }
      let sender = watcher.sender
      let thread = startThread { for _ in 0..<100 { sender.send() } }
      pthread_join(thread, nil)
      watcher.send()
      #expect(watcher.isPending)
      loop.run(.once)
      loop.run(.noWait)
      #expect(calls == 1)
      #expect(!watcher.isPending)
      watcher.send()
      loop.run(.once)
      #expect(calls == 2)
    }
  }

  @Test func senderMayOutliveEverything() throws {
    var sender: AsyncWatcher.Sender
    do {
      let loop = try Loop()
      let watcher = loop.async()
      sender = watcher.sender
      sender.send()  // not started
      var calls = 0
      watcher.start { calls += 1 }
      loop.run(.noWait)
      #expect(calls == 0)
      watcher.stop()
      sender.send()
      watcher.start { calls += 1 }
      loop.run(.noWait)
      #expect(calls == 0)
    }
    sender.send()
  }

  @Test func sendingWhileTheLoopGoesIsSafe() throws {
    for _ in 0..<50 {
      let loop = try Loop()
      let watcher = loop.async()
      watcher.start {}
      let sender = watcher.sender
      let isDone = Flag()
      let thread = startThread { while !isDone.isUp { sender.send() } }
      for _ in 0..<5 { loop.run(.once) }
      loop.destroy()
      isDone.raise()
      pthread_join(thread, nil)
    }
  }
}

private final class Flag: Sendable {
  private let state = Atomic(false)
  var isUp: Bool { state.load(ordering: .acquiring) }
  func raise() { state.store(true, ordering: .releasing) }
}
