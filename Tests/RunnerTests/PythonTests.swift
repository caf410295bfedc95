// Evergreen: Python under `evergreen run`.
// SPDX-License-Identifier: MIT

import EvergreenTesting
import Glibc
import Testing

private let python = "/usr/bin/python3", curl = "/usr/bin/curl"

@Suite(.enabled(if: !Sanitizer.any), .timeLimit(.minutes(2)))
struct PythonTests {
  @Test(.enabled(if: isInstalled(python) && isInstalled(curl), "needs python3 and curl"))
  func servesPages() async throws {
    try await runGreen {
      try withTemporaryDirectory { directory in
        let text = String(repeating: "a line of the page\n", count: 10000)
        let file = try #require(fopen(directory + "/page", "w"))
        fputs(text, file)
        fclose(file)
        let server = try Running([
          runner, "run", "--", python, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1",
          "--directory", directory,
        ])
        defer { server.destroy() }
        // Serving HTTP on 127.0.0.1 port 12345 (http://127.0.0.1:12345/) ...
        let port = try #require(try server.line(0).split(separator: " ").dropFirst(5).first)
        let words = [curl, "-sS", "-m", "30", "http://localhost:\(port)/page"]
        let plain = try outcome(of: words)
        let patched = try outcome(underRunnerOf: words)
        #expect(plain == Outcome(output: text, ending: .exit(0)))
        #expect(patched == plain)
        let missing = [curl, "-sSf", "-m", "30", "http://127.0.0.1:\(port)/none"]
        #expect(try outcome(underRunnerOf: missing) == outcome(of: missing))
        kill(server.process, SIGINT)
        let end = try server.finish()
        #expect(end.ending == .exit(0))
        #expect(end.output.hasSuffix("Keyboard interrupt received, exiting.\n"))
        #expect(end.errors.split(separator: "\n").count == 6)
      }
    }
  }
}
