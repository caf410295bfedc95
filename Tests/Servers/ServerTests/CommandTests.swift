// Evergreen: the command line programs of Redis, PostgreSQL and curl, unmodified, under `evergreen run`.
// SPDX-License-Identifier: MIT
//
// The tool is that of the package itself, which must have been built before: `swift build` there.

import Evergreen
import Glibc
import Testing

private let runner =
  #filePath.split(separator: "/").dropLast(4).reduce("") { "\($0)/\($1)" }
  + "/.build/debug/evergreen"

/// What a program has said, and how it ended.
private struct Outcome: Equatable {
  let status: Int32
  let output: String
  let errors: String

  init(_ words: [String]) throws {
    let files = ["\(workDirectory)/command.out", "\(workDirectory)/command.err"]
    for file in files { unlink(file) }
    let process = try launch(words, log: files[0], errors: files[1])
    var status: Int32 = 0
    try withTimeout(limit) { while waitpid(process, &status, 0) != process {} }
    self.status = status
    output = text(of: files[0], last: 10_000_000)
    errors = text(of: files[1], last: 10_000_000)
  }
}

/// A command does under `evergreen run` what it does without.
private func expectTheSame(
  _ program: String, _ arguments: [String], status: Int32 = 0,
  at location: SourceLocation = #_sourceLocation
) throws {
  let words = try [#require(find(program))] + arguments
  let plain = try Outcome(words)
  #expect(plain.status >> 8 == status, "\(plain.errors)", sourceLocation: location)
  #expect(try Outcome([runner, "run", "--"] + words) == plain, sourceLocation: location)
}

extension Servers {
  @Suite(
    .enabled(if: access(runner, X_OK) == 0, "build the package itself first"),
    .timeLimit(.minutes(2)))
  struct CommandTests {
    @Test(.enabled(if: RedisServer.program != nil && find("redis-cli") != nil))
    func redis() async throws {
      try await runPatched {
        let server = try RedisServer()
        try withServer(server) { server in
          let port = ["-p", "\(server.port)"]
          try expectTheSame("redis-cli", port + ["set", "key", "value"])
          try expectTheSame("redis-cli", port + ["get", "key"])
          try expectTheSame("redis-cli", port + ["bogus"], status: 0)
          try expectTheSame("redis-cli", port + ["blpop", "none", "0.1"])
          try expectTheSame("redis-cli", port + ["-r", "5", "-i", "0.01", "echo", "again"])
        }
        try expectTheSame("redis-cli", ["-p", "1", "ping"], status: 1)
      }
    }

    @Test(.enabled(if: PostgresServer.isInstalled && find("psql") != nil))
    func postgres() async throws {
      try await runPatched {
        let server = try PostgresServer()
        try withServer(server) { server in
          for host in ["127.0.0.1", "localhost", server.directory] {
            let options = ["-X", "-U", "postgres", "-h", host, "-p", "\(server.port)"]
            try expectTheSame("psql", options + ["-c", "select 1 as one, pg_sleep(0.05)"])
            try expectTheSame("psql", options + ["-Atc", "select generate_series(1, 20000)"])
            try expectTheSame("psql", options + ["-c", "select nothing"], status: 1)
            try expectTheSame("psql", options + ["-c", "\\! echo shell; exit 3"])
          }
        }
        try expectTheSame(
          "psql", ["-X", "-h", "127.0.0.1", "-p", "1", "-c", "select 1"], status: 2)
      }
    }

    @Test(.enabled(if: NginxServer.isInstalled && find("curl") != nil), arguments: [false, true])
    func curl(isSecure: Bool) async throws {
      try await runPatched {
        let server = try NginxServer(isSecure: isSecure)
        try withServer(server) { server in
          let address = "\(isSecure ? "https" : "http")://localhost:\(server.port)"
          try expectTheSame("curl", ["-sSk", "\(address)/at-once/answer"])
          try expectTheSame("curl", ["-sSk", "--limit-rate", "1M", "\(address)/file"])
          try expectTheSame("curl", ["-sSk", "\(address)/at-once/[1-9]"])
        }
        try expectTheSame("curl", ["-sS", "http://127.0.0.1:1/"], status: 7)
        try expectTheSame("curl", ["-sS", "http://no-such-host.invalid/"], status: 6)
      }
    }
  }
}
