// Evergreen: tests of signal watchers
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.serialized) struct SignalWatcherTests {
  @Test(arguments: Backend.available)
  func callsBackAfterASignal(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let (first, second) = (try loop.signal(SIGUSR1), try loop.signal(SIGUSR1))
      var log: [String] = []
      try first.start {
        log.append("first")
        first.stop()
      }
      try second.start {
        log.append("second")
        second.stop()
      }
      kill(getpid(), SIGUSR1)
      loop.run()
      #expect(log.sorted() == ["first", "second"])
    }
  }

  @Test func signalsBeforeTheCallbackAreOne() throws {
    try withLoop { loop in
      let watcher = try loop.signal(SIGUSR1)
      var calls = 0
      try watcher.start { calls += 1 }
      // Handled by the time kill returns, as this thread does not block the signal.
      for _ in 0..<3 { pthread_kill(pthread_self(), SIGUSR1) }
      loop.run(.once)
      loop.run(.noWait)
      #expect(calls == 1)
      watcher.stop()
    }
  }

  @Test func wakesAWaitingLoop() throws {
    try withLoop { loop in
      let watcher = try loop.signal(SIGUSR1)
      try watcher.start { watcher.stop() }
      let thread = startThread { kill(getpid(), SIGUSR1) }
      #expect(loop.run() == false)
      pthread_join(thread, nil)
    }
  }

  @Test func secondLoopGetsAClearError() throws {
    try withLoop { one in
      try withLoop { other in
        let mine = try one.signal(SIGUSR2)
        let theirs = try other.signal(SIGUSR2)
        try mine.start {}
        let error = #expect(throws: LoopError.self) { try theirs.start {} }
        #expect(error?.kind == .signalTaken)
        #expect(error?.description.contains("signal \(SIGUSR2) (") == true)
        #expect(!theirs.isActive && other.activeCount == 0)
        mine.stop()
        try theirs.start {}
        #expect(theirs.isActive)
        #expect(throws: LoopError.self) { try mine.start {} }
        other.destroy()
        try mine.start {}
        mine.stop()
      }
    }
  }

  @Test func whatCannotBeCaughtIsRefused() throws {
    try withLoop { loop in
      for signal in [SIGKILL, SIGSTOP, 0, -1, 4000] {
        let error = #expect(throws: LoopError.self) { try loop.signal(signal) }
        #expect(error?.kind == .invalidSignal)
      }
    }
  }
}
