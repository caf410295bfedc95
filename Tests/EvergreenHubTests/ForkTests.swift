// Evergreen: tests of hubs in forked children.
// SPDX-License-Identifier: MIT
//
// Each in a process of its own: a fork copies whatever the other threads of the process hold.

import EventLoop
import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Runs `body` in the main greenlet, in one that was spawned, and in one by hand.
private func byEachKind(_ body: @escaping () throws -> Void) throws {
  try body()
  try spawn { try body() }.get()
  try spawn {
    _ = try RawGreenlet { _ in
      try body()
      return nil
    }.switch()
  }.get()
}

/// A handler that is made now hears the signal.
private func checkIsAnswered(_ signal: Int32) throws {
  let event = Event()
  let handler = try Hub.current.onSignal(signal) { event.set() }
  kill(getpid(), signal)
  try check(event.wait(timeout: .seconds(30)))
  handler.cancel()
}

/// Keeps a hub busy in many ways, and counts what it does in this process.
private final class Crowd {
  private(set) var steps = 0
  private(set) var members: [Greenlet<Void>] = []

  init() throws {
    add { while true { try self.pass { try Greenlet.yield() } } }
    add { while true { try self.pass { try sleep(for: .microseconds(100)) } } }
    add { try self.pass { try Event().wait(timeout: .seconds(3600)) } }
    add { try withTimeout(.seconds(3600)) { try self.pass { try Event().wait() } } }
    add {
      let timeout = Timeout.start(after: .seconds(3600))
      defer { timeout.cancel() }
      try self.pass { try Event().wait() }
    }
    add { try self.pass { _ = try Hub.current.join(timeout: .seconds(3600)) } }
    for _ in 0..<3 { try Greenlet.yield() }
  }

  /// What is about to begin just now.
  func stir() {
    members.append(spawn(after: .milliseconds(1)) { self.steps += 1 })
    add {}
    let me = Smuggled(value: self)
    Hub.current.mailbox.post { me.value.steps += 1 }
  }

  private func add(_ body: @escaping () throws -> Void) {
    members.append(
      spawn {
        self.steps += 1
        try body()
      })
  }

  private func pass(_ wait: () throws -> Void) throws {
    defer { steps += 1 }
    try wait()
  }

  func disperse() throws { try killAll(members) }
}

@Suite(.timeLimit(.minutes(2))) struct ForkTests {
  @Test func theForkerGoesOn() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        try byEachKind {
          crowd.stir()
          try inForkedChild {
            let start = ContinuousClock.now
            try sleep(for: .milliseconds(5))
            try check(ContinuousClock.now - start >= .milliseconds(5))
            let workers = (0..<10).map { number in
              spawn {
                try sleep(for: .microseconds(number * 100))
                return number
              }
            }
            try check(workers.map { try $0.get() } == Array(0..<10))
            try check(joinAll(workers).count == 10)
            let event = Event()
            spawn { event.set() }
            try check(event.wait(timeout: .seconds(30)))
            let late = thrown { _ = try withTimeout(.milliseconds(2)) { try Event().wait() } }
            try check(late is Timeout)
            let sleeper = spawn { try sleep(for: .seconds(3600)) }
            try sleep(for: .milliseconds(1))
            try sleeper.kill()
            try check(sleeper.error is GreenletExit)
            let mail = Event()
            let box = Smuggled(value: mail)
            try check(Hub.current.mailbox.post { box.value.set() })
            try check(mail.wait(timeout: .seconds(30)))
          }
        }
        try crowd.disperse()
      }
    }
  }

  @Test func theOthersDoNotRunInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        try byEachKind {
          crowd.stir()
          let before = crowd.steps
          try inForkedChild {
            try Greenlet.yield()
            try sleep(for: .milliseconds(20))
            try idle()
            try check(crowd.steps == before)
          }
          try check(crowd.steps > before)  // here they do
        }
        try crowd.disperse()
      }
    }
  }

  @Test func theOthersHaveEndedInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        let early = spawn { 5 }
        try early.join()
        let linked = Box(0)
        crowd.members[0].link { _ in linked.value += 1 }
        try byEachKind {
          crowd.stir()
          let forker = Greenlet.current
          let active = crowd.members.filter(\.isActive)
          try inForkedChild {
            for member in active {
              try check(member.isReady && !member.isActive && !member.isSuccessful)
              try check(member.join())
              try check(thrown { try member.get() } is LostInFork)
              try check(member.error is LostInFork)
              try check(member.kill())
            }
            try check(joinAll(crowd.members).count == crowd.members.count)
            try check(early.get() == 5)
            let main: AnyGreenlet = Hub.current.main
            try check(main.isReady == (forker !== main))
            try check(forker === main || main.join())
            try sleep(for: .milliseconds(1))
            try check(linked.value == 0)
            crowd.members[0].link { _ in linked.value += 1 }
            try sleep(for: .milliseconds(1))
            try check(linked.value == 1)
            let report = Hub.current.report()
            try check(report.hasPrefix("1 greenlets:"), report)
            let text = "\(crowd.members[0].error!)"
            try check(text.contains("spawned at EvergreenHubTests/ForkTests.swift"), text)
            try check(text.contains("goes on in the parent process alone"), text)
          }
          try check(!crowd.members.contains { $0.error is LostInFork })
        }
        try crowd.disperse()
      }
    }
  }

  @Test func whatIsGivenGoesToThoseWhoAreThere() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let permits = Semaphore(value: 0)
        let pool = Pool(size: 2)
        let waiters = (0..<3).map { _ in spawn { try permits.acquire() } }
        let members = try (0..<2).map { _ in try pool.spawn { try Event().wait() } }
        try idle()
        try spawn {
          try inForkedChild {
            permits.release()
            try check(permits.value == 1)
            try check(permits.tryAcquire())
            let waiter = spawn { try permits.acquire(timeout: .seconds(30)) }
            try Greenlet.yield()
            permits.release()
            try check(waiter.get())
            try check(pool.isEmpty && pool.freeCount == 2)
            try check(pool.spawn { 1 }.get() == 1)
            try check(pool.join())
          }
        }.get()
        permits.release(3)
        try check(waiters.map { try $0.get() } == [true, true, true])
        try check(pool.count == 2)
        try killAll(members)
      }
    }
  }

  @Test func theForkerIsToldOfAStandstill() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        try byEachKind {
          crowd.stir()
          try inForkedChild {
            let exit = thrown { try Event().wait() } as? LoopExit
            try check(exit?.report.contains("waits for an Event") == true)
            try check("\(exit!)".contains("could wake \(Greenlet.current)"), "\(exit!)")
            // Again, and with somebody else there who waits.
            let other = spawn { try Event().wait() }
            try check(thrown { try other.join() } is LoopExit)
          }
        }
        try crowd.disperse()
      }
    }
  }

  @Test(
    .disabled(if: Sanitizer.any, "they look for the parent's threads when the child exits"),
    arguments: [false, true])
  func theChildExitsWhenTheForkerHasEnded(fails: Bool) async {
    await #expect(processExitsWith: .success) { [fails] in
      try await runGreenInChild {
        Hub.current.onError = { _, _ in }
        let crowd = try Crowd()
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0)
        let output = ends[1]
        let parent = getpid()
        let forker = spawn {
          let child = forkProcess()
          if child != 0 { return child }
          // It waits for what was begun here.
          spawn {
            try sleep(for: .milliseconds(5))
            var byte: UInt8 = 7
            write(output, &byte, 1)
          }
          if fails { throw OneError(number: 1) }
          return 0
        }
        let child = try forker.get()
        try check(getpid() == parent)
        try check(ForkedChild(processID: child).wait() == (fails ? 1 : 0))
        var byte: UInt8 = 0
        try check(read(ends[0], &byte, 1) == 1 && byte == 7)
        try crowd.disperse()
      }
    }
  }

  @Test func timeoutsOfTheForkerGoOn() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        try byEachKind {
          let started = Timeout.start(after: .milliseconds(60))
          let error = thrown {
            try withTimeout(.milliseconds(30)) {
              let child = ForkedChild {
                try check(thrown { try Event().wait() } is Timeout)
                let second = thrown { try Event().wait() } as? Timeout
                try check(second === started)
              }
              do { try Event().wait() } catch {
                try check(child.wait() == 0)
                throw error
              }
            }
          }
          try check(error is Timeout, "\(error as Any)")
          started.cancel()
        }
      }
    }
  }

  @Test func signalsAreAnsweredInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let event = Event()
        let handler = try Hub.current.onSignal(SIGUSR1) { event.set() }
        try byEachKind {
          event.clear()
          try inForkedChild {
            kill(getpid(), SIGUSR1)
            try check(event.wait(timeout: .seconds(30)))
            try checkIsAnswered(SIGUSR2)
          }
          try check(!event.isSet)
          kill(getpid(), SIGUSR1)
          try check(event.wait(timeout: .seconds(30)))
        }
        handler.cancel()
      }
    }
  }

  @Test func signalsOfAnotherHubHaveTheirDefaultActionInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let event = Event()
        let handler = try Hub.current.onSignal(SIGUSR1) { event.set() }
        let mailbox = Hub.current.mailbox
        let result = SharedLog()
        let thread = OwnThread {
          Hub.withHub { _ in
            let error = thrown {
              try inForkedChild {
                try checkIsAnswered(SIGUSR1)
                try check(!mailbox.post { _exit(9) })  // that hub is not there
              }
              let child = ForkedChild {
                kill(getpid(), SIGUSR1)
                try sleep(for: .seconds(10))
              }
              try check(child.wait() == -SIGUSR1)
            }
            result.add(error.map { "\($0)" } ?? "fine")
          }
          kill(getpid(), SIGUSR1)
        }
        try check(event.wait(timeout: .seconds(60)))
        thread.join()
        try check(result.entries == ["fine"], "\(result.entries)")
        handler.cancel()
      }
    }
  }

  @Test(.disabled(if: Sanitizer.thread, "it ends a forked child that starts a thread"))
  func mailFromThreadsArrivesInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let mailbox = Hub.current.mailbox
        try byEachKind {
          try inForkedChild {
            let event = Event()
            let box = Smuggled(value: event)
            let thread = OwnThread {
              usleep(10_000)  // until the hub waits
              mailbox.post { box.value.set() }
            }
            try check(event.wait())
            thread.join()
          }
        }
      }
    }
  }

  @Test(.disabled(if: Sanitizer.thread, "it ends a forked child that starts a thread"))
  func theWatchdogWatchesTheChild() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        Hub.current.blockingThreshold = .milliseconds(20)
        try spawn {
          try inForkedChild {
            let child = getpid()
            let other = spawn { try sleep(for: .seconds(3600)) }
            try sleep(for: .milliseconds(1))
            let isReported = Atomic(false)
            Hub.onBlocked { _ in if getpid() == child { isReported.store(true, ordering: .relaxed) }
            }
            while !isReported.load(ordering: .relaxed) {}
            try other.kill()
            writeError("reported\n")
          }
        }.get()
      }
    }
    #expect(text(of: result).contains("reported"))
  }

  @Test(.disabled(if: Sanitizer.any, "they look for the parent's threads when the child exits"))
  func aCallbackOfTheLoopMayFork() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        let done = Event()
        var child: Int32 = -1
        var late = 0
        let timer = Hub.current.eventLoop.timer(after: .zero)
        timer.start {
          child = forkProcess()
          if child == 0 {
            spawn {
              try sleep(for: .milliseconds(1))
              late += 1
            }
          } else {
            done.set()
          }
        }
        try done.wait()
        try check(ForkedChild(processID: child).wait() == 0)
        try check(late == 0)
        try crowd.disperse()
      }
    }
  }

  @Test func rawGreenletsCanBeSwitchedToInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let numbers = Generator<Int> { yield in for number in 1... { try yield(number) } }
        let iterator = numbers.makeIterator()
        try check(iterator.next() == 1)
        let parked = RawGreenlet { _ in try Event().wait() }
        let host = spawn { _ = try parked.switch() }
        try Greenlet.yield()
        try spawn {
          try inForkedChild {
            try check(iterator.next() == 2)
            let error = thrown { try parked.switch() }
            try check(error is SwitchError && "\(error!)".contains("stayed in the parent"))
            try check(host.isReady)
          }
        }.get()
        try check(iterator.next() == 2)
        try host.kill()
      }
    }
  }

  @Test func aChildMayForkAgain() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        try inForkedChild {
          let sleeper = spawn { try sleep(for: .seconds(3600)) }
          try Greenlet.yield()
          let child = try spawn {
            ForkedChild {
              try check(sleeper.error is LostInFork)
              try check(crowd.members[0].error is LostInFork)
              try sleep(for: .milliseconds(1))
              try check(thrown { try Event().wait() } is LoopExit)
            }
          }.get()
          // Threads are not for every child of this test, so without the pool.
          var status: Int32 = 0
          while waitpid(child.processID, &status, WNOHANG) == 0 { try sleep(for: .milliseconds(1)) }
          try check(status == 0)
          try check(sleeper.isActive)
          try sleeper.kill()
        }
        try crowd.disperse()
      }
    }
  }

  @Test func endsWithItsHubInTheChildToo() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let log = SharedLog()
        OwnThread {
          let isChild = Hub.withHub { hub -> Bool in
            let other = spawn { try Event().wait() }
            try? Greenlet.yield()
            let child = forkProcess()
            if child != 0 {
              log.add("\((try? ForkedChild(processID: child).wait()) ?? -1)")
              return false
            }
            return other.isReady
          }
          guard isChild else { return }
          let isFresh = Hub.withHub { _ in (try? sleep(for: .milliseconds(1))) != nil }
          _exit(isFresh ? 0 : 1)
        }.join()
        try check(log.entries == ["0"], "\(log.entries)")
      }
    }
  }

  @Test func aThreadWithoutAHubGetsOneInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let crowd = try Crowd()
        let done = Event()
        let box = Smuggled(value: done)
        let mailbox = Hub.current.mailbox
        let status = Atomic<Int32>(-1)
        let thread = OwnThread {
          let child = forkProcess()
          if child == 0 {
            let isFine = Hub.withHub { _ in
              (try? sleep(for: .milliseconds(1))) != nil && (try? spawn { 3 }.get()) == 3
            }
            _exit(isFine ? 0 : 1)
          }
          var ending: Int32 = -1
          waitpid(child, &ending, 0)
          status.store(ending, ordering: .relaxed)
          mailbox.post { box.value.set() }
        }
        try done.wait()
        thread.join()
        try check(status.load(ordering: .relaxed) == 0)
        try crowd.disperse()
      }
    }
  }
}
