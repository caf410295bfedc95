// Evergreen: kills, timeouts, closed descriptors and signals in green calls.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import GreenGlibc
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(2)))
struct EndingTests {
  @Test func aKillEndsTheCallAndIsThrownByTheNextSwitchPoint() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      var story: [String] = []
      let reader = spawn {
        var byte: UInt8 = 0
        story.append(told("read", read(reading, &byte, 1)))
        story.append(told("recv", recv(reading, &byte, 1, 0)))
        story.append(told("usleep", usleep(1_000_000)))
        do {
          try Greenlet.yield()
        } catch {
          story.append("\(type(of: error))")
          throw error
        }
      }
      try Greenlet.yield()
      try reader.kill()
      let canceled = String(cString: strerror(ECANCELED))
      #expect(
        story == ["read: -1 \(canceled)", "recv: -1 \(canceled)", "usleep: -1 \(canceled)"]
          + ["GreenletExit"])
      #expect(reader.isReady)
      close(reading)
      close(writing)
    }
  }

  @Test func aKilledCallerUnderAShieldHasItsCallsDone() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      var results: [Int] = []
      let reader = spawn {
        var byte: UInt8 = 0
        results.append(read(reading, &byte, 1))
        shielded { results.append(read(reading, &byte, 1)) }
        results.append(read(reading, &byte, 1))
        return "the end"
      }
      try Greenlet.yield()
      try reader.kill(waiting: false)
      try Greenlet.yield()
      #expect(results == [-1])  // for it waits again, under the shield
      #expect(write(writing, "xy", 2) == 2)
      try reader.join()
      #expect(results == [-1, 1, -1])
      #expect(reader.error.map { "\($0)" } == "GreenletExit")
      close(reading)
      close(writing)
    }
  }

  @Test func aTimeoutEndsTheCallAndIsThrownByItsBlock() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      var results: [Int] = []
      var errors: [Int32] = []
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(20)) {
          var byte: UInt8 = 0
          results.append(read(reading, &byte, 1))
          errors.append(errno)
          results.append(Int(sleep(10)))
        }
      }
      #expect(results == [-1, 10])
      #expect(errors == [ETIMEDOUT])
      // It is over.
      var byte: UInt8 = 0
      #expect(write(writing, "x", 1) == 1)
      #expect(read(reading, &byte, 1) == 1)
      close(reading)
      close(writing)
    }
  }

  @Test func aTimeoutInTimeIsNotNoticed() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      let (count, _) = try counting(while: { write(writing, "x", 1) }) {
        try withTimeout(.seconds(60)) {
          var byte: UInt8 = 0
          return read(reading, &byte, 1)
        }
      }
      #expect(count == 1)
      close(reading)
      close(writing)
    }
  }

  @Test func pollTellsThatAnErrorIsDueByItsDescriptors() async throws {
    try await runGreen {
      let (one, other) = try makePair()
      var polled = pollfd(fd: one, events: Int16(POLLIN), revents: 0)
      var count: Int32 = -7
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(20)) { count = poll(&polled, 1, -1) }
      }
      #expect(count == 1)
      #expect(Int32(polled.revents) & POLLERR != 0)
      close(one)
      close(other)
    }
  }

  @Test(arguments: [true, false])
  func aClosedDescriptorEndsItsWait(_ closes: Bool) async throws {
    try await runGreen {
      let (one, other) = try makePair()
      let (third, fourth) = try makePair()
      let reader = spawn { () -> String in
        var byte: UInt8 = 0
        return told("recv", recv(one, &byte, 1, 0))
      }
      try Greenlet.yield()
      if closes { close(one) } else { #expect(dup2(third, one) == one) }
      #expect(try reader.get() == "recv: -1 \(String(cString: strerror(EBADF)))")
      if !closes { close(one) }
      for descriptor in [other, third, fourth] { close(descriptor) }
    }
  }

  @Test func whatAHandlerCallsDoesNotWait() async throws {
    let noted = try await runGreen {
      var turns = 0
      let other = spawn {
        while true {
          turns += 1
          try Greenlet.yield()
        }
      }
      try Greenlet.yield()
      let before = turns
      let last = signal(SIGUSR2) { _ in handlerResult.store(usleep(1000), ordering: .relaxed) }
      var mask = sigset_t()
      var maskBefore = sigset_t()
      sigaddset(&mask, SIGUSR2)
      pthread_sigmask(SIG_UNBLOCK, &mask, &maskBefore)
      pthread_kill(pthread_self(), SIGUSR2)
      pthread_sigmask(SIG_SETMASK, &maskBefore, nil)
      let ours = signal(SIGUSR2, last)
      #expect(ours != nil)
      let during = turns - before
      try other.kill()
      return during
    }
    #expect(noted == 0)
    #expect(handlerResult.load(ordering: .relaxed) == 0)
  }

  @Test func whoAsksForAHandlerIsToldTheOneThatWasSet() async throws {
    let mine: @convention(c) (Int32) -> Void = { _ in }
    var action = sigaction()
    action.__sigaction_handler.sa_handler = mine
    var before = sigaction()
    var now = sigaction()
    #expect(sigaction(SIGPROF, &action, &before) == 0)
    #expect(sigaction(SIGPROF, &before, &now) == 0)
    #expect(
      unsafeBitCast(now.__sigaction_handler.sa_handler, to: Int.self)
        == unsafeBitCast(mine, to: Int.self))
    #expect(now.sa_flags & SA_SIGINFO == 0)
  }

  @Test func aThreadWithoutAHubBlocks() async {
    let count = await onThread { () -> Int in
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { return -1 }
      let writing = ends[1]
      let other = startThread { write(writing, "x", 1) }
      var byte: UInt8 = 0
      let count = read(ends[0], &byte, 1)
      pthread_join(other, nil)
      close(ends[0])
      close(ends[1])
      return count
    }
    #expect(count == 1)
  }
}

private let handlerResult = Atomic<Int32>(-1)
