// Evergreen: pipelines of commands to Redis, by hiredis, which blocks.
// SPDX-License-Identifier: MIT

import ArgumentParser
import CRedis
import Evergreen
import EvergreenMonkey
import Glibc

struct RedisPipeline: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "redis-pipeline", abstract: "Counts in Redis, over many connections at once.",
    discussion: "Each connection sends its commands one behind the other, then reads the answers.")

  @Option(help: "The server's address or name.") var host = "127.0.0.1"
  @Option(help: "The server's port.") var port: UInt16 = 6379
  @Option(help: "How many connections there are.") var connections = 10
  @Option(help: "How many commands each sends.") var commands = 1000
  @Option(help: "The key that is counted in, and removed first.") var key = "evergreen:count"

  func validate() throws {
    for (name, value) in [("connections", connections), ("commands", commands)]
    where !(1...1_000_000).contains(value) {
      throw ValidationError("--\(name) must be between 1 and 1000000, not \(value)")
    }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)  // hiredis may write to a connection that has ended
    MonkeyPatch.install(.all)  // all else is as it would be with threads

    let first = try Redis(host, port)
    defer { first.close() }
    try first.send(["DEL", key])
    _ = try first.receive()
    Hub.current.onError = { _, _ in }  // the first error ends the program, which tells it then
    let time = try ContinuousClock().measure {
      let counters = (0..<connections).map { _ in spawn { try count() } }
      try joinAll(counters, raisingErrors: true)
    }
    try first.send(["GET", key])
    print("\(connections) connections have counted to \(try first.receive()) in \(time)")
  }

  func count() throws {
    let redis = try Redis(host, port)
    defer { redis.close() }
    for _ in 0..<commands { try redis.send(["INCR", key]) }
    var last = 0
    for _ in 0..<commands {
      guard let next = Int(try redis.receive()), next > last else {
        throw RedisError("an answer is not in order")
      }
      last = next
    }
  }
}

final class Redis {
  private let context: UnsafeMutablePointer<redisContext>

  init(_ host: String, _ port: UInt16) throws {
    context = redisConnect(host, Int32(port))
    if context.pointee.err != 0 {
      defer { redisFree(context) }
      throw RedisError("\(host):\(port): \(message)")
    }
  }

  /// Adds a command to what is to be sent.
  func send(_ words: [String]) throws {
    var copies = words.map { UnsafePointer<CChar>(strdup($0)) }
    defer { for copy in copies { free(UnsafeMutablePointer(mutating: copy)) } }
    guard redisAppendCommandArgv(context, Int32(words.count), &copies, nil) == REDIS_OK else {
      throw RedisError(message)
    }
  }

  /// Sends what is to be sent, and waits for the next answer.
  func receive() throws -> String {
    var answer: UnsafeMutableRawPointer?
    guard redisGetReply(context, &answer) == REDIS_OK, let answer else { throw RedisError(message) }
    defer { freeReplyObject(answer) }
    let reply = answer.assumingMemoryBound(to: redisReply.self).pointee
    let text = reply.str.map { String(cString: $0) } ?? "\(reply.integer)"
    if reply.type == REDIS_REPLY_ERROR { throw RedisError(text) }
    return text
  }

  private var message: String {
    withUnsafeBytes(of: context.pointee.errstr) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  func close() { redisFree(context) }
}

struct RedisError: Error, CustomStringConvertible {
  let description: String

  init(_ text: String) { description = text }
}

do { try RedisPipeline.parse().run() } catch {
  // As `RedisPipeline.main()`, but without the usage: one line says what is wrong.
  let code = RedisPipeline.exitCode(for: error)
  let text = RedisPipeline.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  RedisPipeline.exit(withError: code)
}
