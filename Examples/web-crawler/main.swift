// Evergreen: a crawler that visits so many pages at a time, and a site for it.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

/// What the crawler needs to know of an answer.
struct Page {
  let status: String
  let title: String?
  let links: [String]
}

struct WebCrawler: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "web-crawler", abstract: "Starts a small web site and follows all its links.")

  @Option(help: "How many pages the site has.") var pages = 30
  @Option(help: "How many pages are fetched at a time.") var concurrency = 8
  @Option(help: "How long the site takes for a page, in milliseconds.") var delay = 10

  func validate() throws {
    guard (1...100_000).contains(pages) else {
      throw ValidationError("--pages must be between 1 and 100000, not \(pages)")
    }
    guard (1...1000).contains(concurrency) else {
      throw ValidationError("--concurrency must be between 1 and 1000, not \(concurrency)")
    }
    guard (0...60_000).contains(delay) else {
      throw ValidationError("--delay must be between 0 and 60000 milliseconds, not \(delay)")
    }
  }

  func run() throws {
    let site = Site(pages: pages, delay: .milliseconds(delay))
    let server = try StreamServer("127.0.0.1:0") { socket, _ in try site.answer(socket) }
    try server.start()
    var found: [String: Page] = [:]
    try crawl(at: server.address) { found[$0] = $1 }
    try server.stop()
    for (path, page) in found.sorted(by: { ($0.key.count, $0.key) < ($1.key.count, $1.key) }) {
      print(path, page.title ?? page.status)
    }
    print("\(found.count) addresses, \(site.mostVisitors) at a time at most")
  }

  /// Visits each address once. The list of those that are to be visited may grow; the pool bounds what
  /// is under way, for this loop waits in `spawn` while it is full.
  func crawl(at address: SocketAddress, found: @escaping (String, Page) -> Void) throws {
    let pool = Pool(size: concurrency)
    let paths = JoinableQueue<String>()
    var seen: Set = ["/"]
    try paths.put("/")
    try withGroup { group in
      group.spawn {
        try paths.join()  // all that were put have been visited
        paths.shutDown()
      }
      for path in paths {
        try pool.spawn {
          defer { paths.taskDone() }
          let page = try fetch(path, from: address)
          found(path, page)
          for link in page.links where seen.insert(link).inserted { try paths.put(link) }
        }
      }
    }
  }

  func fetch(_ path: String, from address: SocketAddress) throws -> Page {
    try withTimeout(.seconds(30)) {
      let socket = try Socket.connect(to: address)
      defer { socket.close() }
      let stream = BufferedStream(socket)
      try stream.writeAll("GET \(path) HTTP/1.0\r\nHost: \(address)\r\n\r\n")
      try stream.flush()
      let status = try stream.readLine() ?? "no answer"
      while let header = try stream.readLine(), header != "" {}
      var text = ""
      while let line = try stream.readLine() { text += line + "\n" }
      return Page(
        status: status.split(separator: " ", maxSplits: 1).last.map(String.init) ?? status,
        title: text.firstMatch(of: /<title>(.*)<\/title>/).map { String($0.1) },
        links: text.matches(of: /href="([^"]*)"/).map { String($0.1) })
    }
  }
}

do { try WebCrawler.parse().run() } catch {
  // As `WebCrawler.main()`, but without the usage: one line says what is wrong.
  let code = WebCrawler.exitCode(for: error)
  let text = WebCrawler.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  WebCrawler.exit(withError: code)
}
