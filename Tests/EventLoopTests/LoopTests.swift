// Evergreen: tests of the loop itself
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct LoopTests {
  @Test func emptyLoopReturnsAtOnce() throws {
    try withLoop { loop in
      #expect(loop.run() == false)
      #expect(loop.run(.once) == false)
      #expect(loop.run(.noWait) == false)
      #expect(loop.iteration == 3)
      #expect(loop.depth == 0)
      #expect(loop.pendingCount == 0)
      #expect(loop.activeCount == 0)
      loop.verify()
    }
  }

  @Test(arguments: Backend.available)
  func onceWaitsAndNoWaitDoesNot(on backend: Backend) throws {
    try withLoop(backend) { loop in
      var fired = false
      loop.timer(after: .milliseconds(20)).start { fired = true }
      let start = readClock()
      #expect(loop.run(.noWait) == true)
      #expect(!fired)
      // A pass may end early, so there may be several.
      while !fired { loop.run(.once) }
      #expect(readClock() - start >= 20_000_000)
      #expect(loop.run(.noWait) == false)
    }
  }

  @Test func stopEndsTheInnermostRun() throws {
    try withLoop { loop in
      var log: [String] = []
      let endless = loop.prepare()
      endless.start {}
      loop.idle().start {
        log.append("depth \(loop.depth)")
        loop.stop()
        if loop.depth == 1 {
          loop.run()
          log.append("inner run ended")
          loop.stop()
        }
      }
      loop.run()
      #expect(log == ["depth 1", "depth 2", "inner run ended"])
      #expect(loop.depth == 0)
    }
  }

  @Test func stopAllEndsEveryRun() throws {
    try withLoop { loop in
      var depths: [Int] = []
      loop.idle().start {
        depths.append(loop.depth)
        if loop.depth < 3 { loop.run() } else { loop.stop(.all) }
      }
      loop.run()
      #expect(depths == [1, 2, 3])
    }
  }

  @Test func stopOutsideOfARunIsForgotten() throws {
    try withLoop { loop in
      loop.stop(.all)
      var calls = 0
      loop.timer(after: .zero).start { calls += 1 }
      loop.run()
      #expect(calls == 1)
    }
  }

  @Test func explicitReferencesKeepItRunning() throws {
    try withLoop { loop in
      loop.ref()
      loop.ref()
      #expect(loop.activeCount == 2)
      let timer = loop.timer(after: .milliseconds(1))
      timer.isReferenced = false
      timer.start {
        loop.unref()
        loop.unref()
      }
      #expect(loop.activeCount == 2)
      #expect(loop.run() == false)
      #expect(loop.activeCount == 0)
    }
  }

  @Test func nowIsTheLastPollAndCanBeUpdated() throws {
    try withLoop { loop in
      let before = loop.now
      #expect(before <= readClock())
      #expect(readClock() - before < 10_000_000_000)
      while readClock() < before + 2_000_000 {}
      #expect(loop.now == before)
      let exact = loop.readClock()
      #expect(exact >= before + 2_000_000)
      #expect(loop.now == before)
      loop.updateNow()
      #expect(loop.now >= before + 1_999_990)
      #expect(loop.now <= readClock())
      var wall = timespec()
      clock_gettime(CLOCK_REALTIME, &wall)
      let distance = loop.wallTime - .seconds(wall.tv_sec)
      #expect(distance > .seconds(-10) && distance < .seconds(10))
    }
  }

  @Test func destroyingTwiceIsFine() throws {
    let loop = try Loop()
    let timer = loop.timer(after: .seconds(1000))
    timer.start {}
    loop.destroy()
    loop.destroy()
    #expect(loop.isDestroyed)
    #expect(loop.run() == false)
    #expect((loop.now, loop.activeCount, loop.depth) == (0, 0, 0))
    loop.ref()
    loop.unref()
    loop.stop()
    loop.updateNow()
    loop.verify()
    #expect(!timer.isActive)
  }

  @Test func destroyingARunningLoopTraps() async {
    await #expect(processExitsWith: .failure) {
      let loop = try Loop()
      loop.timer(after: .zero).start { loop.destroy() }
      loop.run()
      exit(0)
    }
  }

  @Test func errorsGoToTheHandlerAndTheLoopGoesOn() throws {
    try withLoop { loop in
      var seen: [String] = []
      loop.onError = { error, watcher in seen.append("\(error) in \(watcher)") }
      loop.timer(after: .zero).start { throw OneError() }
      var calls = 0
      let idle = loop.idle()
      idle.start {
        calls += 1
        if calls == 3 { idle.stop() }
        throw OneError()
      }
      loop.run()
      #expect(calls == 3)
      #expect(seen.filter { $0 == "OneError() in IdleWatcher" }.count == 3)
      #expect(seen.filter { $0 == "OneError() in TimerWatcher" }.count == 1)
    }
  }

  @Test func defaultErrorHandlerPrintsALine() async {
    let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
      let loop = try Loop()
      loop.timer(after: .zero).start { throw OneError() }
      loop.run()
      exit(0)
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("error in the callback of TimerWatcher: OneError()\n"))
  }

  @Test func tooManyOpenFilesIsAnError() async {
    await #expect(processExitsWith: .success) {
      var limit = rlimit()
      limit.rlim_cur = 3
      limit.rlim_max = 3
      #if canImport(Glibc)
      setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      #else
      setrlimit(RLIMIT_NOFILE, &limit)
      #endif
      let failure = #expect(throws: LoopError.self) { try Loop() }
      // Not exit: nothing that runs there can open a file.
      _exit(failure?.kind == .cannotCreate && failure?.errno == .tooManyOpenFiles ? 0 : 1)
    }
  }

  #if os(Linux)
  @Test func closedBackendDescriptorIsSaidNotSpunOn() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let others = epollDescriptors()
      let loop = try Loop(backend: .epoll)
      loop.run(.noWait)
      for fd in epollDescriptors().subtracting(others) { close(fd) }
      loop.timer(after: .seconds(5)).start { exit(0) }
      loop.run()
      exit(0)
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("Something closed a file descriptor that it did not own"))
  }
  #endif
}

#if os(Linux)
/// The descriptors of this process that are epoll sets.
private func epollDescriptors() -> Set<CInt> {
  Set(
    (0..<1024).filter { fd in
      withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { target in
        let count = readlink("/proc/self/fd/\(fd)", target.baseAddress!, target.count)
        let bytes = UnsafeRawBufferPointer(target).prefix(max(count, 0))
        return bytes.elementsEqual("anon_inode:[eventpoll]".utf8)
      }
    })
}
#endif
