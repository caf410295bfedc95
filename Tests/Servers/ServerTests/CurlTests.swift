// Evergreen: libcurl's easy interface and nginx.
// SPDX-License-Identifier: MIT

import CCurl
import Evergreen
import Glibc
import Testing

/// nginx before a slow server of the test's own, which holds requests until it is told.
final class NginxServer: Server {
  static let programs = (server: find("nginx"), maker: find("openssl"))
  static var isInstalled: Bool { programs.server != nil && programs.maker != nil }

  private let isSecure: Bool
  private var slow: StreamServer?
  private var gate = Event()

  init(isSecure: Bool) throws {
    self.isSecure = isSecure
    try super.init("nginx")
  }

  private var certificate: String { "\(directory)/certificate" }

  override func prepare() throws {
    gate = Event()
    slow = try StreamServer("127.0.0.1:0") { [gate] socket, _ in
      let stream = BufferedStream(socket)
      guard let request = try stream.readLine() else { return }
      while let line = try stream.readLine(), line.count > 1 {}
      let path = request.split(separator: " ")[1]
      if path == "/release" { gate.set() } else { try gate.wait() }
      let body = path.split(separator: "/").last!
      try socket.sendAll("HTTP/1.0 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }
    try slow?.start()
    if isSecure, access(certificate, F_OK) != 0 {
      try run([
        Self.programs.maker!, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-keyout", certificate + ".key", "-out", certificate,
      ])
    }
    _ = try write(String(repeating: "0123456789", count: 30_000), to: "file")
  }

  override func command() -> [String] {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map { "\($0)_temp_path \(directory)/\($0);" }.joined(separator: " ")
    let secret = "ssl_certificate \(certificate); ssl_certificate_key \(certificate).key;"
    let file = try? write(
      """
      daemon off; master_process off; pid \(directory)/pid; error_log stderr;
      events { worker_connections 500; }
      http {
        access_log off; \(temporary)
        server {
          listen 127.0.0.1:\(port) \(isSecure ? "ssl" : ""); \(isSecure ? secret : "")
          location = /status { stub_status; }
          location = /file { root \(directory); limit_rate 200k; }
          location ~ ^/at-once/(.*)$ { return 200 $1; }
          location / { proxy_pass http://\(slow!.address); proxy_read_timeout 600s; }
        }
      }
      """, to: "conf")
    return [Self.programs.server!, "-p", directory, "-c", file ?? "conf"]
  }

  override func cleanUp() {
    try? slow?.stop(timeout: .zero)
    slow = nil
  }
}

class CurlHandle: Client {
  fileprivate let handle: UnsafeMutableRawPointer
  private let port: UInt16
  private var code = CURLE_OK
  class var scheme: String { "http" }

  required init(port: UInt16) throws {
    self.port = port
    handle = curl_easy_init()
    curl_easy_set_long(handle, CURLOPT_NOSIGNAL, 1)
    curl_easy_set_long(handle, CURLOPT_SSL_VERIFYPEER, 0)  // the test's own certificate
    curl_easy_set_long(handle, CURLOPT_SSL_VERIFYHOST, 0)
    curl_easy_set_string(handle, CURLOPT_PROXY, "")
  }

  func get(_ path: String) throws -> String {
    var body: [UInt8] = []
    curl_easy_set_string(handle, CURLOPT_URL, "\(Self.scheme)://127.0.0.1:\(port)\(path)")
    withUnsafeMutablePointer(to: &body) { body in
      curl_easy_set_write(
        handle,
        { bytes, size, count, body in
          let chunk = UnsafeRawBufferPointer(start: bytes, count: size * count)
          body!.assumingMemoryBound(to: [UInt8].self).pointee += chunk
          return size * count
        }, body)
      code = curl_easy_perform(handle)
    }
    guard code == CURLE_OK else { throw ClientError(curl_easy_strerror(code)) }
    return String(decoding: body, as: UTF8.self)
  }

  func ask(_ number: Int, seconds: Int) throws -> String {
    try get(seconds == 0 ? "/at-once/\(number)" : "/hold/\(number)")
  }

  func requestsAtServer() throws -> Int {
    let status = try get("/status")
    let writing = status.firstMatch(of: /Writing: (\d+)/).flatMap { Int($0.1) }
    return (writing ?? 0) - 1  // this one
  }

  func answer(_ numbers: [Int]) throws { _ = try get("/release") }

  var isBroken: Bool { code != CURLE_OK }
  func close() { curl_easy_cleanup(handle) }
}

final class SecureCurlHandle: CurlHandle {
  override class var scheme: String { "https" }
}

extension Servers {
  @Suite(.enabled(if: NginxServer.isInstalled, "nginx or openssl is not installed"))
  struct CurlTests {
    @Test(.timeLimit(.minutes(2)), arguments: [false, true])
    func fiftyRequestsAreInTheServerAtOnce(isSecure: Bool) async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: isSecure)) {
          if isSecure {
            try checkFiftyAtOnce(SecureCurlHandle.self, at: $0.port)
          } else {
            try checkFiftyAtOnce(CurlHandle.self, at: $0.port)
          }
        }
      }
    }

    @Test(.timeLimit(.minutes(2)), arguments: [false, true])
    func theServersDeathIsTheLibrarysError(isSecure: Bool) async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: isSecure)) {
          if isSecure {
            try checkDeath(of: $0, as: SecureCurlHandle.self)
          } else {
            try checkDeath(of: $0, as: CurlHandle.self)
          }
        }
      }
    }

    @Test(.timeLimit(.minutes(2)), arguments: [false, true])
    func aKillEndsTheRequest(isSecure: Bool) async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: isSecure)) {
          if isSecure {
            try checkKill(SecureCurlHandle.self, at: $0.port)
          } else {
            try checkKill(CurlHandle.self, at: $0.port)
          }
        }
      }
    }

    @Test(.timeLimit(.minutes(2)), arguments: [false, true])
    func aTimeoutEndsTheRequest(isSecure: Bool) async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: isSecure)) {
          if isSecure {
            try checkTimeout(SecureCurlHandle.self, at: $0.port)
          } else {
            try checkTimeout(CurlHandle.self, at: $0.port)
          }
        }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheHandshake() async throws {
      try await runPatched {
        try checkTimeoutOfConnect(CurlHandle.self)
        try checkTimeoutOfConnect(SecureCurlHandle.self)
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func theLibrarysOwnTimeLimitHolds() async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: false)) { server in
          let client = try CurlHandle(port: server.port)
          defer { client.close() }
          curl_easy_set_long(client.handle, CURLOPT_TIMEOUT_MS, 300)
          var ticks = 0
          let ticker = spawn {
            while true {
              try sleep(for: .milliseconds(10))
              ticks += 1
            }
          }
          let time = ContinuousClock().measure {
            let error = #expect(throws: ClientError.self) { try client.ask(1, seconds: 600) }
            #expect(error?.description == "Timeout was reached")
          }
          #expect(time >= .milliseconds(300))
          #expect(time < .seconds(3))
          #expect(ticks > 3)
          try ticker.kill()
        }
      }
    }

    /// nginx sends a piece now and then, to each.
    @Test(.timeLimit(.minutes(2)), arguments: [false, true])
    func whatComesSlowlyComesWhole(isSecure: Bool) async throws {
      try await runPatched {
        try withServer(NginxServer(isSecure: isSecure)) { server in
          var files: [String] = []
          let time = try ContinuousClock().measure {
            let readers = (0..<20).map { _ in
              spawn {
                let type = isSecure ? SecureCurlHandle.self : CurlHandle.self
                let client = try type.init(port: server.port)
                defer { client.close() }
                return try client.get("/file")
              }
            }
            files = try readers.map { try $0.get(timeout: limit) }
          }
          let whole = String(repeating: "0123456789", count: 30_000)
          #expect(files == Array(repeating: whole, count: 20))
          #expect(time < .seconds(15))  // one after the other, twenty
        }
      }
    }
  }
}
