// Evergreen: tests of the errors of system calls
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct ErrnoTests {
  @Test func saysWhatStrerrorSays() {
    #expect(Errno.connectionRefused.description == "Connection refused")
    #expect("\(Errno(rawValue: 9999))".contains("9999"))
  }

  @Test func knowsTheNumbers() {
    #expect(Errno.badFileDescriptor == Errno(rawValue: EBADF))
    #expect(Errno.wouldBlock == .resourceTemporarilyUnavailable)
    #expect(Set([Errno.timedOut, .timedOut, .canceled]).count == 2)
  }

  @Test func checkedThrowsWhatErrnoSays() {
    #expect(throws: Errno.badFileDescriptor) { try checked { fcntl(-1, F_GETFD) } }
    #expect(throws: Errno.noSuchFileOrDirectory) { try checked { open("/nowhere", O_RDONLY) } }
  }

  @Test func checkedReturnsTheResult() throws {
    #expect(try checked { 7 } == 7)
    #expect(try checked { -2 } == -2)
  }

  @Test func checkedRepeatsWhatASignalInterrupted() throws {
    var calls = 0
    let result = try checked { () -> Int32 in
      calls += 1
      errno = EINTR
      return calls < 3 ? -1 : 5
    }
    #expect(result == 5)
    #expect(calls == 3)
  }

  @Test func checksDescriptors() throws {
    let pair = Pair()
    try checkDescriptor(pair.reading)
    #expect(throws: Errno.badFileDescriptor) { try checkDescriptor(-1) }
    #expect(throws: Errno.badFileDescriptor) { try checkDescriptor(1 << 20) }
    let copy = pair.readingDuplicate(from: 700)
    close(copy)
    #expect(throws: Errno.badFileDescriptor) { try checkDescriptor(copy) }
  }
}
