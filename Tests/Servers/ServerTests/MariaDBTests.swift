// Evergreen: libmariadb and MariaDB.
// SPDX-License-Identifier: MIT

import CMariaDB
import Evergreen
import Glibc
import Testing

final class MariaDBServer: Server {
  static let programs = (server: find("mariadbd"), maker: find("mariadb-install-db"))
  static var isInstalled: Bool { programs.server != nil && programs.maker != nil }

  init() throws { try super.init("mariadb", user: "mysql") }

  private var data: String { "\(directory)/data" }

  override func prepare() throws {
    if access("\(data)/mysql", F_OK) == 0 { return }
    try run([
      Self.programs.maker!, "--no-defaults", "--datadir=\(data)", "--skip-test-db",
      "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M",
    ])
  }

  override func command() -> [String] {
    [
      Self.programs.server!, "--no-defaults", "--datadir=\(data)", "--port=\(port)",
      "--bind-address=127.0.0.1", "--socket=\(directory)/socket",
      "--pid-file=\(directory)/pid", "--innodb-log-file-size=8M", "--skip-name-resolve",
      "--innodb-flush-log-at-trx-commit=0",
    ]
  }

  override var stopSignal: Int32 { SIGKILL }  // it writes for long before it ends
}

final class MariaDBConnection: Client {
  private let connection: UnsafeMutablePointer<MYSQL>

  convenience init(port: UInt16) throws { try self.init(port: port, readLimit: 0) }

  /// The limit is in seconds; 0 is none.
  init(port: UInt16, readLimit: UInt32) throws {
    connection = mysql_init(nil)
    if readLimit > 0 {
      _ = withUnsafePointer(to: readLimit) { mysql_options(connection, MYSQL_OPT_READ_TIMEOUT, $0) }
    }
    guard mysql_real_connect(connection, "127.0.0.1", "root", "", nil, UInt32(port), nil, 0) != nil
    else {
      defer { mysql_close(connection) }
      throw ClientError(mysql_error(connection))
    }
  }

  /// The first column of the first row.
  func query(_ text: String) throws -> String {
    guard mysql_query(connection, text) == 0, let result = mysql_store_result(connection) else {
      throw ClientError(mysql_error(connection))
    }
    defer { mysql_free_result(result) }
    guard let row = mysql_fetch_row(result), let field = row[0] else { return "" }
    return String(cString: field)
  }

  func ask(_ number: Int, seconds: Int) throws -> String {
    try query("SELECT \(number), SLEEP(\(seconds))")
  }

  func requestsAtServer() throws -> Int {
    Int(
      try query(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'"))!
  }

  /// CR_SERVER_GONE_ERROR or CR_SERVER_LOST, and no way to send anything more.
  var isBroken: Bool {
    [2006, 2013].contains(mysql_errno(connection)) && connection.pointee.net.pvio == nil
  }

  func close() { mysql_close(connection) }
}

extension Servers {
  @Suite(.enabled(if: MariaDBServer.isInstalled, "MariaDB is not installed"))
  struct MariaDBTests {
    @Test(.timeLimit(.minutes(2)))
    func fiftyQueriesAreInTheServerAtOnce() async throws {
      try await runPatched {
        try withServer(MariaDBServer()) {
          try checkFiftyAtOnce(MariaDBConnection.self, at: $0.port)
        }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func theServersDeathIsTheLibrarysError() async throws {
      try await runPatched {
        try withServer(MariaDBServer()) { try checkDeath(of: $0, as: MariaDBConnection.self) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aKillEndsTheQuery() async throws {
      try await runPatched {
        try withServer(MariaDBServer()) { try checkKill(MariaDBConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheQuery() async throws {
      try await runPatched {
        try withServer(MariaDBServer()) { try checkTimeout(MariaDBConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func theLibrarysOwnTimeLimitHolds() async throws {
      try await runPatched {
        try withServer(MariaDBServer()) { server in
          let client = try MariaDBConnection(port: server.port, readLimit: 1)
          defer { client.close() }
          var ticks = 0
          let ticker = spawn {
            while true {
              try sleep(for: .milliseconds(10))
              ticks += 1
            }
          }
          let time = ContinuousClock().measure {
            #expect(throws: ClientError.self) { try client.ask(1, seconds: 600) }
          }
          #expect(client.isBroken)
          #expect(time >= .milliseconds(990))
          #expect(time < .seconds(5))
          #expect(ticks > 10)
          try ticker.kill()
        }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheConnecting() async throws {
      try await runPatched { try checkTimeoutOfConnect(MariaDBConnection.self) }
    }
  }
}
