// Evergreen: libpq and PostgreSQL.
// SPDX-License-Identifier: MIT

import CPostgres
import Evergreen
import Glibc
import Testing

final class PostgresServer: Server {
  static let programs = (
    server: find("postgres"), maker: find("initdb"), certifier: find("openssl")
  )
  static var isInstalled: Bool {
    programs.server != nil && programs.maker != nil && programs.certifier != nil
  }

  private let isSecure: Bool

  init(isSecure: Bool = false) throws {
    self.isSecure = isSecure
    try super.init("postgres", user: "postgres")
  }

  private var certificate: String { "\(directory)/certificate" }

  private var data: String { "\(directory)/data" }

  override func prepare() throws {
    if isSecure, access(certificate, F_OK) != 0 {
      try run([
        Self.programs.certifier!, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-keyout", certificate + ".key", "-out", certificate,
      ])
    }
    if access("\(data)/PG_VERSION", F_OK) == 0 { return }
    try run([
      Self.programs.maker!, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
      "--locale=C", "--no-sync", "--no-instructions",
    ])
  }

  override func command() -> [String] {
    [
      Self.programs.server!, "-D", data, "-p", "\(port)", "-k", directory,
      "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=120",
    ]
      + (isSecure
        ? [
          "-c", "ssl=on", "-c", "ssl_cert_file=\(certificate)",
          "-c", "ssl_key_file=\(certificate).key",
        ] : [])
  }

  override func answers() -> Bool { PQping(PostgresConnection.url(port)) == PQPING_OK }
  override var stopSignal: Int32 { SIGQUIT }  // at once, and without a trace

  override func cleanUp() {
    // Killed, it leaves a segment of shared memory, which it would take back at its next start.
    let lines = text(of: "\(data)/postmaster.pid", last: 10_000).split(separator: "\n")
    guard lines.count > 6, let segment = lines[6].split(separator: " ").last else { return }
    if let number = Int32(segment) { shmctl(number, IPC_RMID, nil) }
  }
}

class PostgresConnection: Client {
  private let connection: OpaquePointer

  class func url(_ port: UInt16) -> String {
    "host=127.0.0.1 port=\(port) user=postgres dbname=postgres"
  }

  required init(port: UInt16) throws {
    connection = PQconnectdb(Self.url(port))
    guard PQstatus(connection) == CONNECTION_OK else {
      defer { PQfinish(connection) }
      throw ClientError(PQerrorMessage(connection))
    }
  }

  /// The first column of the first row.
  func query(_ text: String) throws -> String {
    let result = PQexec(connection, text)
    defer { PQclear(result) }
    guard PQresultStatus(result) == PGRES_TUPLES_OK else {
      throw ClientError(PQerrorMessage(connection))
    }
    return String(cString: PQgetvalue(result, 0, 0))
  }

  func ask(_ number: Int, seconds: Int) throws -> String {
    try query("SELECT \(number), pg_sleep(\(seconds))")
  }

  func requestsAtServer() throws -> Int {
    Int(try query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))!
  }

  var isBroken: Bool { PQstatus(connection) == CONNECTION_BAD }
  func close() { PQfinish(connection) }

  /// Ends the query that is under way, by a connection of its own.
  func cancel() -> Bool {
    let cancel = PQgetCancel(connection)
    defer { PQfreeCancel(cancel) }
    var message = [CChar](repeating: 0, count: 256)
    return PQcancel(cancel, &message, 256) == 1
  }
}

final class SecurePostgresConnection: PostgresConnection {
  override class func url(_ port: UInt16) -> String { super.url(port) + " sslmode=require" }
}

extension Servers {
  @Suite(.enabled(if: PostgresServer.isInstalled, "PostgreSQL is not installed"))
  struct PostgresTests {
    @Test(.timeLimit(.minutes(2)))
    func fiftyQueriesAreInTheServerAtOnce() async throws {
      try await runPatched {
        try withServer(PostgresServer()) {
          try checkFiftyAtOnce(PostgresConnection.self, at: $0.port)
        }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func theServersDeathIsTheLibrarysError() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { try checkDeath(of: $0, as: PostgresConnection.self) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aKillEndsTheQuery() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { try checkKill(PostgresConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheQuery() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { try checkTimeout(PostgresConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheConnecting() async throws {
      try await runPatched { try checkTimeoutOfConnect(PostgresConnection.self) }
    }

    @Test(.timeLimit(.minutes(2)))
    func allThatHoldsOverTLSToo() async throws {
      try await runPatched {
        try withServer(PostgresServer(isSecure: true)) { server in
          let type = SecurePostgresConnection.self
          let client = try type.init(port: server.port)
          #expect(
            try client.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t")
          client.close()
          try checkFiftyAtOnce(type, at: server.port)
          try checkKill(type, at: server.port)
          try checkTimeout(type, at: server.port)
          try checkDeath(of: server, as: type)
        }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aQueryIsCancelledFromAnotherGreenlet() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { server in
          let client = try PostgresConnection(port: server.port)
          defer { client.close() }
          let asker = spawn {
            let error = #expect(throws: ClientError.self) { try client.ask(1, seconds: 600) }
            return error?.description ?? ""
          }
          let watcher = try PostgresConnection(port: server.port)
          defer { watcher.close() }
          try until("a query at the server") { try watcher.requestsAtServer() == 1 }
          #expect(client.cancel())
          #expect(try asker.get(timeout: limit).contains("canceling statement"))
          #expect(!client.isBroken)
          #expect(try client.ask(2, seconds: 0) == "2")
        }
      }
    }

    /// Large answers and large questions, beside each other.
    @Test(.timeLimit(.minutes(2)))
    func muchDataGoesBothWays() async throws {
      try await runPatched {
        try withServer(PostgresServer()) { server in
          let clients = (0..<8).map { number in
            spawn {
              let client = try PostgresConnection(port: server.port)
              defer { client.close() }
              let text = String(repeating: "\(number)", count: 3_000_000)
              #expect(try client.query("SELECT reverse('a\(text)')") == text + "a")
            }
          }
          for client in clients { try client.get(timeout: limit) }
        }
      }
    }
  }
}
