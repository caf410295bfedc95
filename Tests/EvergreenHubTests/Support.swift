// Evergreen: helpers of the hub's tests
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenTesting
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

struct OneError: Error, Equatable {
  var number = 0
}

/// What happened, in order; for the greenlets of one hub.
final class Log {
  private(set) var entries: [String] = []

  func add(_ entry: String) { entries.append(entry) }

  func clear() { entries = [] }
}

/// The same for several threads.
final class SharedLog: Sendable {
  private let state = Guarded<[String]>([])

  var entries: [String] { state.withLock { $0 } }

  func has(_ part: String) -> Bool { entries.contains { $0.contains(part) } }

  func add(_ entry: String) { state.withLock { $0.append(entry) } }
}

/// A variable that several greenlets of one hub share.
final class Box<Value> {
  var value: Value

  init(_ value: Value) { self.value = value }
}

/// Carries a reference to where it does not belong, for tests that such use is refused.
struct Smuggled<Value>: @unchecked Sendable {
  // Unchecked: on purpose; the program is expected to end.
  let value: Value
}

/// The error that `body` throws, or `nil`.
func thrown(by body: () throws -> Void) -> (any Error)? {
  do {
    try body()
    return nil
  } catch {
    return error
  }
}

/// Computes for a while, giving nobody else a turn.
func compute(for duration: Duration) {
  let end = ContinuousClock.now.advanced(by: duration)
  while ContinuousClock.now < end {}
}

/// Computes until the watchdog has told of it, which a busy machine may delay, and on: it tells once.
func compute(until isTold: () -> Bool) {
  let end = ContinuousClock.now.advanced(by: longest)
  while !isTold(), ContinuousClock.now < end {}
  compute(for: .milliseconds(300))
}

let longest = Duration.seconds(30)

/// Blocks the thread in a call. What the watchdog sees of it is the same each time.
@inline(never)
func block(for duration: Duration = longest, until isTold: () -> Bool = { false }) {
  let end = ContinuousClock.now.advanced(by: duration)
  repeat { usleep(500_000) } while !isTold() && ContinuousClock.now < end
}

/// The same in another place, and so different that the compiler does not make one function of both.
@inline(never)
func blockElsewhere(until isTold: () -> Bool) {
  let end = ContinuousClock.now.advanced(by: longest)
  repeat { _ = poll(nil, 0, 500) } while !isTold() && ContinuousClock.now < end
}

/// A thread that is joined by whoever started it.
struct OwnThread: @unchecked Sendable {
  // Unchecked: a pthread_t is a number here and an opaque pointer elsewhere; it never changes.
  private let thread: pthread_t

  init(_ body: @escaping @Sendable () -> Void) {
    final class Body {
      let run: @Sendable () -> Void
      init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
    let argument = Unmanaged.passRetained(Body(body)).toOpaque()
    #if canImport(Darwin)
    var thread: pthread_t?
    let result = pthread_create(
      &thread, nil,
      {
        Unmanaged<Body>.fromOpaque($0).takeRetainedValue().run()
        return nil
      }, argument)
    self.thread = thread!
    #else
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      {
        Unmanaged<Body>.fromOpaque($0!).takeRetainedValue().run()
        return nil
      }, argument)
    self.thread = thread
    #endif
    precondition(result == 0)
  }

  func join() { pthread_join(thread, nil) }
}

func setErrno(_ number: Int32) { errno = number }

func getErrno() -> Int32 { errno }

/// Where a thread waits until another one lets it go on.
final class ThreadGate: @unchecked Sendable {
  // Unchecked: the semaphore is made for that, and its address never changes.
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { sem_init(semaphore, 0, 0) }

  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }

  func open() { sem_post(semaphore) }

  func wait() { while sem_wait(semaphore) != 0 {} }
}

/// What a child process wrote to its standard error.
func text(of result: ExitTest.Result?) -> String {
  String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
}
