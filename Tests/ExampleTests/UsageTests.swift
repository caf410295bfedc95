// Evergreen: what all examples have in common: their help, and one line about a mistake.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenTesting
import Glibc
import Testing

@Suite struct UsageTests {
  static let options = [
    "chat-server": ["--host", "--port"],
    "echo-client": ["--host", "--port", "--connections", "--messages", "--size"],
    "echo-server": ["--host", "--port", "--hubs"],
    "mixed-async": ["--requests"],
    "multi-core-echo": ["--hubs", "--clients", "--messages"],
    "ping-pong": ["--rounds"],
    "port-forwarder": ["--host", "--port", "--to <host:port>"],
    "producer-consumer": [
      "--producers", "--consumers", "--items", "--capacity", "--poison",
    ],
    "resolve-many": ["<names>", "--concurrency", "--timeout"],
    "udp-echo": ["--host", "--port"],
    "web-crawler": ["--pages", "--concurrency", "--delay"],
  ]

  @Test(.timeLimit(.minutes(2)), arguments: options.keys.sorted())
  func helpNamesTheOptions(of name: String) async throws {
    try await runGreen {
      for flag in ["--help", "-h"] {
        let help = try run(name, [flag])
        #expect(help.ending == .exit(0))
        #expect(help.errorLines == [])
        let text = help.lines.joined(separator: "\n")
        #expect(text.contains("USAGE: \(name)"))
        for option in Self.options[name, default: []] { #expect(text.contains(option)) }
      }
    }
  }

  /// Programs with arguments that are wrong, and what the line about them must say.
  static let mistakes: [(command: String, complaint: String)] =
    ["chat-server", "echo-client", "echo-server", "port-forwarder --to 127.0.0.1:1", "udp-echo"]
    .flatMap {
      [
        ("\($0) --port 65536", "65536"), ("\($0) --port=-1", "-1"), ("\($0) --port http", "http"),
        ("\($0) --port", "--port"), ("\($0) --host 256.0.0.1. --port 0", "256.0.0.1."),
        ("\($0) --bogus", "--bogus"), ("\($0) surplus", "surplus"),
      ]
    } + [
      ("chat-server --host 192.0.2.1", "bind 192.0.2.1:7777: Cannot assign requested address"),
      ("echo-server --host 192.0.2.1", "bind 192.0.2.1:7777: Cannot assign requested address"),
      ("udp-echo --host 192.0.2.1", "bind 192.0.2.1:7777: Cannot assign requested address"),
      ("echo-client --connections 0", "--connections"), ("echo-client --messages=-3", "-3"),
      ("echo-client --size 99999999999", "--size"), ("echo-client --size many", "many"),
      ("echo-server --hubs 0", "--hubs"), ("echo-server --hubs many", "many"),
      ("echo-server --hubs 2 --host 192.0.2.1", "bind 192.0.2.1:7777: Cannot assign requested"),
      ("mixed-async --requests 0", "--requests"), ("multi-core-echo --hubs=-1", "-1"),
      ("multi-core-echo --clients 0", "--clients"), ("multi-core-echo --bogus", "--bogus"),
      ("ping-pong --rounds 0", "--rounds"), ("ping-pong --rounds x", "x"),
      ("ping-pong --bogus", "--bogus"), ("port-forwarder", "--to <host:port>"),
      ("port-forwarder --to :80", "--to :80 names no host"),
      ("port-forwarder --to *:80", "--to *:80 names no host"),
      ("port-forwarder --to nowhere", "address 'nowhere': there is no port"),
      ("port-forwarder --to 127.0.0.1:65536", "65536"), ("port-forwarder --to ::1:80", "brackets"),
      ("resolve-many --concurrency 0 x", "--concurrency"), ("resolve-many --timeout 0 x", "0.0"),
      ("resolve-many --timeout nan x", "nan"), ("resolve-many --timeout soon x", "soon"),
      ("resolve-many --bogus", "--bogus"), ("producer-consumer --capacity 0", "--capacity"),
      ("producer-consumer --poison x", "x"), ("web-crawler --pages 0", "--pages"),
      ("web-crawler --concurrency=-1", "-1"), ("web-crawler surplus", "surplus"),
    ]

  @Test(.timeLimit(.minutes(2)), arguments: mistakes)
  func aMistakeGetsOneLine(command: String, complaint: String) async throws {
    try await runGreen {
      let words = command.split(separator: " ").map(String.init)
      let failed = try run(words[0], Array(words.dropFirst()))
      #expect(failed.ending != .exit(0))
      #expect(failed.lines == [])
      #expect(failed.errorLines.count == 1, "\(failed.errorLines)")
      #expect(failed.errorLines.first?.contains(complaint) == true, "\(failed.errorLines)")
    }
  }
}

/// What all servers have in common.
@Suite struct ServingTests {
  static let servers = [
    ["chat-server"], ["echo-server"], ["echo-server", "--hubs", "3"],
    ["port-forwarder", "--to", "127.0.0.1:1"], ["udp-echo"],
  ]

  @Test(.timeLimit(.minutes(2)), arguments: servers, [SIGTERM, SIGINT])
  func endsWellWhenTold(server: [String], signal: Int32) async throws {
    try await runGreen {
      let child = try Child(server[0], server.dropFirst() + ["--port", "0"])
      defer { child.destroy() }
      let address = try child.address
      #expect(address.host == "127.0.0.1")
      #expect(address.port != 0)
      #expect(try child.end(by: signal) == .exit(0))
      #expect(child.lines.count == 1)
      #expect(child.errorLines == [])
    }
  }

  @Test(.timeLimit(.minutes(2)), arguments: servers)
  func saysWhenThePortIsTaken(server: [String]) async throws {
    try await runGreen {
      let type: SocketType = server[0] == "udp-echo" ? .datagram : .stream
      let holder = try Socket(.ipv4, type)
      defer { holder.close() }
      try holder.bind(to: .loopbackIPv4(port: 0))
      if type == .stream { try holder.listen() }
      let address = try holder.localAddress
      let child = try run(server[0], server.dropFirst() + ["--port", "\(address.port!)"])
      #expect(child.ending != .exit(0))
      #expect(child.errorLines == ["bind \(address): Address already in use"])
      #expect(child.lines == [])
    }
  }

  @Test(.timeLimit(.minutes(2)), .enabled(if: hasIPv6), arguments: servers)
  func listensAtIPv6(server: [String]) async throws {
    try await runGreen {
      let child = try Child(server[0], server.dropFirst() + ["--port", "0", "--host", "::1"])
      defer { child.destroy() }
      #expect(try child.address.with(port: 0) == .loopbackIPv6(port: 0))
      #expect(try child.end() == .exit(0))
    }
  }

  @Test(.timeLimit(.minutes(2)), arguments: servers)
  func listensAtAName(server: [String]) async throws {
    try await runGreen {
      let child = try Child(server[0], server.dropFirst() + ["--port", "0", "--host", "localhost"])
      defer { child.destroy() }
      #expect(try child.address.isLoopback)
      #expect(try child.end() == .exit(0))
    }
  }
}
