// Evergreen: a patched call answers what libc's own answers.
// SPDX-License-Identifier: MIT

import ContractScripts
import EvergreenHub
import EvergreenMonkey
import EvergreenTesting
import Glibc
import Testing

/// Each script (Tests/ContractScripts) runs as it is, on a thread of its own, and patched, in a
/// greenlet. Both must tell the same, of every result, errno and byte.
@Suite("Contract", .serialized)
struct ContractTests {
  @Test(arguments: Script.all)
  func patchedCallsAnswerAsLibcsOwn(_ script: Script) async throws {
    signal(SIGPIPE, SIG_IGN)
    MonkeyPatch.install(.all)
    if script.isOfLocks { MonkeyPatch.install(.locks) }
    defer { MonkeyPatch.uninstall(.locks) }
    let expected = await withCheckedContinuation { continuation in
      pthread_detach(startThread { continuation.resume(returning: script.run()) })
    }
    let (actual, turns) = try await runGreen {
      var story = ""
      let turns = try turnsOfOthers { story = script.run() }
      return (story, turns)
    }
    #expect(actual == expected)
    #expect(!expected.isEmpty)
    if script.waits { #expect(turns > 0, "nobody else could run meanwhile") }
  }
}

struct Script: Sendable, CustomTestStringConvertible {
  let index: Int

  static var all: [Script] { (0..<Int(contract_script_count)).map { Script(index: $0) } }

  var waits: Bool { contract_scripts[index].waits }
  var isOfLocks: Bool { contract_scripts[index].locks }
  var testDescription: String { String(cString: contract_scripts[index].name) }

  func run() -> String {
    let log = UnsafeMutablePointer<contract_log>.allocate(capacity: 1)
    defer { log.deallocate() }
    return String(cString: contract_run(contract_scripts + index, log))
  }
}
