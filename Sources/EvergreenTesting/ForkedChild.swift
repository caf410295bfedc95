// Evergreen: children of a fork, for tests.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenSync

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// fork(2). Swift hides it, for good reasons; the library must live through it nevertheless.
///
/// - Returns: 0 in the child, which is killed after a minute: a hang must not hang the tests.
package func forkProcess() -> Int32 {
  typealias Fork = @convention(c) () -> pid_t
  let fork = unsafeBitCast(dlsym(UnsafeMutableRawPointer(bitPattern: 0), "fork"), to: Fork.self)
  let child = fork()
  if child == 0 {
    signal(SIGALRM, SIG_DFL)
    var alarms = sigset_t()  // which threads of tests have blocked, with all other signals
    sigemptyset(&alarms)
    sigaddset(&alarms, SIGALRM)
    pthread_sigmask(SIG_UNBLOCK, &alarms, nil)
    alarm(60)
  }
  return child
}

/// A child of a fork that the calling greenlet makes.
package struct ForkedChild {
  package let processID: Int32

  /// Forks. The child runs `body`, says on standard error what that throws, and exits.
  package init(_ body: () throws -> Void) {
    processID = forkProcess()
    precondition(processID >= 0, "cannot fork")
    if processID != 0 { return }
    do {
      try body()
      _exit(0)
    } catch {
      warn("a forked child failed: \(error)")
      _exit(1)
    }
  }

  /// The child of a fork that was made otherwise.
  package init(processID: Int32) { self.processID = processID }

  /// Waits for its end.
  ///
  /// - Returns: Its exit code; what ended it, negative, if a signal did.
  package func wait() throws -> Int32 {
    let processID = processID
    return try ThreadPool.run {
      var status: Int32 = 0
      while waitpid(processID, &status, 0) < 0 && errno == EINTR {}
      return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }
  }
}

/// What a test found otherwise than it should be, in a process where `#expect` is of no use.
package struct Unexpected: Error, CustomStringConvertible {
  package let description: String
}

package func check(
  _ holds: @autoclosure () throws -> Bool, _ what: String = "", line: UInt = #line
) throws {
  if try !holds() { throw Unexpected(description: "line \(line) \(what)") }
}

/// Forks, runs `body` in the child, and waits for that.
package func inForkedChild(line: UInt = #line, _ body: () throws -> Void) throws {
  let ending = try ForkedChild(body).wait()
  try check(ending == 0, "the child ended with \(ending)", line: line)
}
