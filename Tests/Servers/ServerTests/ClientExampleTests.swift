// Evergreen: the examples of Examples/Clients, against real servers.
// SPDX-License-Identifier: MIT
//
// EVERGREEN_CLIENTS says where they were built.

import Evergreen
import Glibc
import Testing

private let builtExamples = getenv("EVERGREEN_CLIENTS").map { String(cString: $0) }

/// An example that has ended.
private struct Ended {
  let status: Int32
  let lines: [String]
  let errors: [String]

  init(_ name: String, _ arguments: [String]) throws {
    let files = ["\(workDirectory)/example.out", "\(workDirectory)/example.err"]
    for file in files { unlink(file) }
    let words = ["\(builtExamples!)/\(name)"] + arguments
    let process = try launch(words, log: files[0], errors: files[1])
    var status: Int32 = 0
    try withTimeout(limit) { while waitpid(process, &status, 0) != process {} }
    self.status = status
    let texts = files.map { text(of: $0, last: 100_000) }
    lines = texts[0].split(separator: "\n").map(String.init)
    errors = texts[1].split(separator: "\n").map(String.init)
  }
}

extension Servers {
  @Suite(.enabled(if: builtExamples != nil, "EVERGREEN_CLIENTS names no directory of examples"))
  struct ClientExampleTests {
    static let options = [
      "postgres-pool": ["--url", "--connections", "--queries", "--think"],
      "redis-pipeline": ["--host", "--port", "--connections", "--commands", "--key"],
      "curl-many": ["<urls>", "--concurrency", "--timeout"],
    ]

    @Test(.timeLimit(.minutes(1)), arguments: options.keys.sorted())
    func helpNamesTheOptions(of name: String) async throws {
      try await runPatched {
        let help = try Ended(name, ["--help"])
        #expect(help.status == 0)
        let text = help.lines.joined(separator: "\n")
        #expect(text.contains("USAGE: \(name)"))
        for option in Self.options[name, default: []] { #expect(text.contains(option)) }
      }
    }

    static let mistakes: [(command: String, complaint: String)] = [
      ("postgres-pool --connections 0", "--connections"), ("postgres-pool --think=-1", "-1"),
      ("postgres-pool --bogus", "--bogus"), ("postgres-pool --queries many", "many"),
      ("postgres-pool --url postgresql://127.0.0.1:1/x", "port 1 failed: Connection refused"),
      ("redis-pipeline --commands 0", "--commands"), ("redis-pipeline --port 65536", "65536"),
      ("redis-pipeline --port 1", "127.0.0.1:1: Connection refused"),
      ("curl-many", "<urls>"), ("curl-many --timeout 0 x", "0.0"),
      ("curl-many --concurrency none x", "none"),
      ("curl-many http://127.0.0.1:1/", "http://127.0.0.1:1/: Couldn't connect to server"),
    ]

    @Test(.timeLimit(.minutes(1)), arguments: mistakes)
    func aMistakeGetsOneLine(command: String, complaint: String) async throws {
      try await runPatched {
        let words = command.split(separator: " ").map(String.init)
        let failed = try Ended(words[0], Array(words.dropFirst()))
        #expect(failed.status != 0)
        #expect(failed.lines == [])
        #expect(failed.errors.count == 1, "\(failed.errors)")
        #expect(failed.errors.first?.contains(complaint) == true, "\(failed.errors)")
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: PostgresServer.isInstalled))
    func postgresPoolAsksAtOnce() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { server in
          let url = "postgresql://postgres@127.0.0.1:\(server.port)/postgres"
          let time = try ContinuousClock().measure {
            let ended = try Ended(
              "postgres-pool",
              ["--url", url, "--connections", "10", "--queries", "50", "--think", "0.3"])
            #expect(ended.status == 0, "\(ended.errors)")
            #expect(ended.lines.first?.hasPrefix("50 queries over 10 connections in ") == true)
          }
          #expect(time < .seconds(12))  // one after the other, 15
        }
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: RedisServer.program != nil))
    func redisPipelineCounts() async throws {
      try await runPatched {
        try withServer(RedisServer()) { server in
          let ended = try Ended(
            "redis-pipeline",
            ["--port", "\(server.port)", "--connections", "20", "--commands", "2000"])
          #expect(ended.status == 0, "\(ended.errors)")
          let line = ended.lines.first ?? ""
          #expect(line.hasPrefix("20 connections have counted to 40000 in "))
        }
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: NginxServer.isInstalled))
    func curlManyFetchesAtOnce() async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: false)) { server in
          let base = "http://127.0.0.1:\(server.port)"
          let urls = (0..<20).map { _ in "\(base)/file" } + ["\(base)/at-once/7"]
          // One that never answers, and one that is not there.
          let ended = try Ended(
            "curl-many", ["--timeout", "5"] + urls + ["\(base)/hold/1", "http://127.0.0.1:1/"])
          #expect(ended.status != 0)
          #expect(
            ended.lines.sorted()
              == ["200 1 \(base)/at-once/7"] + (0..<20).map { _ in "200 300000 \(base)/file" })
          #expect(
            ended.errors.sorted()
              == [
                "\(base)/hold/1: timed out after 5.0 seconds",
                "http://127.0.0.1:1/: Couldn't connect to server",
              ].sorted())
        }
      }
    }
  }
}
