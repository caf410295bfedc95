// Evergreen: tests of SocketAddress as a value
// SPDX-License-Identifier: MIT

import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite struct SocketAddressTests {
  #if os(Linux)
  static let loopbackInterface = "lo"
  #else
  static let loopbackInterface = "lo0"
  #endif

  @Test func answersAboutIPv4() throws {
    let address = try SocketAddress.ipv4("192.0.2.1", port: 80)
    #expect(address.family == .ipv4)
    #expect(address.isIPv4 && !address.isIPv6 && !address.isUnix)
    #expect(address.host == "192.0.2.1")
    #expect(address.port == 80)
    #expect(address.scopeID == 0 && address.scopeName == nil && address.flowInfo == 0)
    #expect(address.unixPath == nil && address.abstractName == nil)
    #expect(!address.isAbstract && !address.isUnnamed)
    #expect(address.description == "192.0.2.1:80")
  }

  @Test func answersAboutIPv6() throws {
    let address = try SocketAddress.ipv6("2001:DB8:0::1", port: 443, flowInfo: 7)
    #expect(address.family == .ipv6)
    #expect(address.isIPv6 && !address.isIPv4 && !address.isUnix)
    #expect(address.host == "2001:db8::1")
    #expect(address.port == 443)
    #expect(address.flowInfo == 7)
    #expect(address.description == "[2001:db8::1]:443")
  }

  @Test func answersAboutUnix() throws {
    let address = try SocketAddress.unix(path: "/run/a.socket")
    #expect(address.family == .unix)
    #expect(address.isUnix && !address.isIPv4 && !address.isIPv6)
    #expect(address.unixPath == "/run/a.socket")
    #expect(address.host == nil && address.port == nil && address.abstractName == nil)
    #expect(!address.isAbstract && !address.isUnnamed)
    #expect(!address.isLoopback && !address.isAny && !address.isMulticast)
  }

  @Test func answersAboutAbstractAndUnnamed() throws {
    let abstract = try SocketAddress.unix(abstract: "bus")
    #expect(abstract.isUnix && abstract.isAbstract && !abstract.isUnnamed)
    #expect(abstract.abstractName == "bus")
    #expect(abstract.unixPath == nil)

    let empty = try SocketAddress.unix(abstract: "")
    #expect(empty.isAbstract && !empty.isUnnamed)
    #expect(empty.abstractName == "")

    let unnamed = SocketAddress.unnamedUnix
    #expect(unnamed.isUnix && unnamed.isUnnamed && !unnamed.isAbstract)
    #expect(unnamed.unixPath == nil && unnamed.abstractName == nil)
    #expect(unnamed.description == "unix:")
    #expect(Set([abstract, empty, unnamed]).count == 3)
  }

  @Test func describesFamilies() {
    #expect("\(SocketAddress.Family.ipv4)" == "IPv4")
    #expect("\(SocketAddress.Family.ipv6)" == "IPv6")
    #expect("\(SocketAddress.Family.unix)" == "Unix")
    #expect("\(SocketAddress.Family(rawValue: 99))" == "address family 99")
  }

  @Test(arguments: [
    ("127.0.0.1:1", true), ("127.9.9.9:1", true), ("128.0.0.1:1", false), ("0.0.0.0:1", false),
    ("[::1]:1", true), ("[::2]:1", false), ("[::]:1", false), ("[::ffff:127.0.0.1]:1", true),
    ("[::ffff:10.0.0.1]:1", false), ("/tmp/s", false),
  ])
  func knowsLoopback(text: String, expected: Bool) throws {
    #expect(try SocketAddress(parsing: text).isLoopback == expected)
  }

  @Test(arguments: [
    ("0.0.0.0:1", true), (":1", true), ("*:1", true), ("0.0.0.1:1", false), ("[::]:1", true),
    ("[::1]:1", false), ("[::ffff:0.0.0.0]:1", true), ("unix:@", false),
  ])
  func knowsAny(text: String, expected: Bool) throws {
    #expect(try SocketAddress(parsing: text).isAny == expected)
  }

  @Test(arguments: [
    ("224.0.0.1:1", true), ("239.255.255.255:1", true), ("240.0.0.1:1", false),
    ("223.255.255.255:1", false), ("[ff02::1]:1", true), ("[fe80::1]:1", false),
  ])
  func knowsMulticast(text: String, expected: Bool) throws {
    #expect(try SocketAddress(parsing: text).isMulticast == expected)
  }

  @Test func makesTheUsualOnes() {
    #expect(SocketAddress.anyIPv4(port: 1).description == "0.0.0.0:1")
    #expect(SocketAddress.anyIPv6(port: 2).description == "[::]:2")
    #expect(SocketAddress.loopbackIPv4(port: 3).description == "127.0.0.1:3")
    #expect(SocketAddress.loopbackIPv6(port: 4).description == "[::1]:4")
  }

  @Test func changesThePort() throws {
    #expect(SocketAddress.loopbackIPv4(port: 1).with(port: 2) == .loopbackIPv4(port: 2))
    let scoped = try SocketAddress.ipv6("fe80::1", port: 1, scope: 9, flowInfo: 8)
    #expect(
      try scoped.with(port: 2) == .ipv6("fe80::1", port: 2, scope: 9, flowInfo: 8))
    let path = try SocketAddress.unix(path: "/tmp/s")
    #expect(path.with(port: 2) == path)
  }

  @Test func unmapsIPv4() throws {
    let mapped = try SocketAddress(parsing: "[::ffff:192.0.2.1]:80")
    #expect(mapped.isIPv6)
    #expect(mapped.description == "[::ffff:192.0.2.1]:80")
    #expect(try mapped.unmapped == .ipv4("192.0.2.1", port: 80))
    #expect(mapped != mapped.unmapped)
    let plain = try SocketAddress(parsing: "[2001:db8::ffff:0:1]:80")
    #expect(plain.unmapped == plain)
  }

  @Test func everyPartCountsForEquality() throws {
    let all = try [
      SocketAddress.ipv4("10.0.0.1", port: 1), .ipv4("10.0.0.2", port: 1),
      .ipv4("10.0.0.1", port: 2), .ipv6("::1", port: 1), .ipv6("::2", port: 1),
      .ipv6("1::2", port: 1), .ipv6("::1", port: 2), .ipv6("::1", port: 1, scope: 1),
      .ipv6("::1", port: 1, flowInfo: 1), .unix(path: "a"), .unix(path: "b"),
      .unix(abstract: "a"), .unnamedUnix,
    ]
    #expect(Set(all).count == all.count)
    #expect(try SocketAddress.ipv6("0:0::0:1", port: 1) == .ipv6("::1", port: 1))
  }

  @Test func namesTheScope() throws {
    let name = Self.loopbackInterface
    let index = if_nametoindex(name)
    let address = try SocketAddress.ipv6("fe80::1%\(name)", port: 80)
    #expect(address.scopeID == index)
    #expect(address.scopeName == name)
    #expect(address.host == "fe80::1")
    #expect(address.description == "[fe80::1%\(name)]:80")
    #expect(try SocketAddress.ipv6("fe80::1", port: 80, scope: index) == address)
    #expect(try SocketAddress.ipv6("fe80::1%\(index)", port: 80) == address)
    #expect(try SocketAddress.ipv6("fe80::1%\(name)", port: 80, scope: index) == address)
  }

  @Test func printsAScopeThatHasNoNameAsANumber() throws {
    let address = try SocketAddress.ipv6("fe80::1", port: 80, scope: 4_000_000)
    #expect(address.scopeName == "4000000")
    #expect(address.description == "[fe80::1%4000000]:80")
    #expect(try SocketAddress(parsing: address.description) == address)
  }

  @Test func refusesContradictingScopes() throws {
    let error = #expect(throws: SocketAddressError.self) {
      try SocketAddress.ipv6("fe80::1%7000001", port: 80, scope: 2)
    }
    #expect(error?.reason == .badScope)
  }

  @Test(arguments: [
    "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", " 1.2.3.4", "::1", "1.2.3.4\0",
  ])
  func refusesAsIPv4(host: String) {
    let error = #expect(throws: SocketAddressError.self) {
      try SocketAddress.ipv4(host, port: 1)
    }
    #expect(error?.reason == .badHost)
    #expect(error?.text == host)
  }

  @Test(arguments: [
    "", "1.2.3.4", ":::", "::1::", "12345::", "[::1]", "::g", "::1\0", "%lo", "::1 ",
  ])
  func refusesAsIPv6(host: String) {
    let error = #expect(throws: SocketAddressError.self) {
      try SocketAddress.ipv6(host, port: 1)
    }
    #expect(error?.reason == .badHost)
    #expect(error?.text == host)
  }

  @Test(arguments: ["::1%", "::1%no-such-if", "::1%0", "::1%-1", "::1%99999999999", "::1%lo\0"])
  func refusesScopes(host: String) {
    let error = #expect(throws: SocketAddressError.self) {
      try SocketAddress.ipv6(host, port: 1)
    }
    #expect(error?.reason == .badScope)
  }

  @Test func limitsPaths() throws {
    let limit = SocketAddress.maximumUnixPathLength
    #if os(Linux)
    #expect(limit == 107)
    #endif
    let longest = String(repeating: "x", count: limit)
    #expect(try SocketAddress.unix(path: longest).unixPath == longest)
    #expect(try SocketAddress.unix(abstract: longest).abstractName == longest)

    let error = #expect(throws: SocketAddressError.self) {
      try SocketAddress.unix(path: longest + "x")
    }
    #expect(error?.reason == .badPath)
    #expect(
      error?.explanation
        == "the path has \(limit + 1) bytes, but a Unix socket's can have \(limit)")
    let other = #expect(throws: SocketAddressError.self) {
      try SocketAddress.unix(abstract: longest + "x")
    }
    #expect(other?.reason == .badPath)
    #expect(other?.explanation.contains("\(limit)") == true)
    // Bytes count, not characters.
    #expect(throws: SocketAddressError.self) {
      try SocketAddress.unix(path: String(repeating: "ü", count: limit / 2 + 1))
    }
  }

  @Test func refusesEmptyPathsAndZeros() throws {
    for path in ["", "/tmp/\0", "\0name"] {
      let error = #expect(throws: SocketAddressError.self) {
        try SocketAddress.unix(path: path)
      }
      #expect(error?.reason == .badPath)
    }
    #expect(try SocketAddress.unix(abstract: "a\0b").abstractName == "a\0b")
  }
}
