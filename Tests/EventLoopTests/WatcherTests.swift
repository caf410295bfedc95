// Evergreen: tests of what all watchers have in common
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Every kind of watcher that any loop has, and how to start it.
private func everyKind(
  of loop: Loop, _ pair: Pair
) throws -> [(Watcher, (@escaping () -> Void) throws -> Void)] {
  let io = try loop.io(pair.reading, .read)
  let timer = loop.timer(after: .seconds(1000))
  let periodic = loop.periodic(every: .seconds(1_000_000))
  let signal = try loop.signal(SIGWINCH)
  let stat = loop.stat("/nowhere")
  let (idle, prepare, check) = (loop.idle(), loop.prepare(), loop.check())
  let (fork, async) = (loop.fork(), loop.async())
  return [
    (io, { try io.start($0) }), (timer, { timer.start($0) }), (periodic, { periodic.start($0) }),
    (signal, { try signal.start($0) }), (stat, { stat.start($0) }), (idle, { idle.start($0) }),
    (prepare, { prepare.start($0) }), (check, { check.start($0) }), (fork, { fork.start($0) }),
    (async, { async.start($0) }),
  ]
}

@Suite(.serialized) struct WatcherTests {
  @Test(arguments: Backend.available)
  func everyKindStartsStopsAndIsFed(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let pair = Pair()
      for (watcher, start) in try everyKind(of: loop, pair) {
        #expect(!watcher.isActive && !watcher.isPending, "\(watcher)")
        var calls = 0
        watcher.feed()  // inactive: ignored
        #expect(!watcher.isPending)
        for round in 1...2 {
          try start { calls += 1 }
          #expect(watcher.isActive && loop.activeCount == 1, "\(watcher)")
          watcher.feed()
          watcher.feed()
          #expect(watcher.isPending && loop.pendingCount == 1, "\(watcher)")
          loop.run(.noWait)
          #expect(calls >= round, "\(watcher)")
          watcher.feed()
          watcher.stop()
          #expect(!watcher.isActive && !watcher.isPending, "\(watcher)")
          let before = calls
          loop.run(.noWait)
          #expect(calls == before, "\(watcher)")
          watcher.stop()
          #expect(loop.activeCount == 0, "\(watcher)")
          loop.verify()
        }
        #expect(watcher.loop === loop)
      }
    }
  }

  @Test func everyKindStopsInItsOwnCallback() throws {
    try withLoop { loop in
      let pair = Pair()
      for (watcher, start) in try everyKind(of: loop, pair) {
        var calls = 0
        try start {
          calls += 1
          watcher.stop()
        }
        watcher.feed()
        #expect(loop.run() == false)
        #expect(calls == 1, "\(watcher)")
        #expect(!watcher.isActive)
      }
    }
  }

  @Test func everyKindOutlivesItsLoop() throws {
    let pair = Pair()
    for destroying in [true, false] {
      var loop: Loop? = try Loop()
      let kinds = try everyKind(of: loop!, pair)
      for (_, start) in kinds.prefix(7) { try start {} }
      if destroying { loop!.destroy() }
      let weakLoop = WeakLoop(loop)
      loop = nil
      #expect(weakLoop.loop == nil)
      for (watcher, start) in kinds {
        #expect(!watcher.isActive && !watcher.isPending, "\(watcher)")
        #expect(watcher.loop == nil)
        try start { Issue.record("an inert watcher fired") }
        #expect(!watcher.isActive)
        watcher.feed()
        watcher.isReferenced = false
        watcher.priority = 1
        watcher.stop()
      }
    }
  }

  @Test func signalIsFreeAgainAfterItsLoop() throws {
    for _ in 0..<2 {
      let loop = try Loop()
      try loop.signal(SIGWINCH).start {}
      #expect(loop.activeCount == 1)
    }
  }

  @Test func loopKeepsActiveWatchersAlive() throws {
    try withLoop { loop in
      var calls = 0
      weak var weakWatcher: TimerWatcher?
      do {
        let watcher = loop.timer(after: .milliseconds(1))
        weakWatcher = watcher
        watcher.start { calls += 1 }
      }
      #expect(weakWatcher != nil)
      loop.run()
      #expect(calls == 1)
      #expect(weakWatcher == nil)
    }
  }

  @Test func inactiveWatchersAndTheirCallbacksAreLetGo() throws {
    final class Canary {}
    try withLoop { loop in
      weak var weakWatcher: IdleWatcher?
      weak var weakCanary: Canary?
      do {
        let watcher = loop.idle()
        let canary = Canary()
        weakWatcher = watcher
        weakCanary = canary
        // A cycle for as long as it is active.
        watcher.start { _ = (watcher, canary) }
        watcher.stop()
      }
      #expect(weakWatcher == nil)
      #expect(weakCanary == nil)
      do {
        let watcher = loop.idle()
        weakWatcher = watcher
        watcher.start { _ = watcher }
      }
      #expect(weakWatcher != nil)
      loop.destroy()
      #expect(weakWatcher == nil)
    }
  }

  @Test func droppedLoopLetsGoOfActiveWatchers() throws {
    weak var weakWatcher: IdleWatcher?
    do {
      let loop = try Loop()
      let watcher = loop.idle()
      weakWatcher = watcher
      watcher.start { _ = watcher }
    }
    #expect(weakWatcher == nil)
  }

  @Test func higherPrioritiesAreCalledFirst() throws {
    try withLoop { loop in
      var order: [Int] = []
      for priority in [0, -2, 2, 1, -1] {
        let watcher = loop.timer(after: .zero)
        watcher.priority = priority
        #expect(watcher.priority == priority)
        watcher.start { order.append(priority) }
      }
      loop.run()
      #expect(order == [2, 1, 0, -1, -2])
    }
  }

  @Test func priorityOfAnActiveWatcherTraps() async {
    await #expect(processExitsWith: .failure) {
      let watcher = try Loop().idle()
      watcher.priority = 1
      watcher.priority = 3
      exit(0)
    }
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let loop = try Loop()
      let watcher = loop.idle()
      watcher.start {}
      watcher.priority = 1
      exit(0)
    }
    #if DEBUG
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("the priority of a watcher was set while it is active"))
    #else
    _ = result
    #endif
  }

  @Test func referencesAreBalanced() throws {
    try withLoop { loop in
      let pair = Pair()
      for (watcher, start) in try everyKind(of: loop, pair) {
        watcher.isReferenced = false
        try start {}
        #expect(loop.activeCount == 0, "\(watcher)")
        #expect(loop.run(.noWait) == false)
        watcher.isReferenced = true
        watcher.isReferenced = true
        #expect(loop.activeCount == 1)
        #expect(loop.run(.noWait) == true)
        watcher.isReferenced = false
        watcher.isReferenced = false
        #expect(loop.activeCount == 0)
        watcher.stop()
        #expect(loop.activeCount == 0)
        watcher.isReferenced = true
        try start {}
        watcher.isReferenced = false
        watcher.stop()
        watcher.stop()
        #expect(loop.activeCount == 0)
        #expect(loop.run(.noWait) == false)
      }
    }
  }

  @Test func expiredUnreferencedTimersStayBalanced() throws {
    try withLoop { loop in
      let keeper = loop.timer(after: .milliseconds(5))
      var order: [String] = []
      keeper.start { order.append("keeper") }
      for _ in 0..<3 {
        let timer = loop.timer(after: .milliseconds(1))
        timer.isReferenced = false
        timer.start { order.append("unreferenced") }
      }
      #expect(loop.activeCount == 1)
      #expect(loop.run() == false)
      #expect(order == ["unreferenced", "unreferenced", "unreferenced", "keeper"])
    }
  }

  @Test func startingAgainGivesAnotherCallback() throws {
    try withLoop { loop in
      var called: [String] = []
      let timer = loop.timer(after: .milliseconds(1))
      timer.start { called.append("first") }
      timer.start { called.append("second") }
      #expect(loop.activeCount == 1)
      loop.run()
      #expect(called == ["second"])
    }
  }

  @Test func stoppingAnotherPendingWatcherCancelsIt() throws {
    try withLoop { loop in
      var called: [Int] = []
      let timers = (0..<2).map { _ in loop.timer(after: .zero) }
      for (index, timer) in timers.enumerated() {
        timer.start {
          called.append(index)
          timers[1 - index].stop()
        }
      }
      loop.run()
      #expect(called.count == 1)
      #expect(loop.activeCount == 0)
    }
  }
}

/// A weak variable that a test may look at after the strong one is gone.
private struct WeakLoop {
  weak var loop: Loop?
  init(_ loop: Loop?) { self.loop = loop }
}
