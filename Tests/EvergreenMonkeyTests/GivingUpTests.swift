// Evergreen: tests of what foreign code is told when an error is due in its greenlet.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenMonkey
import EvergreenTesting
import Glibc
import Greenlets
import Testing

@Suite struct GivingUpTests {
  private static func connection() -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    return (ends[0], ends[1])
  }

  /// What `call` has left in errno when the greenlet in it was killed, and then once more.
  private static func errnos(ofKilled call: @escaping () -> Int) throws -> [Int32] {
    var errnos: [Int32] = []
    let greenlet = spawn {
      for _ in 0..<2 {
        errno = 0
        #expect(call() == -1)
        errnos.append(errno)
      }
    }
    try Greenlet.yield()
    try greenlet.kill()
    #expect(greenlet.error is GreenletExit)
    return errnos
  }

  @Test func aConnectionIsAbortedAndOthersAreCancelled() async throws {
    MonkeyPatch.install(.all)
    try await runGreen {
      let (one, other) = Self.connection()
      let byte = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
      defer { byte.deallocate() }
      let receiving = try Self.errnos(ofKilled: { recv(one, byte, 1, 0) })
      #expect(receiving == [ECONNABORTED, ECONNABORTED])
      let reading = try Self.errnos(ofKilled: { read(one, byte, 1) })
      #expect(reading == [ECONNABORTED, ECONNABORTED])
      close(one)
      close(other)

      var ends: [Int32] = [-1, -1]
      #expect(pipe(&ends) == 0)
      let readingPipe = try Self.errnos(ofKilled: { read(ends[0], byte, 1) })
      #expect(readingPipe == [ECANCELED, ECANCELED])
      for end in ends { close(end) }
      let sleeping = try Self.errnos(ofKilled: { Int(usleep(900_000)) })
      #expect(sleeping == [ECANCELED, ECANCELED])

      // To accept says ECONNABORTED of one connection among many, and is tried again.
      let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      defer { close(listener) }
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      let size = socklen_t(MemoryLayout<sa_family_t>.size)  // any name
      let isBound = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, size) }
      }
      #expect(isBound == 0 && listen(listener, 1) == 0)
      let accepting = try Self.errnos(ofKilled: { Int(accept(listener, nil, nil)) })
      #expect(accepting == [ECANCELED, ECANCELED])
    }
  }

  /// libcurl asks only those that a look says are ready.
  @Test func aLookSaysThatThereIsSomethingToHear() async throws {
    MonkeyPatch.install(.all)
    try await runGreen {
      let (one, other) = Self.connection()
      defer { close(one) }
      defer { close(other) }
      var looks: [Int32] = []
      let greenlet = spawn {
        usleep(900_000)
        var polled = pollfd(fd: one, events: Int16(POLLIN), revents: 0)
        looks.append(poll(&polled, 1, 0))
        looks.append(Int32(polled.revents) & POLLIN)
        var set = fd_set()
        withUnsafeMutableBytes(of: &set) { $0[Int(one) / 8] |= 1 << UInt8(one % 8) }
        var limit = timeval()
        looks.append(select(one + 1, &set, nil, nil, &limit))
        looks.append(withUnsafeBytes(of: &set) { Int32($0[Int(one) / 8] >> UInt8(one % 8) & 1) })
      }
      try Greenlet.yield()
      try greenlet.kill()
      #expect(looks == [1, POLLIN, 1, 1])
      // And of others it says what is so.
      var polled = pollfd(fd: one, events: Int16(POLLIN), revents: 0)
      #expect(poll(&polled, 1, 0) == 0)
    }
  }

  @Test func whoDoesNotGiveUpDoesNotSpin() async throws {
    MonkeyPatch.install(.all)
    try await runGreen {
      var calls = 0
      let stubborn = spawn {
        let end = ContinuousClock.now + .milliseconds(800)
        while ContinuousClock.now < end {
          usleep(60_000_000)
          calls += 1
        }
      }
      try Greenlet.yield()
      try stubborn.kill()
      #expect(stubborn.error is GreenletExit)
      #expect(calls > 10)
      #expect(calls < 300)
    }
  }

  /// Others run between the calls on a descriptor that blocks, and at the next wait on one that does
  /// not: OpenSSL keeps its errors in a list of the thread's, and wants nobody else there meanwhile.
  @Test(arguments: [false, true])
  func nothingSwitchesInACallThatMayNotWait(isBlocking: Bool) async throws {
    MonkeyPatch.install(.all)
    try await runGreen {
      let (one, other) = Self.connection()
      defer { close(one) }
      defer { close(other) }
      if !isBlocking {
        #expect(fcntl(one, F_SETFL, O_NONBLOCK) == 0)
      }
      let bytes = [UInt8](repeating: 1, count: 300)
      #expect(write(other, bytes, 300) == 300)
      var turns = 0
      let counter = spawn {
        while true {
          turns += 1
          try Greenlet.yield()
        }
      }
      try Greenlet.yield()
      let before = turns
      var byte: UInt8 = 0
      for _ in 0..<300 { #expect(recv(one, &byte, 1, 0) == 1) }
      #expect((turns > before) == isBlocking)
      #expect(write(other, bytes, 300) == 300)
      let later = turns
      for _ in 0..<300 { #expect(recv(one, &byte, 1, Int32(MSG_DONTWAIT)) == 1) }
      #expect(turns == later)
      #expect(write(other, bytes, 1) == 1)
      var polled = pollfd(fd: one, events: Int16(POLLIN), revents: 0)
      #expect(poll(&polled, 1, 1000) == 1)
      if !isBlocking { #expect(turns > later) }
      try counter.kill()
    }
  }
}
