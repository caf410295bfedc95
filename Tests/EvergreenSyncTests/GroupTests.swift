// Evergreen: tests of sets of greenlets.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct GroupTests {
  struct Failure: Error, Hashable { var number = 0 }

  @Test func membersLeaveByThemselves() async throws {
    try await runGreenInVirtualTime { _ in
      Hub.current.onError = { _, _ in }
      let group = Group()
      let quick = group.spawn { 1 }
      let failing = group.spawn { throw Failure() }
      let slow = group.spawn { try sleep(for: .seconds(5)) }
      #expect(group.greenlets == [quick, failing, slow] && group.count == 3)
      try Greenlet.yield()
      #expect(group.greenlets == [slow])
      try #expect(group.join())
      #expect(group.isEmpty)
    }
  }

  @Test func addAndDiscardKnowStartedOnesAndOthers() async throws {
    try await runGreenInVirtualTime { clock in
      let group = Group()
      let running = spawn { try sleep(for: .seconds(5)) }
      let unstarted = Greenlet { 1 }
      let ended = spawn { 2 }
      try ended.join()
      for greenlet in [running, unstarted, ended] as [AnyGreenlet] { group.add(greenlet) }
      group.add(running)
      #expect(group.greenlets == [running, unstarted])
      #expect(group.contains(running) && !group.contains(ended))
      group.discard(running)
      group.discard(running)
      unstarted.start()
      try #expect(group.join())
      #expect(clock.elapsed == .zero && !running.isReady)
      try running.join()
      #expect(group.isEmpty)
    }
  }

  @Test func joinReturnsWhenItWasEmptyOnce() async throws {
    try await runGreenInVirtualTime { _ in
      let group = Group()
      let other = Event()
      group.spawn { try sleep(for: .seconds(1)) }.rawLinkForTest {
        group.spawn { try other.wait() }
      }
      try #expect(group.join(timeout: .seconds(5)))
      #expect(group.count == 1)
      try #expect(!group.join(timeout: .seconds(5)))
      other.set()
      try #expect(group.join())
    }
  }

  @Test func joinThrowsTheFirstErrorInTimeIfAsked() async throws {
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { _, _ in }
      let group = Group()
      for seconds in [3, 1, 2] {
        group.spawn {
          try sleep(for: .seconds(seconds))
          throw Failure(number: seconds)
        }
      }
      #expect(throws: Failure(number: 1)) { try group.join(raisingErrors: true) }
      #expect(clock.elapsed == .seconds(3))
      group.spawn { throw Failure() }
      try #expect(group.join())
      group.spawn { try sleep(for: .seconds(60)) }
      spawn { try group.kill() }
      try #expect(group.join(raisingErrors: true))  // a kill is no error
      try #expect(group.join(raisingErrors: true))
    }
  }

  @Test func killEndsThoseThatAreAddedMeanwhile() async throws {
    try await runGreenInVirtualTime { clock in
      let group = Group()
      var ended = 0
      for _ in 0..<5 {
        group.spawn {
          defer {
            ended += 1
            if ended < 20 {
              group.spawn {
                defer { ended += 1 }
                try sleep(for: .seconds(60))
              }
            }
          }
          try sleep(for: .seconds(60))
        }
      }
      try Greenlet.yield()
      try #expect(group.kill())
      #expect(group.isEmpty && clock.elapsed == .zero)
    }
  }

  @Test func killThrowsOnceIntoAStubbornOne() async throws {
    try await runGreenInVirtualTime { _ in
      let group = Group()
      var kills = 0
      group.spawn {
        for _ in 0..<3 { do { try sleep(for: .seconds(2)) } catch { kills += 1 } }
      }
      try Greenlet.yield()
      try #expect(!group.kill(timeout: .seconds(1)))
      #expect(kills == 1 && group.count == 1)
      try #expect(group.join())
    }
  }

  @Test func killOneLeavesTheOthersAndStrangersAlone() async throws {
    try await runGreen {
      let group = Group()
      let release = Event()
      let (first, second) = (group.spawn { try release.wait() }, group.spawn { try release.wait() })
      let stranger = spawn { try release.wait() }
      try Greenlet.yield()
      try #expect(group.killOne(first))
      #expect(first.isReady && group.greenlets == [second])
      try #expect(group.killOne(stranger))
      #expect(!stranger.isReady)
      try #expect(!group.killOne(second, waiting: false))
      try second.join()
      #expect(group.isEmpty)
      release.set()
      try stranger.join()
    }
  }

  @Test func applyReturnsWhatItRanAndThrowsItsError() async throws {
    try await runGreenInVirtualTime { clock in
      Hub.current.onError = { greenlet, error in Issue.record("\(greenlet): \(error)") }
      for group in [Group(), Pool(size: 1)] {
        try #expect(group.apply { group.count } == 1)
        #expect(throws: Failure.self) { try group.apply { throw Failure() } }
        let begin = clock.elapsed
        #expect(throws: Timeout.self) {
          try withTimeout(.seconds(1)) {
            try group.apply {
              defer { shielded { try? sleep(for: .seconds(2)) } }
              try sleep(for: .seconds(60))
            }
          }
        }
        #expect(group.isEmpty && clock.elapsed - begin == .seconds(3))
      }
    }
  }

  @Test func manyCost() async throws {
    try await runGreen {
      let group = Group()
      var sum = 0
      for number in 0..<10_000 { group.spawn { sum += number } }
      try group.join()
      #expect(sum == 49_995_000)
    }
  }
}

extension AnyGreenlet {
  fileprivate func rawLinkForTest(_ body: @escaping () -> Void) { _ = rawLink(body) }
}
