// Evergreen: tests of the crawler.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Testing

@Suite struct WebCrawlerTests {
  @Test(.timeLimit(.minutes(2)), arguments: [1, 4])
  func findsEachPageOnce(concurrency: Int) async throws {
    try await runGreen {
      let child = try run(
        "web-crawler", ["--pages", "30", "--concurrency", "\(concurrency)", "--delay", "20"])
      #expect(child.ending == .exit(0) && child.errorLines == [])
      let pages = ["/ Page 0"] + (1..<30).map { "/\($0) Page \($0)" } + ["/missing 404 Not Found"]
      #expect(child.lines.dropLast() == pages[...])
      #expect(child.lines.last == "31 addresses, \(concurrency) at a time at most")
    }
  }
}
