// Evergreen: tests of loops in forked children
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Swift hides it, for good reasons; the loop must live through it nevertheless.
private func forkProcess() -> pid_t {
  typealias Fork = @convention(c) () -> pid_t
  return unsafeBitCast(dlsym(UnsafeMutableRawPointer(bitPattern: 0), "fork"), to: Fork.self)()
}

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
}
