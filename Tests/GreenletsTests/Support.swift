// Evergreen: helpers of the tests of greenlets
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

struct OneError: Error, Equatable {
  var text = ""
}

/// What happened, in its order.
final class Log {
  var lines: [String] = []
  func callAsFunction(_ line: String) { lines.append(line) }
}

/// A variable that closures share.
final class Box<Value> {
  var value: Value
  init(_ value: Value) { self.value = value }
}

/// Carries what is not Sendable to a thread that knows what it may do with it.
final class Smuggled<Value>: @unchecked Sendable {
  var value: Value
  init(_ value: Value) { self.value = value }
}

final class Weak<Object: AnyObject>: @unchecked Sendable {
  weak var value: Object?
  init(_ value: Object) { self.value = value }
}

/// Counts the instances that live; a counter for each test.
final class Tracked: Sendable {
  final class Counter: Sendable {
    private let made = Atomic(0)
    private let ended = Atomic(0)

    func begin() { made.add(1, ordering: .relaxed) }
    func end() { ended.add(1, ordering: .relaxed) }
    var all: Int { made.load(ordering: .relaxed) }
    var live: Int { all - ended.load(ordering: .relaxed) }
  }

  let counter: Counter

  init(_ counter: Counter) {
    self.counter = counter
    counter.begin()
  }

  deinit { counter.end() }
}

/// Calls a closure when its last reference goes.
final class AtDeinit {
  private let action: () -> Void
  init(_ action: @escaping () -> Void) { self.action = action }
  deinit { action() }
}

/// Where greenlets of a hub wait until somebody opens it.
final class Gate: WaitListOwner {
  var waiters = WaitList()
  private(set) var isOpen = false

  func wait() throws {
    if !isOpen { _ = try Hub.current.wait(WaitReason("the gate"), until: .never, in: self) }
  }

  func open() {
    isOpen = true
    waiters.signalAll()
  }

  var count: Int { waiters.count }
}

/// Runs `body` on a thread of its own, without a hub, and waits for the thread's end.
@discardableResult
func onThread<R>(_ body: @escaping @Sendable () throws -> R) throws -> R {
  let result = Smuggled<Result<R, any Error>?>(nil)
  let thread = startThread { result.value = Result { try body() } }
  pthread_join(thread, nil)
  return try result.value!.get()
}

/// Contexts and stacks of this thread that are in use.
struct InUse: Equatable {
  var contexts = evg_thread_self().pointee.live
  var stacks = evg_thread_self().pointee.stacks_in_use
}

/// Ends a child process of an exit test if what must hold does not.
func require(_ holds: Bool, _ what: String, line: UInt = #line) {
  if holds { return }
  fail("line \(line): \(what)")
}

func fail(_ why: String) -> Never {
  let text = "FAILED: \(why)\n"
  _ = text.withCString { write(STDERR_FILENO, $0, strlen($0)) }
  _exit(3)
}

/// Hides a value from the optimiser.
@inline(never)
func opaque<T>(_ value: T) -> T { value }

/// What an exit test wrote to standard error.
func errorText(of result: ExitTest.Result?) -> String {
  String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
}

enum Rounding {
  static let up: Int32 = FE_UPWARD
  static let down: Int32 = FE_DOWNWARD
  static let zero: Int32 = FE_TOWARDZERO
  static let nearest: Int32 = FE_TONEAREST
}

/// Uses that many bytes of stack, in frames of which none is large. Returns how many frames. The
/// address sanitizer keeps variables elsewhere, so that nothing can be measured.
@inline(never)
func useStack(_ bytes: Int, below top: UInt? = nil) -> Int {
  if Sanitizer.address { return 2 }
  var local = 0
  let here = withUnsafeMutablePointer(to: &local) { UInt(bitPattern: $0) }
  let top = top ?? here
  if top - here >= bytes { return 1 }
  return opaque(useStack(bytes, below: top)) + 1
}
