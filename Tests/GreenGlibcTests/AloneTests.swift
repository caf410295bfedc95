// Evergreen: GreenGlibc in a program of its own, which does not take over libc's names.
// SPDX-License-Identifier: MIT

import EvergreenTesting
import GreenGlibc
import Testing

@Suite(.timeLimit(.minutes(2)))
struct AloneTests {
  @Test func greenWithoutTakingOverNames() async throws {
    let lines = try await runGreen {
      var path = [CChar](repeating: 0, count: Int(PATH_MAX))
      #expect(readlink("/proc/self/exe", &path, path.count - 1) > 0)
      let program = String(cString: dirname(&path)) + "/green-glibc-alone"
      let stream = try #require(popen(program, "r"))
      var lines: [String] = []
      var line = [CChar](repeating: 0, count: 1000)
      while let text = fgets(&line, 1000, stream) { lines.append(String(cString: text)) }
      #expect(pclose(stream) == 0)
      return lines.map { String($0.dropLast()) }
    }
    // The sanitizers take over some of the names themselves.
    let names = ["read", "poll", "usleep", "close", "sigaction"]
    if !Sanitizer.any {
      #expect(Array(lines.prefix(names.count)) == names.map { "\($0) is libc's: true" })
    }
    #expect(
      Array(lines.dropFirst(names.count)) == [
        "read 1 green", "closed true", "usleep 0 green",
        "interrupted true -1", "going on true 1",
        "wait true green", "status 3", "wait true green", "status 4", "no child true",
        "lockf 0 green", "ended true", "F_SETLKW 0 green", "ended true",
      ])
  }
}
