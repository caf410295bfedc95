// Evergreen: a pool of connections to PostgreSQL, by libpq, which blocks.
// SPDX-License-Identifier: MIT

import ArgumentParser
import CPostgres
import Evergreen
import EvergreenMonkey
import Glibc

struct PostgresPool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "postgres-pool", abstract: "Asks PostgreSQL many slow questions at once.",
    discussion: "libpq waits for each; with libc patched, its greenlet does, and others run.")

  @Option(help: "Where the server is: a connection string or URL as libpq takes it.")
  var url = "postgresql://postgres@127.0.0.1:5432/postgres"
  @Option(help: "How many connections there are.") var connections = 10
  @Option(help: "How many questions are asked.") var queries = 50
  @Option(help: "How long the server thinks about each, in seconds.") var think = 0.1

  func validate() throws {
    for (name, value) in [("connections", connections), ("queries", queries)]
    where !(1...1_000_000).contains(value) {
      throw ValidationError("--\(name) must be between 1 and 1000000, not \(value)")
    }
    guard (0...3600).contains(think) else {
      throw ValidationError("--think must be between 0 and 3600 seconds, not \(think)")
    }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)  // for libraries that write to a connection which has ended
    MonkeyPatch.install(.all)  // all else is as it would be with threads

    let pool = ConnectionPool(url: url, size: connections)
    defer { pool.close() }
    Hub.current.onError = { _, _ in }  // the first error ends the program, which tells it then
    let time = try ContinuousClock().measure {
      let askers = (1...queries).map { number in
        spawn {
          let answer = try pool.withConnection {
            try $0.query("SELECT \(number) * \(number), pg_sleep(\(think))")
          }
          guard answer == "\(number * number)" else { throw PostgresError("\(answer)?") }
        }
      }
      try joinAll(askers, raisingErrors: true)
    }
    print("\(queries) queries over \(pool.count) connections in \(time)")
  }
}

/// Connections that greenlets take in turn; each is made when it is first needed.
final class ConnectionPool {
  private let url: String
  private let places: BoundedSemaphore
  private var idle: [Connection] = []
  /// How many have been made.
  private(set) var count = 0

  init(url: String, size: Int) {
    self.url = url
    places = BoundedSemaphore(value: size)
  }

  func withConnection<R>(_ body: (Connection) throws -> R) throws -> R {
    try places.withPermit {
      let connection = try idle.popLast() ?? Connection(url)
      if connection.isNew { count += 1 }
      connection.isNew = false
      // A query that was cut off, by a timeout or a kill, has broken its connection.
      defer { if connection.isBroken { connection.close() } else { idle.append(connection) } }
      return try body(connection)
    }
  }

  func close() {
    for connection in idle { connection.close() }
    idle = []
  }
}

final class Connection {
  private let connection: OpaquePointer
  var isNew = true

  init(_ url: String) throws {
    connection = PQconnectdb(url)
    guard PQstatus(connection) == CONNECTION_OK else {
      defer { PQfinish(connection) }
      throw PostgresError(PQerrorMessage(connection))
    }
  }

  /// The first column of the first row.
  func query(_ text: String) throws -> String {
    let result = PQexec(connection, text)
    defer { PQclear(result) }
    guard PQresultStatus(result) == PGRES_TUPLES_OK else {
      throw PostgresError(PQerrorMessage(connection))
    }
    return String(cString: PQgetvalue(result, 0, 0))
  }

  var isBroken: Bool { PQstatus(connection) == CONNECTION_BAD }
  func close() { PQfinish(connection) }
}

struct PostgresError: Error, CustomStringConvertible {
  let description: String

  /// The first line of what libpq says.
  init(_ text: String) { description = String(text.prefix { !$0.isNewline }) }
  init(_ text: UnsafePointer<CChar>!) { self.init(String(cString: text)) }
}

do { try PostgresPool.parse().run() } catch {
  // As `PostgresPool.main()`, but without the usage: one line says what is wrong.
  let code = PostgresPool.exitCode(for: error)
  let text = PostgresPool.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  PostgresPool.exit(withError: code)
}
