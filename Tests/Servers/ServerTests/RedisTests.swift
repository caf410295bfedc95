// Evergreen: hiredis and Redis.
// SPDX-License-Identifier: MIT

import CRedis
import Evergreen
import Glibc
import Testing

final class RedisServer: Server {
  static let program = find("redis-server")

  init() throws { try super.init("redis") }

  override func command() -> [String] {
    [
      Self.program!, "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--dir", directory,
      "--maxclients", "500",
    ]
  }
}

final class RedisConnection: Client {
  private let context: UnsafeMutablePointer<redisContext>

  init(port: UInt16) throws {
    context = redisConnect("127.0.0.1", Int32(port))
    if context.pointee.err != 0 {
      defer { redisFree(context) }
      throw ClientError(message)
    }
  }

  private var message: String {
    withUnsafeBytes(of: context.pointee.errstr) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  /// The answer, or the last of several.
  func command(_ words: String...) throws -> String {
    let answer = withWords(words) { redisCommandArgv(context, Int32(words.count), $0, nil) }
    guard let answer else { throw ClientError(message) }
    defer { freeReplyObject(answer) }
    var reply = answer.assumingMemoryBound(to: redisReply.self)
    if reply.pointee.type == REDIS_REPLY_ARRAY, reply.pointee.elements > 0 {
      reply = reply.pointee.element[Int(reply.pointee.elements) - 1]!
    }
    guard let text = reply.pointee.str else { return "\(reply.pointee.integer)" }
    if reply.pointee.type == REDIS_REPLY_ERROR { throw ClientError(text) }
    return String(
      decoding: UnsafeRawBufferPointer(start: text, count: Int(reply.pointee.len)),
      as: UTF8.self)
  }

  func ask(_ number: Int, seconds: Int) throws -> String {
    if seconds == 0 { return try command("ECHO", "\(number)") }
    return try command("BLPOP", "queue:\(number)", "0")
  }

  func requestsAtServer() throws -> Int {
    try command("CLIENT", "LIST").split(separator: "\n").count { $0.contains(" cmd=blpop ") }
  }

  func answer(_ numbers: [Int]) throws {
    for number in numbers { _ = try command("RPUSH", "queue:\(number)", "\(number)") }
  }

  var isBroken: Bool { context.pointee.err != 0 }
  func close() { redisFree(context) }
}

/// Words as C wants them, while `body` runs.
private func withWords<R>(
  _ words: [String], _ body: (UnsafeMutablePointer<UnsafePointer<CChar>?>) -> R
) -> R {
  var copies = words.map { UnsafePointer<CChar>(strdup($0)) }
  defer { for copy in copies { free(UnsafeMutablePointer(mutating: copy)) } }
  return body(&copies)
}

extension Servers {
  @Suite(.enabled(if: RedisServer.program != nil, "Redis is not installed"))
  struct RedisTests {
    @Test(.timeLimit(.minutes(2)))
    func fiftyCommandsAreInTheServerAtOnce() async throws {
      try await runPatched {
        try withServer(RedisServer()) { try checkFiftyAtOnce(RedisConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func theServersDeathIsTheLibrarysError() async throws {
      try await runPatched {
        try withServer(RedisServer()) { try checkDeath(of: $0, as: RedisConnection.self) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aKillEndsTheCommand() async throws {
      try await runPatched {
        try withServer(RedisServer()) { try checkKill(RedisConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheCommand() async throws {
      try await runPatched {
        try withServer(RedisServer()) { try checkTimeout(RedisConnection.self, at: $0.port) }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsTheFirstCommand() async throws {
      try await runPatched { try checkTimeoutOfConnect(RedisConnection.self) }
    }

    /// hiredis' own limit, which is the socket's, stays what it was.
    @Test(.timeLimit(.minutes(2)))
    func theLibrarysOwnTimeLimitHolds() async throws {
      try await runPatched {
        try withServer(RedisServer()) { server in
          let context = redisConnect("127.0.0.1", Int32(server.port))!
          defer { redisFree(context) }
          redisSetTimeout(context, timeval(tv_sec: 0, tv_usec: 300_000))
          var ticks = 0
          let ticker = spawn {
            while true {
              try sleep(for: .milliseconds(10))
              ticks += 1
            }
          }
          let time = ContinuousClock().measure {
            let answer = withWords(["BLPOP", "nothing", "0"]) {
              redisCommandArgv(context, 3, $0, nil)
            }
            #expect(answer == nil)
          }
          #expect(context.pointee.err == REDIS_ERR_IO)
          #expect(errno == EAGAIN)
          #expect(time >= .milliseconds(300))
          #expect(time < .seconds(3))
          #expect(ticks > 3)
          try ticker.kill()
        }
      }
    }

    /// A pipeline of commands that does not fit into the socket, on each of many connections.
    @Test(.timeLimit(.minutes(2)))
    func pipelinesRunBesideEachOther() async throws {
      try await runPatched {
        try withServer(RedisServer()) { server in
          let pipes = (0..<10).map { number in
            spawn {
              let context = redisConnect("127.0.0.1", Int32(server.port))!
              defer { redisFree(context) }
              let text = String(repeating: "\(number)", count: 20_000)
              for _ in 0..<100 {
                let end = withWords(["ECHO", text]) { redisAppendCommandArgv(context, 2, $0, nil) }
                #expect(end == REDIS_OK)
              }
              for _ in 0..<100 {
                var answer: UnsafeMutableRawPointer?
                #expect(redisGetReply(context, &answer) == REDIS_OK)
                guard let answer else { return }
                let reply = answer.assumingMemoryBound(to: redisReply.self)
                #expect(String(cString: reply.pointee.str) == text)
                freeReplyObject(answer)
              }
            }
          }
          for pipe in pipes { try pipe.get(timeout: limit) }
        }
      }
    }
  }
}
