// Evergreen: running a test's body in greenlets.
// SPDX-License-Identifier: MIT

import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Runs `body` on a thread of its own, which has a hub, and checks that nothing is left behind.
///
/// ```swift
/// @Test func echoes() async throws {
///   let answer = try await runGreen {
///     let (one, other) = try Socket.pair()
///     spawn { while let chunk = try other.receive(upTo: 64) { try other.sendAll(chunk) } }
///     try one.sendAll("hello")
///     return try one.receive(exactly: 5)
///   }
///   #expect(answer == Array("hello".utf8))
/// }
/// ```
///
/// Tests are tasks and may not block their thread, so none of them is used. `#expect` in the body,
/// and in the greenlets that it spawns, is filed under the right test. Greenlets that are left when
/// `body` returns are killed.
///
/// - Parameters:
///   - seed: Decides in which order greenlets run that are ready; `nil`: first come, first served. See
///     ``simulate(seed:_:)``, which is better at that: real time is never the same again.
///   - body: The code of the test; it is the thread's main greenlet.
/// - Returns: What `body` returns.
/// - Throws: What `body` throws; ``LeakReport`` if greenlets, stacks, timers, watches or, where
///   tests run one by one, descriptors are left.
public func runGreen<R: Sendable>(
  seed: UInt64? = nil, _ body: @escaping @Sendable () throws -> R
) async throws -> R {
  try await onOwnThread {
    let before = DescriptorCount.ifReliable()
    var remains: HubRemains?
    let result = try Hub.withHub(loop: nil, inspecting: { remains = $0 }) { hub in
      hub.schedule(by: seed)
      return try body()
    }
    try LeakReport.check(remains, descriptorsBefore: before)
    return result
  }
}

/// ``runGreen(seed:_:)`` for the child process of an exit test, where descriptors are not counted: what the
/// child's start opens and closes meanwhile is not the test's.
package func runGreenInChild(_ body: @escaping @Sendable () throws -> Void) async throws {
  unsetenv("EVERGREEN_SERIAL_TESTS")
  try await runGreen(body)
}

/// As ``runGreen(seed:_:)``, in virtual time: whenever everybody waits for time to pass, it has passed.
///
/// `sleep(for: .seconds(3600))` takes no time at all, and timers fire in their order. Descriptors
/// still work; what comes from outside the process comes in real time, so use in-memory pairs. So
/// does what threads do: time passes while a greenlet waits for a thread pool.
///
/// - Parameters:
///   - seed: Decides in which order greenlets run that are ready, and timers fire that are due; `nil`:
///     first come, first served. See ``simulate(seed:_:)``.
///   - body: The code of the test; it is the thread's main greenlet.
/// - Returns: What `body` returns.
/// - Throws: As ``runGreen(seed:_:)``, but descriptors are not counted.
public func runGreenInVirtualTime<R: Sendable>(
  seed: UInt64? = nil, _ body: @escaping @Sendable (VirtualClock) throws -> R
) async throws -> R {
  try await onOwnThread {
    // Not the numbers of the scheduler: seeds are small, so they are far from each other.
    let loop = try VirtualLoop(random: seed.map { SeededRandom(seed: $0 &+ 1 << 32) })
    var remains: HubRemains?
    let result = try Hub.withHub(loop: loop, inspecting: { remains = $0 }) { hub in
      hub.schedule(by: seed)
      return try body(VirtualClock(loop: loop))
    }
    try LeakReport.check(remains, descriptorsBefore: nil)
    return result
  }
}

extension Hub {
  fileprivate func schedule(by seed: UInt64?) {
    guard let seed else { return }
    var random = SeededRandom(seed: seed)
    choosesNext = { random.next(below: $0) }
    lots = ~seed
  }
}

private func onOwnThread<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R
{
  let executor = OneThreadExecutor()
  defer { executor.stop() }
  return try await Task(executorPreference: executor) { try body() }.value
}
