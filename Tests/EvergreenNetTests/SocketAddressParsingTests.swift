// Evergreen: tests of the texts that socket addresses are read from and printed as
// SPDX-License-Identifier: MIT

import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite struct SocketAddressParsingTests {
  @Test(arguments: [
    ("1.2.3.4:80", "1.2.3.4", 80), ("0.0.0.0:0", "0.0.0.0", 0),
    ("255.255.255.255:65535", "255.255.255.255", 65535), (":80", "0.0.0.0", 80),
    ("*:80", "0.0.0.0", 80), ("[::1]:80", "::1", 80), ("[::]:80", "::", 80),
    ("[2001:0DB8:0:0:0:0:0:1]:1", "2001:db8::1", 1), ("[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4", 1),
    ("127.0.0.1:0080", "127.0.0.1", 80),
  ])
  func reads(text: String, host: String, port: UInt16) throws {
    let address = try SocketAddress(parsing: text)
    #expect(address.host == host)
    #expect(address.port == port)
    #expect(address.isIPv6 == host.contains(":"))
  }

  @Test func readsScopes() throws {
    let name = SocketAddressTests.loopbackInterface
    let address = try SocketAddress(parsing: "[fe80::1%\(name)]:80")
    #expect(address.scopeID == if_nametoindex(name))
    #expect(try SocketAddress(parsing: "[fe80::1%\(address.scopeID)]:80") == address)
  }

  @Test(arguments: [
    ("/run/a.socket", "/run/a.socket"), ("unix:/run/a.socket", "/run/a.socket"),
    ("unix:a.socket", "a.socket"), ("unix:80", "80"), ("/with:colon:80", "/with:colon:80"),
    ("/back\\slash", "/back\\slash"), ("unix:/back\\\\slash", "/back\\slash"),
    ("unix:\\x40name", "@name"), ("unix:/\\xc3\\xBC", "/ü"), ("/100%", "/100%"),
    ("unix:/a b", "/a b"),
  ])
  func readsPaths(text: String, path: String) throws {
    let address = try SocketAddress(parsing: text)
    #expect(address == (try .unix(path: path)))
    #expect(address.unixPath == path)
  }

  @Test(arguments: [
    ("unix:@name", "name"), ("unix:@", ""), ("unix:@@name", "@name"), ("unix:@/a/b", "/a/b"),
    ("unix:@a\\x00b", "a\0b"),
  ])
  func readsAbstractNames(text: String, name: String) throws {
    #expect(try SocketAddress(parsing: text) == .unix(abstract: name))
  }

  @Test(
    arguments: [
      ("", .missingPort), ("1.2.3.4", .missingPort), ("1.2.3.4:", .missingPort),
      (":", .missingPort), ("[::1]", .missingPort), ("[::1]:", .missingPort),
      ("localhost", .missingPort),
      ("1.2.3.4:65536", .badPort), ("1.2.3.4:99999999999999999999", .badPort),
      ("1.2.3.4:-1", .badPort), ("1.2.3.4:+1", .badPort), ("1.2.3.4:http", .badPort),
      ("1.2.3.4:80 ", .badPort), ("1.2.3.4: 80", .badPort), ("1.2.3.4:8\0", .badPort),
      ("1.2.3.4:٨٠", .badPort), ("1.2.3.4:0x50", .badPort),
      ("::1:80", .badHost), ("::1", .badHost), ("fe80::1%lo:80", .badHost), ("[::1:80", .badHost),
      ("[::1]80", .badHost), ("[]:80", .badHost), ("[1.2.3.4]:80", .badHost),
      ("[localhost]:80", .badHost), ("[*]:80", .badHost), ("1.2.3:80", .badHost),
      ("1.2.3.256:80", .badHost), ("1:80", .badHost), ("a b:80", .badHost), (" :80", .badHost),
      ("http://a:80", .badHost), ("user@host:80", .badHost), ("1.2.3.4\0:80", .badHost),
      ("**:80", .badHost), ("a\u{a0}b:80", .badHost),
      ("[fe80::1%]:80", .badScope), ("[fe80::1%no-such-if]:80", .badScope),
      ("localhost:80", .needsResolver), ("example.com:443", .needsResolver),
      ("bücher.example:80", .needsResolver),
      ("unix:", .badPath), ("unix:a\\b", .badPath), ("unix:a\\", .badPath), ("unix:\\x4", .badPath),
      ("unix:\\xzz", .badPath), ("unix:a\\x00b", .badPath), ("/a\0b", .badPath),
    ] as [(String, SocketAddressError.Reason)])
  func refuses(text: String, reason: SocketAddressError.Reason) {
    let error = #expect(throws: SocketAddressError.self) { try SocketAddress(parsing: text) }
    #expect(error?.reason == reason)
    #expect(error?.text == text)
  }

  @Test(arguments: [
    ("foo:99999", "address 'foo:99999': the port 99999 is not between 0 and 65535"),
    ("foo:http", "address 'foo:http': the port 'http' is not a number"),
    ("foo", "address 'foo': there is no port; write 'host:port'"),
    (
      "foo:80",
      "address 'foo:80': 'foo' is a name, not a numeric address, and must be resolved"
    ),
    ("::1", "address '::1': an IPv6 address needs brackets before its port, as in '[::1]:80'"),
    (
      "[1.2.3.4]:80", "address '[1.2.3.4]:80': '1.2.3.4' is not an IPv6 address such as 2001:db8::1"
    ),
    ("[::1%nope]:80", "address '[::1%nope]:80': there is no network interface 'nope'"),
    ("a/b:80", "address 'a/b:80': a host's name cannot contain \"/\""),
  ])
  func explains(text: String, sentence: String) {
    let error = #expect(throws: SocketAddressError.self) { try SocketAddress(parsing: text) }
    #expect(error.map { "\($0)" } == sentence)
  }

  @Test func refusesLongPaths() {
    let limit = SocketAddress.maximumUnixPathLength
    for prefix in ["/", "unix:/", "unix:@/"] {
      #expect(throws: Never.self) {
        try SocketAddress(parsing: prefix + String(repeating: "x", count: limit - 1))
      }
      let error = #expect(throws: SocketAddressError.self) {
        try SocketAddress(parsing: prefix + String(repeating: "x", count: limit))
      }
      #expect(error?.reason == .badPath)
      #expect(error?.explanation.contains("\(limit)") == true)
    }
  }

  @Test func printingRoundTrips() throws {
    let lo = if_nametoindex(SocketAddressTests.loopbackInterface)
    let addresses = try [
      SocketAddress.ipv4("1.2.3.4", port: 0), .anyIPv4(port: 65535), .anyIPv6(port: 1),
      .ipv6("fe80::1", port: 80, scope: lo), .ipv6("::1", port: 80, scope: lo),
      .ipv6("fe80::1", port: 80, scope: .max), .ipv6("1:2:3:4:5:6:7:8", port: 80),
      .ipv6("::ffff:1.2.3.4", port: 80), .unix(path: "/a"), .unix(path: "a"),
      .unix(path: "@a"), .unix(path: "/a\\x40"), .unix(path: "/ü\n\u{7f}"), .unix(path: "unix:a"),
      .unix(abstract: ""), .unix(abstract: "a"), .unix(abstract: "@a"),
      .unix(abstract: "a\0\u{1}\\ü"),
    ]
    for address in addresses {
      #expect(try SocketAddress(parsing: address.description) == address, "\(address)")
    }
    #expect(try SocketAddress.unix(path: "/ü\n").description == "unix:/ü\\x0a")
    #expect(try SocketAddress.unix(path: "@a\\").description == "unix:\\x40a\\\\")
    #expect(try SocketAddress.unix(abstract: "a").description == "unix:@a")
  }

  @Test func printingRoundTripsBytesThatAreNotText() throws {
    let address = try SocketAddress(parsing: "unix:@\\xff\\xc3\\xbc")
    #expect(address.abstractName == "\u{fffd}ü")
    #expect(address.description == "unix:@\\xff\\xc3\\xbc")
    #expect(try SocketAddress(parsing: address.description) == address)
  }
}

@Suite struct HostAndPortTests {
  @Test(arguments: [
    ("localhost:80", "localhost", 80), ("example.com.:443", "example.com.", 443),
    ("_srv.a-b.example:1", "_srv.a-b.example", 1), ("bücher.example:0", "bücher.example", 0),
    ("1.2.3.4:65535", "1.2.3.4", 65535), ("[::1]:80", "::1", 80), (":80", "", 80),
    ("*:80", "", 80), ("unix:80", "unix", 80), ("3com.example:80", "3com.example", 80),
  ])
  func reads(text: String, host: String, port: UInt16) throws {
    let parsed = try HostAndPort(parsing: text)
    #expect(parsed.host == host)
    #expect(parsed.port == port)
    #expect(try HostAndPort(parsing: parsed.description) == parsed)
    #expect(try HostAndPort(host, port: port) == parsed)
  }

  @Test(
    arguments: [
      ("", .missingPort), ("localhost", .missingPort), ("localhost:", .missingPort),
      ("foo:99999", .badPort), ("foo:http", .badPort), ("unix:/path", .badPort),
      ("[localhost]:80", .badHost), ("[]:80", .badHost), ("::1:80", .badHost),
      ("1.2.3:80", .badHost),
      ("a b:80", .badHost), ("a%b:80", .badHost), ("[::1%nope]:80", .badScope), ("a[:80", .badHost),
    ] as [(String, SocketAddressError.Reason)])
  func refuses(text: String, reason: SocketAddressError.Reason) {
    let error = #expect(throws: SocketAddressError.self) { try HostAndPort(parsing: text) }
    #expect(error?.reason == reason)
    #expect(error?.text == text)
  }

  @Test func refusesLongNames() {
    let longest = String(repeating: "a", count: 253)
    #expect(throws: Never.self) { try HostAndPort(longest + ".", port: 1) }
    #expect(throws: SocketAddressError.self) { try HostAndPort(longest + "aa", port: 1) }
  }

  @Test func knowsAddressesThatNeedNoResolver() throws {
    #expect(try HostAndPort(parsing: "localhost:80").address == nil)
    #expect(try HostAndPort(parsing: ":80").address == .anyIPv4(port: 80))
    #expect(try HostAndPort(parsing: "1.2.3.4:80").address == .ipv4("1.2.3.4", port: 80))
    #expect(try HostAndPort(parsing: "[::1]:80").address == .loopbackIPv6(port: 80))
    #expect(try HostAndPort("::1", port: 80).description == "[::1]:80")
    let lo = SocketAddressTests.loopbackInterface
    let scoped = try HostAndPort(parsing: "[fe80::1%\(lo)]:80")
    #expect(scoped.host == "fe80::1%\(lo)")
    #expect(scoped.address?.scopeID == if_nametoindex(lo))
  }
}
