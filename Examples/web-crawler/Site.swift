// Evergreen: the site that the crawler visits, on this machine alone.
// SPDX-License-Identifier: MIT

import Evergreen

/// So many pages, each of which links to two others, to the first one, and to one that does not exist.
final class Site {
  private let pages: Int
  private let delay: Duration
  private var visitors = 0
  /// How many were answered at a time, at most.
  private(set) var mostVisitors = 0

  init(pages: Int, delay: Duration) {
    self.pages = pages
    self.delay = delay
  }

  /// Answers one request, as HTTP/1.0 has it.
  func answer(_ socket: Socket) throws {
    visitors += 1
    mostVisitors = max(mostVisitors, visitors)
    defer { visitors -= 1 }
    let stream = BufferedStream(socket)
    guard let request = try stream.readLine(limit: 1000, timeout: .seconds(10)) else { return }
    while let header = try stream.readLine(timeout: .seconds(10)), header != "" {}
    try sleep(for: delay)  // a page takes its time
    let words = request.split(separator: " ")
    let text = words.count > 1 && words[0] == "GET" ? page(at: String(words[1])) : nil
    try stream.writeAll("HTTP/1.0 \(text == nil ? "404 Not Found" : "200 OK")\r\n")
    try stream.writeAll("Content-Type: text/html\r\n\r\n\(text ?? "Not here.\n")")
    try stream.flush()
  }

  private func page(at path: String) -> String? {
    guard path.hasPrefix("/"), let number = path == "/" ? 0 : Int(path.dropFirst()),
      (0..<pages).contains(number)
    else { return nil }
    let links = [2 * number + 1, 2 * number + 2].filter { $0 < pages }.map { "/\($0)" }
    return "<title>Page \(number)</title>\n"
      + (links + ["/", "/missing"]).map { "<a href=\"\($0)\">there</a>\n" }.joined()
  }
}
