// Evergreen: the main queue, and with it the main actor, served by the hub of the main thread.
// SPDX-License-Identifier: MIT
//
// Whoever runs the main thread's loop has to serve libdispatch's main queue, where the jobs of the main
// actor go, too. It tells of work by a descriptor (an eventfd), and one call does what is there: the two
// functions below, which Foundation's run loop uses as well.

import CConcurrency
import CLibev
import EventLoop
import EvergreenBase
public import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Hub {
  /// Serves the main dispatch queue, and with it `MainActor`, from a greenlet of this hub.
  ///
  /// ```swift
  /// Hub.current.serveMainQueue()
  /// let title = try Hub.current.await { await model.title }  // of a class that is @MainActor
  /// ```
  ///
  /// What runs there may wait in green functions; the next of the main queue's work comes after it. While
  /// it is served the hub does not take a standstill for a deadlock. Once is enough; a further call gives
  /// the same greenlet.
  ///
  /// - Returns: The greenlet that serves. Kill it to end that.
  /// - Precondition: It is the hub of the process's main thread, and nobody else runs the main queue:
  ///   neither `dispatchMain()` nor an `async` main function.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: has none.
  @discardableResult
  public func serveMainQueue() -> Greenlet<Void> {
    checkIsCurrent("a hub")
    let key = ObjectIdentifier(MainQueue.self)
    if let queue = attachments[key] as? MainQueue, !queue.greenlet.isReady { return queue.greenlet }
    #if os(Linux)
    require(
      evg_is_main_thread(), "the main queue is served by the hub of the main thread alone")
    let descriptor = evg_main_queue_descriptor()
    require(
      descriptor >= 0, "libdispatch, whose main queue is to be served, is not in this program")
    let greenlet = spawn { [unowned self] in try serve(descriptor) }
    #else
    let greenlet = spawn { fatal("the main queue can be served on Linux alone") }
    #endif
    greenlet.name = "main queue"
    attachments[key] = MainQueue(greenlet)
    return greenlet
  }

  private func serve(_ descriptor: Int32) throws {
    let io = UnsafeMutablePointer<evg_io>.allocate(capacity: 1)
    evg_io_init(io, descriptor, evg_read, true, ioIsReady, nil)
    defer {
      stop(io)
      io.deallocate()
    }
    while true {
      var count: UInt64 = 0
      _ = read(descriptor, &count, 8)
      evg_serve_main_queue()
      _ = try wait(for: io, WaitReason("the main queue, readable descriptor"), until: .never, .once)
    }
  }
}

private final class MainQueue {
  let greenlet: Greenlet<Void>
  init(_ greenlet: Greenlet<Void>) { self.greenlet = greenlet }
}
