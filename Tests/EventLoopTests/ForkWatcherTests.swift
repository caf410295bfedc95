// Evergreen: tests of loops in forked children
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

private func exitCode(of child: pid_t) -> Int32 {
  var status: Int32 = 0
  waitpid(child, &status, 0)
  return status & 0x7f == 0 ? (status >> 8) & 0xff : -1
}

@Suite struct ForkWatcherTests {
  @Test func childHasItsOwnKernelObjects() async {
    await #expect(processExitsWith: .success) {
      for backend in Backend.available {
        let loop = try Loop(backend: backend)
        let pair = Pair()
        let fork = loop.fork()
        var forks = 0
        fork.isReferenced = false
        fork.start { forks += 1 }
        let io = try loop.io(pair.reading, .read)
        var reads = 0
        try io.start {
          reads += 1
          pair.take()
          io.stop()
        }
        loop.run(.noWait)
        let child = forkProcess()
        if child == 0 {
          // The child's stop must not touch the parent's registration.
          io.stop()
          let own = Pair()
          let mine = try loop.io(own.reading, .read)
          var calls = 0
          try mine.start {
            calls += 1
            mine.stop()
          }
          own.put()
          loop.run()
          _exit(calls == 1 && forks == 1 && reads == 0 ? 0 : 1)
        }
        guard exitCode(of: child) == 0 else { exit(1) }
        pair.put()
        loop.run()
        guard reads == 1, forks == 0 else { exit(2) }
      }
      exit(0)
    }
  }

  #if os(Linux)
  @Test func aDescriptorClosedBeforeIsReportedInTheChild() async {
    await #expect(processExitsWith: .success) {
      let loop = try Loop(backend: .epoll)
      let pair = Pair()
      let number = pair.readingDuplicate(from: 796)
      let watcher = try loop.io(number, .read)
      try watcher.start {}
      loop.run(.noWait)
      close(number)  // libev does not notice, but makes its set anew in the child
      let child = forkProcess()
      if child == 0 {
        var reports = 0
        loop.onError = { error, _ in if error as? Errno == .badFileDescriptor { reports += 1 } }
        loop.run(.noWait)
        _exit(reports == 1 && !watcher.isActive ? 0 : 1)
      }
      exit(exitCode(of: child))
    }
  }
  #endif

  @Test func forkInACallbackIsNoticed() async {
    await #expect(processExitsWith: .success) {
      let loop = try Loop()
      let parent = getpid()
      let fork = loop.fork()
      var forks = 0
      fork.isReferenced = false
      fork.start { forks += 1 }
      var child: pid_t = -1
      loop.timer(after: .zero).start { child = forkProcess() }
      loop.timer(after: .milliseconds(2)).start {}
      loop.run()
      if getpid() != parent { _exit(forks == 1 ? 0 : 1) }
      exit(forks == 0 && exitCode(of: child) == 0 ? 0 : 1)
    }
  }

  /// In the child a loop of another thread is not there, and its kernel objects are the parent's.
  @Test func sendersReachTheLoopsThatAreThere() async {
    await #expect(processExitsWith: .success) {
      let loop = try Loop()
      let done = loop.async()
      var calls = 0
      done.start { calls += 1 }
      let sender = done.sender
      let thread = startThread {
        let child = forkProcess()
        if child == 0 {
          sender.send()
          guard let own = try? Loop() else { _exit(1) }
          let mine = own.async()
          var calls = 0
          mine.start { calls += 1 }
          mine.send()
          own.run(.once)
          _exit(calls == 1 ? 0 : 2)
        }
        if exitCode(of: child) != 0 { exit(3) }
      }
      pthread_join(thread, nil)
      loop.run(.noWait)
      let child = forkProcess()
      if child == 0 {
        done.send()
        loop.run(.once)
        _exit(calls == 1 ? 0 : 4)
      }
      guard exitCode(of: child) == 0, calls == 0 else { exit(5) }
      done.send()
      loop.run(.once)
      exit(calls == 1 ? 0 : 6)
    }
  }
}
