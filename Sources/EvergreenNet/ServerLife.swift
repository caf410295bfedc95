// Evergreen: what servers have in common: taking, failing, stopping, and being told to by a signal.
// SPDX-License-Identifier: MIT
//
// Each handler is a greenlet in a pool. Whoever stops the server waits until the pool is empty, then
// kills what is left. A handler that stops its own server is left out of both, or it would wait for
// itself, and so are others that are about the same. Whoever is no handler waits for these too: they
// go on, and `serveForever` returns when they have ended.
//
// There is one event, set whenever something has changed; whoever waits looks what it was.

import EventLoop
import EvergreenBase
import EvergreenHub
package import EvergreenSync
import Greenlets

/// A server, to its life.
package protocol LivingServer: AnyObject {
  var life: ServerLife { get }
  func start() throws
  func stop(timeout: Duration?) throws
  /// Takes nothing more, and lets go of the socket; does not wait.
  func close()
}

/// What servers have in common.
package final class ServerLife {
  /// The handlers.
  package let pool: Pool
  /// For texts.
  private let address: SocketAddress
  private let operation: SocketError.Operation
  private let hub = Hub.current
  private let news = Event()
  private var stoppingHandlers: Set<AnyGreenlet> = []
  private var drainers = 0
  private var callersOfServeForever = 0
  private var signals = 0
  private var endsAtOnce = false
  /// Of the last `stop`.
  private var patience: Duration?
  /// A `stop` has done its work.
  private var isStopped = false
  /// What has ended the server of itself.
  package private(set) var failure: (any Error)?
  /// On the hub's clock, in nanoseconds; no warning is due before.
  private var nextWarning: UInt64 = 0

  /// How long those that were killed may take to clean up.
  private static let grace = Duration.seconds(5)

  /// - Parameters:
  ///   - operation: How it takes what comes, for texts.
  ///   - address: Where.
  ///   - size: How many handlers there may be; `nil` for no limit.
  package init(_ operation: SocketError.Operation, at address: SocketAddress, size: Int?) {
    self.address = address
    self.operation = operation
    pool = Pool(size: size)
  }

  // MARK: Taking

  /// Takes what comes, as long as there is room for its handler, until the caller is killed.
  ///
  /// - Parameters:
  ///   - budget: How many may be taken in a row before others run.
  ///   - take: Takes one and starts its handler.
  /// - Throws: The ``SocketError`` after which nothing can come any more; that by which it is killed.
  package func takeForever(budget: () -> Int, _ take: () throws -> Void) throws {
    var pause = Duration.milliseconds(10)
    var losses = 0
    var inARow = 0
    while true {
      try pool.waitAvailable()
      do {
        try take()
        pause = .milliseconds(10)
        losses = 0
      } catch let error as SocketError where !error.isFatalForListener {
        // Out of descriptors, or what nobody knows: it may pass.
        losses += 1
        if !error.concernsOnePeer || losses > 100 {
          complain("cannot \(operation) at \(address): \(error.reason); trying again in \(pause)")
          try sleep(for: pause)
          pause = min(pause * 2, .seconds(1))
        }
      }
      inARow += 1
      if inARow >= budget() {
        inARow = 0
        try Greenlet.yield()
      }
    }
  }

  /// Warns once a second at most: where the process is at its limit, each success makes the next
  /// failure the first of its kind.
  private func complain(_ text: String) {
    let now = hub.readClock()
    if now < nextWarning { return }
    nextWarning = now + 1_000_000_000
    warn(text)
  }

  /// Whoever takes what comes has ended, and nobody wanted that: the server cannot go on.
  /// ``serveForever(_:stoppingOn:timeout:)`` throws `error`; if nobody is there, this does.
  package func fail(with error: any Error) throws {
    noteFailure(error)
    if callersOfServeForever == 0 { throw error }
  }

  /// As ``fail(with:)``, where `error` has been reported already.
  package func noteFailure(_ error: any Error) {
    // A kill is meant for the one greenlet alone.
    failure = error is GreenletExit ? SocketError.closed(operation, address) : error
    news.set()
  }

  // MARK: Stopping

  /// Waits for the handlers, then kills them. If one of them calls, it and the others that do are
  /// left out.
  ///
  /// - Parameters:
  ///   - timeout: How long they may take to end by themselves; `nil` for ever.
  ///   - close: Called when the handlers are through, those that were left out too.
  /// - Throws: What is thrown into the caller while it waits.
  package func stop(timeout: Duration?, closing close: @escaping () -> Void = {}) throws {
    let me = AnyGreenlet.current(in: pool)
    if let me { stoppingHandlers.insert(me) }
    news.set()  // for the others that are in here
    defer {
      if let me {
        stoppingHandlers.remove(me)
        _ = me.rawLink(close)
      } else {
        close()
      }
      patience = timeout
      isStopped = true
      news.set()
    }
    // Not those that stop the server, unless the caller is none of them.
    var victims: [AnyGreenlet] {
      let all = pool.greenlets.sorted { $0.id < $1.id }
      return me == nil ? all : all.filter { !stoppingHandlers.contains($0) }
    }
    func drain(_ timeout: Duration?) throws -> Bool {
      try wait(until: Deadline(after: timeout, on: hub)) {
        pool.count <= (me == nil ? 0 : stoppingHandlers.count)
      }
    }
    if try drain(timeout) { return }
    try killAll(victims, waiting: false)
    if try drain(Self.grace) || endsAtOnce { return }
    warn(
      "the server at \(address) has stopped, but these handlers were killed and go on: "
        + victims.map(\.description).joined(separator: ", "))
  }

  private func wait(until deadline: Deadline, _ isDrained: () -> Bool) throws -> Bool {
    drainers += 1
    pool.onLeave = { [news] in news.set() }
    defer {
      drainers -= 1
      if drainers == 0 { pool.onLeave = nil }
    }
    while !isDrained() && !endsAtOnce {
      news.clear()
      guard try news.wait(timeout: deadline.remaining(on: hub)) else { break }
    }
    return isDrained()
  }

  // MARK: Serving

  /// Starts the server and waits until it has been stopped, by a call, a signal or a failure.
  package func serveForever(
    _ server: some LivingServer, stoppingOn signals: [Int32], timeout: Duration?,
    whenReady: () throws -> Void
  ) throws {
    var handlers: [SignalHandler] = []
    defer { for handler in handlers { handler.cancel() } }
    for signal in Set(signals).sorted() {
      handlers.append(try hub.onSignal(signal) { [self] in noteSignal() })
    }
    try server.start()
    callersOfServeForever += 1
    defer { callersOfServeForever -= 1 }
    do {
      try whenReady()
      while !isStopped && failure == nil && self.signals == 0 {
        news.clear()
        try news.wait()
      }
      // Also after `stop`: a handler that called it may go on still.
      let isCalled = isStopped
      try server.stop(timeout: isCalled ? patience : failure == nil ? timeout : .seconds(1))
    } catch {
      server.close()
      try? killAll(pool.greenlets, waiting: false)
      // For others who serve.
      patience = .zero
      isStopped = true
      news.set()
      throw error
    }
    if let failure { throw failure }
  }

  private func noteSignal() {
    endsAtOnce = isStopped || signals > 0
    signals += 1
    news.set()
  }
}

extension AnyGreenlet {
  /// The calling greenlet, if it is in `pool`.
  fileprivate static func current(in pool: Pool) -> AnyGreenlet? {
    guard let current = AnyGreenlet.currentIfAny else { return nil }
    return pool.contains(current) ? current : nil
  }
}
