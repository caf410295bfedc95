// Evergreen: tests of hubs as executors
// SPDX-License-Identifier: MIT

import EvergreenConcurrency
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

/// A hub on a thread of its own, for async tests.
@discardableResult
func withHubThread<R: Sendable>(
  _ body: @escaping @Sendable (HubExecutor) async throws -> R
) async throws -> R {
  try await warmUp()
  let (stream, continuation) = AsyncStream<HubExecutor>.makeStream()
  let (ends, ending) = AsyncStream<Void>.makeStream()
  async let hub: Void = runGreen {
    let hub = Hub.current
    continuation.yield(hub.executor)
    continuation.finish()
    try hub.await { for await _ in ends {} }
  }
  let result: Result<R, any Error>
  do {
    result = .success(try await body(stream.first { _ in true }!))
  } catch {
    result = .failure(error)
  }
  ending.finish()
  try await hub
  return try result.get()
}

/// Green functions for async code.
func greenSleep(_ milliseconds: Int) throws { try sleep(for: .milliseconds(milliseconds)) }

actor Counter {
  private let hub: HubExecutor
  let log: SharedLog
  var count = 0

  init(on hub: HubExecutor, _ log: SharedLog = SharedLog()) {
    self.hub = hub
    self.log = log
  }

  nonisolated var unownedExecutor: UnownedSerialExecutor { hub.serial.asUnownedSerialExecutor() }

  func add() -> Bool {
    count += 1
    return hub.isCurrent
  }

  /// No other method may come between.
  func addSlowly(_ name: String) throws {
    log.add("\(name) begins")
    let before = count
    try greenSleep(3)
    count = before + 1
    log.add("\(name) ends")
  }
}

@Suite("HubExecutor", .timeLimit(.minutes(1)))
struct HubExecutorTests {
  // MARK: run

  @Test func greenCodeRunsInAGreenletOnTheHub() async throws {
    try await withHubThread { hub in
      let (isThere, isGreenlet) = try await hub.run {
        try sleep(for: .milliseconds(1))
        return (hub.isCurrent, Greenlet.current !== Hub.current.main)
      }
      #expect(isThere)
      #expect(isGreenlet)
      #expect(!hub.isCurrent)
    }
  }

  @Test func errorsComeThrough() async throws {
    try await withHubThread { hub in
      await #expect(throws: OneError(number: 1)) {
        let _: Int = try await hub.run {
          try sleep(for: .milliseconds(1))
          throw OneError(number: 1)
        }
      }
    }
  }

  final class Unshared { var number = 5 }

  @Test func aValueThatIsNotSendableIsHandedOver() async throws {
    try await withHubThread { hub in
      let one = try await hub.run { Unshared() }
      #expect(one.number == 5)
    }
  }

  @Test func manyRunsWaitAtOnce() async throws {
    try await withHubThread { hub in
      let sum = try await withThrowingTaskGroup(of: Int.self) { group in
        for number in 0..<500 {
          group.addTask {
            try await hub.run {
              try sleep(for: .milliseconds(number % 5))
              return number
            }
          }
        }
        return try await group.reduce(0, +)
      }
      #expect(sum == 499 * 250)
    }
  }

  @Test func cancellingKillsTheGreenlet() async throws {
    try await withHubThread { hub in
      let log = SharedLog()
      let task = Task {
        try await hub.run {
          defer { log.add("cleaned up") }
          log.add("begins")
          do { try sleep(for: .seconds(3600)) } catch {
            log.add("\(type(of: error))")
            throw error
          }
        }
      }
      while log.entries.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      #expect(log.entries == ["begins", "GreenletExit", "cleaned up"])
    }
  }

  @Test func aTaskThatIsCancelledAlreadyRunsNothing() async throws {
    try await withHubThread { hub in
      let log = SharedLog()
      let task = Task {
        while !Task.isCancelled { await Task.yield() }
        try await hub.run { log.add("ran") }
      }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      #expect(log.entries == [])
    }
  }

  @Test func taskLocalsAreSeenInsideAndInChildren() async throws {
    try await withHubThread { hub in
      let seen = try await Context.$request.withValue("7") {
        try await hub.run {
          let child = spawn { () -> String in
            try sleep(for: .milliseconds(1))
            return Context.request
          }
          let there = try Hub.current.await { Context.request }
          return [Context.request, try child.get(), there]
        }
      }
      #expect(seen == ["7", "7", "7"])
      #expect(try await hub.run { Context.request } == "none")
    }
  }

  @Test func aHubThatHasEndedIsAnErrorAndNoHang() async throws {
    let hub = try await runGreen { Hub.current.executor }
    await #expect(throws: HubEnded.self) { try await hub.run { 1 } }
    #expect(!hub.mailbox.post {})
  }

  @Test func aHubThatEndsMeanwhileEndsWhatRuns() async throws {
    let (stream, continuation) = AsyncStream<HubExecutor>.makeStream()
    let log = SharedLog()
    let task = Task {
      let hub = await stream.first { _ in true }!
      try await hub.run {
        log.add("begins")
        try sleep(for: .seconds(3600))
      }
    }
    try await runGreen {
      continuation.yield(Hub.current.executor)
      while log.entries.isEmpty { try sleep(for: .milliseconds(1)) }
    }
    await #expect(throws: GreenletExit.self) { try await task.value }
  }

  @Test func whatIsEnqueuedWhileTheHubEndsIsNeverStuck() async throws {
    for _ in 0..<30 {
      let (stream, continuation) = AsyncStream<HubExecutor>.makeStream()
      let task = Task {
        let hub = await stream.first { _ in true }!
        return await withTaskGroup(of: Int.self) { group in
          for _ in 0..<8 {
            group.addTask {
              for number in 0... {
                do { try await hub.run { try Greenlet.yield() } } catch { return number }
              }
              return 0
            }
          }
          return await group.reduce(0, +)
        }
      }
      try await runGreen {
        continuation.yield(Hub.current.executor)
        try sleep(for: .milliseconds(1))
      }
      _ = await task.value
    }
  }

  @Test func holdingItKeepsTheHubWaiting() async throws {
    try await withHubThread { hub in
      let event = try await hub.run { Smuggled(value: Event()) }
      async let waiter: Bool = hub.run { try event.value.wait(timeout: .seconds(30)) }
      try await Task.sleep(for: .milliseconds(5))
      try await hub.run { event.value.set() }
      #expect(try await waiter)
    }
  }

  // MARK: Tasks

  @Test func aTaskStaysOnTheHub() async throws {
    try await withHubThread { hub in
      let places = await Task(executorPreference: hub) {
        var places = [hub.isCurrent]
        for _ in 0..<3 {
          await Task.yield()
          places.append(hub.isCurrent)
        }
        async let child = hub.isCurrent
        places.append(await child)
        return places
      }.value
      #expect(places == [true, true, true, true, true])
    }
  }

  @Test func asyncCodeOnTheHubMayWaitInGreenFunctions() async throws {
    try await withHubThread { hub in
      let log = SharedLog()
      let tasks = (0..<3).map { number in
        Task(executorPreference: hub) {
          log.add("begins")
          try greenSleep(5)
          await Task.yield()
          try greenSleep(1)
          log.add("ends")
        }
      }
      for task in tasks { try await task.value }
      // Each waited without the others.
      #expect(log.entries == ["begins", "begins", "begins", "ends", "ends", "ends"])
    }
  }

  @Test func eachTaskKeepsItsIdentityAndItsLocals() async throws {
    try await withHubThread { hub in
      let tasks = (0..<20).map { number in
        Context.$request.withValue("\(number)") {
          Task(executorPreference: hub) {
            for _ in 0..<3 {
              let before = withUnsafeCurrentTask { $0.hashValue }
              try greenSleep(1)
              await Task.yield()
              let after = withUnsafeCurrentTask { $0.hashValue }
              if before != after || Context.request != "\(number)" { return false }
            }
            return true
          }
        }
      }
      for task in tasks {
        let isItself = try await task.value
        #expect(isItself)
      }
    }
  }

  @Test func greenletsBesideATaskSeeNone() async throws {
    try await withHubThread { hub in
      let seesTask = try await hub.run {
        try spawn { withUnsafeCurrentTask { $0 != nil } }.get()
      }
      #expect(!seesTask)
    }
  }

  // MARK: Actors

  @Test func anActorLivesOnTheHub() async throws {
    try await withHubThread { hub in
      let counter = Counter(on: hub)
      #expect(await counter.add())
      #expect(await counter.add())
      #expect(await counter.count == 2)
    }
  }

  @Test func anActorsMethodsDoNotOverlapEvenIfOneWaits() async throws {
    try await withHubThread { hub in
      let counter = Counter(on: hub)
      let tasks = ["a", "b", "c"].map { name in Task { try await counter.addSlowly(name) } }
      for task in tasks { try await task.value }
      #expect(await counter.count == 3)
      let entries = counter.log.entries
      for pair in stride(from: 0, to: entries.count, by: 2) {
        #expect(entries[pair].dropLast(7) == entries[pair + 1].dropLast(5), "\(entries)")
      }
    }
  }

  @Test func greenletsAreIsolatedToTheActor() async throws {
    try await withHubThread { hub in
      let counter = Counter(on: hub)
      let count = try await hub.run {
        try spawn {
          counter.assumeIsolated { counter in
            counter.count += 5
            return counter.count
          }
        }.get()
      }
      #expect(count == 5)
    }
  }

  @Test func anotherThreadIsNotIsolatedToTheActor() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await runGreenInChild {
        let counter = Counter(on: Hub.current.executor)
        _ = startThread { counter.assumeIsolated { $0.count = 1 } }
        try sleep(for: .seconds(10))
      }
    }
    // The runtime asks `isIsolatingCurrentContext`, or `checkIsolated`, and says so in its words or ours.
    #expect(!text(of: result).isEmpty)
  }

  @Test func anActorOutlivesItsHub() async throws {
    let counter = try await runGreen { Counter(on: Hub.current.executor) }
    let tasks = (0..<50).map { _ in Task { await counter.add() } }
    for task in tasks { #expect(await !task.value) }
    #expect(await counter.count == 50)
  }
}
