// Evergreen: small work, one test per run: `micro TEST N` prints one line of JSON.
// SPDX-License-Identifier: MIT
//
// {"n":…,"ns":…,"cpu_ns":…,"rss_bytes":…}: how many operations there were, and what one of them
// took of wall time, of CPU time and of memory. Status 2 for a test that it does not have or an N
// that is no number; 1 if the test failed.

let tests: [(name: String, run: (Int) throws -> Report)] = [
  ("spawn_join", spawnJoin),
  ("spawn_join_seq", spawnJoinSequentially),
  ("switch_yield", switchYield),
  ("switch_raw", switchRaw),
  ("sleepers", sleepers),
  ("sleepers_1m", { _ in try sleepers(1_000_000) }),
  ("timers", timers),
  ("timers_churn", timersChurn),
  ("channel", channel),
  ("queue", queue),
  ("select", selectTwo),
  ("semaphore", semaphore),
  ("getaddrinfo", lookUpNames),
  ("hub_await", awaitTask),
  ("hub_await_here", awaitTaskHere),
  ("hub_call", callHub),
  ("hub_ping", pingHub),
  ("hub_stream", streamToHub),
]

let known = tests.map(\.name).joined(separator: ", ")
let arguments = CommandLine.arguments
guard arguments.count == 3 else {
  fail("usage: micro TEST N, where TEST is one of \(known)", status: 2)
}
guard let test = tests.first(where: { $0.name == arguments[1] }) else {
  fail("no test \"\(arguments[1])\"; there are \(known)", status: 2)
}
guard let count = Int(arguments[2]), count > 0 else {
  fail("N must be a positive number, not \"\(arguments[2])\"", status: 2)
}
do {
  print(try test.run(count))
} catch {
  fail("\(test.name): \(error)")
}
