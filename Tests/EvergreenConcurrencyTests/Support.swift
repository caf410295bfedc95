// Evergreen: helpers of the tests of async code, threads and several hubs
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenTesting
import Testing

struct OneError: Error, Equatable {
  var number = 0
}

/// What happened, in order; for several threads.
final class SharedLog: Sendable {
  private let state = Guarded<[String]>([])

  var entries: [String] { state.withLock { $0 } }

  func add(_ entry: String) { state.withLock { $0.append(entry) } }
}

/// A variable that several threads share.
final class Shared<Value: Sendable>: Sendable {
  private let state: Guarded<Value>

  init(_ value: Value) { state = Guarded(value) }

  var value: Value {
    get { state.withLock { $0 } }
    set { state.withLock { $0 = newValue } }
  }

  func change<R>(_ body: (inout Value) -> R) -> R { state.withLock { body(&$0) } }
}

/// Carries a reference to where it does not belong.
struct Smuggled<Value>: @unchecked Sendable {
  // Unchecked: on purpose.
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

/// What a child process wrote to its standard error.
func text(of result: ExitTest.Result?) -> String {
  String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
}

/// Has libdispatch open what it keeps for good, lest it count as a test's.
func warmUp() async throws { try await Task.sleep(for: .milliseconds(1)) }
