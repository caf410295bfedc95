// Evergreen: tests of socket addresses against the kernel
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite struct SocketAddressSockaddrTests {
  /// A descriptor that is closed at the end.
  final class Descriptor {
    let number: Int32
    init(_ number: Int32) {
      precondition(number >= 0, "errno \(errno)")
      self.number = number
    }
    deinit { close(number) }
  }

  func open(_ family: SocketAddress.Family, datagram: Bool = false) -> Descriptor {
    #if canImport(Glibc)
    let kind = Int32((datagram ? SOCK_DGRAM : SOCK_STREAM).rawValue)
    #else
    let kind = datagram ? SOCK_DGRAM : SOCK_STREAM
    #endif
    return Descriptor(socket(family.rawValue, kind, 0))
  }

  func bind(_ descriptor: Descriptor, _ address: SocketAddress) throws(Errno) {
    try address.withSockaddr { (pointer, length) throws(Errno) in
      #if canImport(Glibc)
      _ = try checked { Glibc.bind(descriptor.number, pointer, length) }
      #else
      _ = try checked { Darwin.bind(descriptor.number, pointer, length) }
      #endif
    }
  }

  func bindError(_ descriptor: Descriptor, _ address: SocketAddress) -> Errno? {
    do throws(Errno) {
      try bind(descriptor, address)
      return nil
    } catch {
      return error
    }
  }

  func name(_ descriptor: Descriptor) throws -> SocketAddress? {
    try SocketAddress.capture { (address, length) throws(Errno) in
      try checked { getsockname(descriptor.number, address, length) }
    }.address
  }

  func temporaryPath(_ name: String, length: Int = 0) -> String {
    let path = "/tmp/evergreen-\(getpid())-\(name)"
    return path + String(repeating: "x", count: max(0, length - path.utf8.count))
  }

  @Test func roundTripsThroughSockaddr() throws {
    let longest = String(repeating: "x", count: SocketAddress.maximumUnixPathLength)
    let addresses = try [
      SocketAddress.ipv4("1.2.3.4", port: 0x1234), .ipv6("1:2:3:4:5:6:7:8", port: 0x1234),
      .ipv6("fe80::1", port: 80, scope: 3, flowInfo: 0x12345), .unix(path: "/tmp/a"),
      .unix(path: longest), .unix(abstract: ""), .unix(abstract: "a\0b"),
      .unix(abstract: longest), .unnamedUnix,
    ]
    for address in addresses {
      let copy = address.withSockaddr { SocketAddress($0, length: $1) }
      #expect(copy == address)
      let captured = SocketAddress.capture { room, length in
        address.withSockaddr { bytes, count in
          memcpy(room, bytes, Int(count))
          length.pointee = count
        }
      }
      #expect(captured.address == address)
    }
  }

  @Test func fillsInTheCStructures() throws {
    try SocketAddress.ipv4("1.2.3.4", port: 80).withSockaddr { pointer, length in
      #expect(length == socklen_t(MemoryLayout<sockaddr_in>.size))
      let address = UnsafeRawPointer(pointer).load(as: sockaddr_in.self)
      #expect(Int32(address.sin_family) == AF_INET)
      #expect(address.sin_port == UInt16(80).bigEndian)
      #expect(address.sin_addr.s_addr == UInt32(0x0102_0304).bigEndian)
    }
    try SocketAddress.unix(path: "/a").withSockaddr { pointer, length in
      #expect(Int(length) == MemoryLayout<sockaddr_un>.offset(of: \.sun_path)! + 3)
      #expect(Int32(pointer.pointee.sa_family) == AF_UNIX)
    }
    SocketAddress.unnamedUnix.withSockaddr { _, length in
      #expect(Int(length) == MemoryLayout<sockaddr_un>.offset(of: \.sun_path)!)
    }
  }

  @Test func passesResultsAndErrorsThrough() throws {
    let result = SocketAddress.capture { _, length in
      length.pointee = 0
      return "result"
    }
    #expect(result.result == "result")
    #expect(result.address == nil)
    #expect(throws: Errno.invalidArgument) {
      try SocketAddress.capture { (_, _) throws(Errno) in throw Errno.invalidArgument }
    }
    #expect(throws: Errno.badFileDescriptor) {
      try SocketAddress.anyIPv4(port: 0).withSockaddr { (pointer, length) throws(Errno) in
        _ = try checked { connect(-1, pointer, length) }
      }
    }
  }

  @Test func givesUpOnShortAndForeignAddresses() {
    var storage = sockaddr_storage()
    withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        for family in [AF_INET, AF_INET6, AF_UNIX, AF_APPLETALK, AF_UNSPEC] {
          pointer.pointee.sa_family = sa_family_t(family)
          #expect(SocketAddress(pointer, length: 0) == nil)
          #expect(SocketAddress(pointer, length: 1) == nil)
          if family != AF_UNIX { #expect(SocketAddress(pointer, length: 15) == nil) }
        }
        pointer.pointee.sa_family = sa_family_t(AF_INET6)
        #expect(SocketAddress(pointer, length: 27) == nil)
        #expect(SocketAddress(pointer, length: 28) == .anyIPv6(port: 0))
      }
    }
  }

  @Test func survivesLengthsBeyondTheRoom() {
    let captured = SocketAddress.capture { address, length in
      address.pointee.sa_family = sa_family_t(AF_UNIX)
      memset(UnsafeMutableRawPointer(address) + 2, 0x61, Int(length.pointee) - 2)
      length.pointee = 1000
    }
    #expect(captured.address?.unixPath?.utf8.count == MemoryLayout<sockaddr_storage>.size - 2)
  }

  @Test(arguments: ["127.0.0.1:0", "[::1]:0", ":0", "[::]:0"])
  func bindsAndNamesInternetSockets(text: String) throws {
    let address = try SocketAddress(parsing: text)
    let socket = open(address.family)
    let error = bindError(socket, address)
    if address.isIPv6, error == Errno(rawValue: EADDRNOTAVAIL) { return }  // no IPv6 here
    #expect(error == nil)
    let bound = try #require(try name(socket))
    #expect(bound.port != 0)
    #expect(bound.with(port: 0) == address)
  }

  @Test func bindsAndNamesPaths() throws {
    for length in [0, SocketAddress.maximumUnixPathLength] {
      let path = temporaryPath("bind", length: length)
      defer { unlink(path) }
      let socket = open(.unix)
      try bind(socket, .unix(path: path))
      #expect(try name(socket) == .unix(path: path))
      #expect(access(path, F_OK) == 0)
    }
  }

  #if os(Linux)
  @Test func bindsAndNamesAbstractNames() throws {
    for name in ["evergreen-\(getpid())", "evergreen-\(getpid())\0\u{1}"] {
      let socket = open(.unix)
      try bind(socket, .unix(abstract: name))
      #expect(try self.name(socket) == .unix(abstract: name))
    }
    let longest = String(repeating: "e", count: SocketAddress.maximumUnixPathLength)
    let socket = open(.unix)
    try bind(socket, .unix(abstract: longest))
    #expect(try name(socket) == .unix(abstract: longest))
  }

  @Test func bindingTheUnnamedAddressChoosesAName() throws {
    let socket = open(.unix)
    try bind(socket, .unnamedUnix)
    #expect(try name(socket)?.isAbstract == true)
  }

  /// Linux permits a path that fills `sun_path` without a zero behind it.
  @Test func readsAPathWithoutItsZero() throws {
    let path = temporaryPath("full", length: MemoryLayout<sockaddr_un>.size - 2)
    defer { unlink(path) }
    let socket = open(.unix)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address) {
      UnsafeMutableRawBufferPointer(rebasing: $0[2...]).copyBytes(from: path.utf8)
    }
    let result = withUnsafeBytes(of: &address) {
      Glibc.bind(
        socket.number, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self),
        socklen_t(MemoryLayout<sockaddr_un>.size))
    }
    try #require(result == 0)
    let name = try #require(try name(socket))
    #expect(name.unixPath == path)
    // And it can be used again.
    #expect(throws: Errno(rawValue: EADDRINUSE)) { try bind(open(.unix), name) }
  }
  #endif

  @Test func namesUnboundUnixSocketsUnnamed() throws {
    #expect(try name(open(.unix)) == .unnamedUnix)
    let path = temporaryPath("accept")
    defer { unlink(path) }
    let server = open(.unix)
    try bind(server, .unix(path: path))
    #expect(listen(server.number, 1) == 0)
    let client = open(.unix)
    try SocketAddress.unix(path: path).withSockaddr { (pointer, length) throws(Errno) in
      _ = try checked { connect(client.number, pointer, length) }
    }
    let (accepted, peer) = try SocketAddress.capture { (address, length) throws(Errno) in
      try checked { accept(server.number, address, length) }
    }
    close(accepted)
    #expect(peer == .unnamedUnix)
  }

  @Test func tellsWhoSentADatagram() throws {
    let receiver = open(.ipv4, datagram: true)
    let sender = open(.ipv4, datagram: true)
    try bind(receiver, .loopbackIPv4(port: 0))
    try bind(sender, .loopbackIPv4(port: 0))
    let target = try #require(try name(receiver))
    let sent = target.withSockaddr { sendto(sender.number, "x", 1, 0, $0, $1) }
    #expect(sent == 1)
    var byte: UInt8 = 0
    let (count, peer) = try SocketAddress.capture { (address, length) throws(Errno) in
      try checked { recvfrom(receiver.number, &byte, 1, 0, address, length) }
    }
    #expect(count == 1)
    #expect(peer == (try name(sender)))
  }

  @Test func aDatagramOfAnUnboundUnixSocketHasNoAddress() throws {
    let path = temporaryPath("datagram")
    defer { unlink(path) }
    let receiver = open(.unix, datagram: true)
    try bind(receiver, .unix(path: path))
    let sender = open(.unix, datagram: true)
    let sent = try SocketAddress.unix(path: path).withSockaddr {
      sendto(sender.number, "x", 1, 0, $0, $1)
    }
    #expect(sent == 1)
    var byte: UInt8 = 0
    let (_, peer) = try SocketAddress.capture { (address, length) throws(Errno) in
      try checked { recvfrom(receiver.number, &byte, 1, 0, address, length) }
    }
    #expect(peer == nil || peer == .unnamedUnix)
  }
}
