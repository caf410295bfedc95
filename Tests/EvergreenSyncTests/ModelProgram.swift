// Evergreen: random programs that use the coordination primitives.
// SPDX-License-Identifier: MIT
//
// A program is a few workers that do random steps on what is tested, with random time limits, while
// somebody kills some of them. When nothing can happen any more the model says whether those who
// still wait may; then they are killed, and the model says whether anything is left behind.

import EvergreenBase
import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A rule that a run has broken.
struct Broken: Error, CustomStringConvertible {
  let description: String
}

/// What is tested, and what must be true of it.
protocol Model: AnyObject {
  /// Does something that may wait.
  func step(_ worker: Worker) throws
  /// Nothing can happen any more; `waiting` says what those do who have not ended.
  func checkAtRest(waiting: [String]) throws
  /// All have ended.
  func checkAtEnd() throws
}

final class Worker {
  let number: Int
  let program: Program
  var random: SeededRandom
  /// What it does now, if that may wait.
  private(set) var doing = ""
  private var stepsDone = 0

  init(_ number: Int, _ program: Program) {
    self.number = number
    self.program = program
    random = program.random.split()
  }

  func run(steps: Int) throws {
    for _ in 0..<steps {
      stepsDone += 1
      do {
        try pause()
        if random.oneIn(4) {
          try withTimeout(.milliseconds(random.next(below: 4))) { try program.model.step(self) }
        } else {
          try program.model.step(self)
        }
      } catch is Timeout {
        program.log(self, "timed out")
      }
      doing = ""
    }
  }

  /// Lets others run, or time pass, or neither.
  func pause() throws {
    switch random.next(below: 6) {
    case 0, 1: try Greenlet.yield()
    case 2: try sleep(for: .milliseconds(random.next(below: 4)))
    default: break
    }
  }

  /// A time limit, or none.
  func timeout() -> Duration? {
    random.oneIn(2) ? nil : .milliseconds(random.next(below: 5))
  }

  /// Does what may wait, and checks that it takes no longer than it may, and ends no earlier.
  func wait<R>(
    _ what: String, _ timeout: Duration? = nil, isTimeout: (R) -> Bool = { _ in false },
    _ body: () throws -> R
  ) throws -> R {
    doing = what
    program.log(self, "\(what) \(timeout.map { "\($0)" } ?? "")")
    let began = program.clock.elapsed
    func check(_ isTimeout: Bool) {
      guard let timeout else { return }
      let taken = program.clock.elapsed - began
      if taken > timeout { program.fail("\(what) took \(taken), \(timeout) was allowed") }
      if isTimeout && taken < timeout {
        program.fail("\(what) gave up after \(taken) of \(timeout)")
      }
    }
    do {
      let result = try body()
      doing = ""
      program.log(self, "\(what): \(result)")
      check(isTimeout(result))
      return result
    } catch {
      doing = ""
      program.log(self, "\(what): \(error)")
      check(false)
      throw error
    }
  }
}

final class Program {
  let model: any Model
  let clock: VirtualClock
  fileprivate(set) var random: SeededRandom
  private var workers: [(worker: Worker, greenlet: Greenlet<Void>)] = []
  private var failure: Broken?
  private let isLogging = getenv("EVERGREEN_SEED") != nil

  init(_ simulation: Simulation, _ model: any Model) {
    self.model = model
    clock = simulation.clock
    random = simulation.random
  }

  /// Where one seed alone runs, each step is told.
  func log(_ worker: Worker?, _ text: @autoclosure () -> String) {
    guard isLogging else { return }
    warn("\(clock.elapsed) \(worker.map { "worker \($0.number)" } ?? "-"): \(text())")
  }

  func fail(_ text: String) {
    if failure == nil { failure = Broken(description: text) }
    log(nil, text)
  }

  private func hire() {
    let worker = Worker(workers.count, self)
    let steps = random.next(below: 10) + 1
    workers.append((worker, spawn { try worker.run(steps: steps) }))
  }

  func run() throws {
    for _ in 0..<random.next(below: 6) + 2 { hire() }
    let blows = random.next(below: 5)
    for _ in 0..<blows {
      if random.oneIn(2) { try sleep(for: .milliseconds(random.next(below: 6))) }
      for _ in 0..<random.next(below: 8) { try Greenlet.yield() }
      if random.oneIn(3) { hire() }
      let (worker, greenlet) = workers[random.next(below: workers.count)]
      log(worker, "is killed")
      try greenlet.kill(waiting: false)
    }
    try Hub.current.join()
    try checkErrors()
    let left = workers.filter { !$0.greenlet.isReady }
    log(nil, "at rest")
    if let idle = left.first(where: { $0.worker.doing.isEmpty }) {
      throw Broken(description: "worker \(idle.worker.number) waits for nothing known")
    }
    try model.checkAtRest(waiting: left.map(\.worker.doing))
    for (_, greenlet) in left.shuffled(using: &random) { try greenlet.kill(waiting: false) }
    try Hub.current.join()
    if let (worker, _) = workers.first(where: { !$0.greenlet.isReady }) {
      throw Broken(description: "worker \(worker.number) survived: \(worker.doing)")
    }
    try checkErrors()
    log(nil, "at the end")
    try model.checkAtEnd()
    workers = []  // which hold this
  }

  private func checkErrors() throws {
    if let failure { throw failure }
    for (_, greenlet) in workers {
      if let error = greenlet.error, !(error is GreenletExit) { throw error }
    }
  }
}

/// Several things in one program.
final class Mixture: Model {
  let parts: [any Model]

  init(_ parts: [any Model]) { self.parts = parts }

  func step(_ worker: Worker) throws {
    try parts[worker.random.next(below: parts.count)].step(worker)
  }

  func checkAtRest(waiting: [String]) throws {
    for part in parts { try part.checkAtRest(waiting: waiting) }
  }

  func checkAtEnd() throws {
    for part in parts { try part.checkAtEnd() }
  }
}

func hold(_ isTrue: @autoclosure () throws -> Bool, _ rule: @autoclosure () -> String) throws {
  if try !isTrue() { throw Broken(description: rule()) }
}
