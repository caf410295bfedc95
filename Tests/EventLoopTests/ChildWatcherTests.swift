// Evergreen: tests of child watchers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

// The default loop collects every child of its process, the testing library's own included: so
// these run in processes of their own.
@Suite struct ChildWatcherTests {
  @Test func otherLoopsRefuse() throws {
    try withLoop { loop in
      let error = #expect(throws: LoopError.self) { try loop.child(1) }
      #expect(error?.kind == .needsDefaultLoop)
    }
  }

  @Test func reportsHowAChildEnded() async {
    await #expect(processExitsWith: .success) {
      let loop = try Loop.makeDefault()
      let exits = try loop.child(spawnShell("exit 3"))
      let dies = try loop.child(spawnShell("kill -9 $$"))
      var log: [String] = []
      exits.start {
        log.append("\(exits.reportedProcessID == exits.processID) \(exits.exitCode ?? -1)")
      }
      dies.start { log.append("\(dies.endingSignal ?? -1) \(dies.exitCode == nil)") }
      check(loop.run() == false, "a watch is over with its process")
      check(log.sorted() == ["9 true", "true 3"], "\(log)")
      check(!exits.isActive && !dies.isActive, "inactive")
      exit(0)
    }
  }

  @Test func anyChildIsWatchedUntilStopped() async {
    await #expect(processExitsWith: .success) {
      let loop = try Loop.makeDefault()
      let any = try loop.child(0)
      let children = [spawnShell("exit 1"), spawnShell("exit 2"), spawnShell("exit 4")]
      var codes: [Int32: Int32] = [:]
      any.start {
        codes[any.reportedProcessID] = any.exitCode
        if codes.count == 3 { any.stop() }
      }
      loop.run()
      check(children.map { codes[$0] } == [1, 2, 4], "\(codes)")
      exit(0)
    }
  }

  @Test func thereIsOneDefaultLoop() async {
    await #expect(processExitsWith: .success) {
      var first: Loop? = try Loop.makeDefault()
      check(first?.isDefault == true, "default")
      check(failure { _ = try Loop.makeDefault() } == .defaultLoopTaken, "a second default loop")
      // SIGCHLD is its own.
      let other = try Loop()
      check(failure { try other.signal(SIGCHLD).start {} } == .signalTaken, "SIGCHLD elsewhere")
      let watcher = try first!.signal(SIGCHLD)
      try watcher.start { watcher.stop() }
      kill(getpid(), SIGCHLD)
      first!.run()
      first = nil
      try other.signal(SIGCHLD).start {}
      check(failure { _ = try Loop.makeDefault() } == .signalTaken, "SIGCHLD was taken")
      other.destroy()
      // The second life of libev's static loop.
      let second = try Loop.makeDefault()
      let child = try second.child(spawnShell("exit 7"))
      var code: Int32?
      child.start { code = child.exitCode }
      second.run()
      check(code == 7, "second default loop")
      exit(0)
    }
  }
}

private func check(_ truth: Bool, _ what: String) {
  if truth { return }
  print(what)
  exit(1)
}

private func failure(of body: () throws -> Void) -> LoopError.Kind? {
  do {
    try body()
    return nil
  } catch {
    return (error as? LoopError)?.kind
  }
}

private func spawnShell(_ script: String) -> pid_t {
  var pid = pid_t()
  var arguments: [UnsafeMutablePointer<CChar>?] = [
    strdup("sh"), strdup("-c"), strdup(script),
  ]
  arguments.append(nil)
  defer { for argument in arguments { free(argument) } }
  precondition(posix_spawn(&pid, "/bin/sh", nil, nil, arguments, nil) == 0)
  return pid
}
