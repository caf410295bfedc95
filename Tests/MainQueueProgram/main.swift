// Evergreen: a program whose main thread's hub serves the main queue; run by tests.
// SPDX-License-Identifier: MIT

import Dispatch
import Evergreen
import Glibc

@MainActor final class Model {
  var count = 0

  func add() -> Int {
    count += 1
    return count
  }

  /// Waits in a green function, on the main actor.
  func addSlowly() throws -> Int {
    try takeABreak()
    return add()
  }
}

func takeABreak() throws { try sleep(for: .milliseconds(5)) }

let mainThread = pthread_self()
func isMainThread() -> Bool { pthread_equal(mainThread, pthread_self()) != 0 }

let model = Model()
let hub = Hub.current
let server = hub.serveMainQueue()
precondition(hub.serveMainQueue() === server)

// Other greenlets run meanwhile.
var ticks = 0
let ticker = spawn { while true { try sleep(for: .milliseconds(1)); ticks += 1 } }

let first = try hub.await {
  let onMain = await MainActor.run { isMainThread() }
  return onMain ? await model.add() : -1
}
print("the main actor counts", first)
let second = try hub.await { try await model.addSlowly() }
print("and waits", second, ticks > 0)

let done = AsyncResult<Bool>()
let completer = done.completer
DispatchQueue.global().async { DispatchQueue.main.async { completer.set(isMainThread()) } }
print("the main queue runs here:", try done.get())

let third = spawn { MainActor.assumeIsolated { model.add() } }
print("a greenlet is on the main actor:", try third.get())

try ticker.kill()
try server.kill()
print("then:", try hub.join(timeout: .seconds(10)))
