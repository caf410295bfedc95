// Evergreen: tests of every socket option on real sockets
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite struct SocketOptionTests {
  /// A socket that is closed at the end.
  final class TestSocket {
    let descriptor: Int32

    init(_ family: SocketAddress.Family = .ipv4, _ type: SocketType = .stream) throws(Errno) {
      descriptor = try checked { socket(family.rawValue, type.rawValue, 0) }
    }

    deinit { close(descriptor) }

    func get<Value>(_ option: SocketOption<Value>) throws(Errno) -> Value {
      try option.get(from: descriptor)
    }

    func set<Value>(_ option: SocketOption<Value>, to value: Value) throws(Errno) {
      try option.set(value, on: descriptor)
    }

    func bind(_ address: SocketAddress) throws(Errno) {
      try address.withSockaddr { (pointer, length) throws(Errno) in
        #if canImport(Glibc)
        _ = try checked { Glibc.bind(descriptor, pointer, length) }
        #else
        _ = try checked { Darwin.bind(descriptor, pointer, length) }
        #endif
      }
    }

    func connect(_ address: SocketAddress) throws(Errno) {
      try address.withSockaddr { (pointer, length) throws(Errno) in
        #if canImport(Glibc)
        _ = try checked { Glibc.connect(descriptor, pointer, length) }
        #else
        _ = try checked { Darwin.connect(descriptor, pointer, length) }
        #endif
      }
    }

    func name() throws -> SocketAddress {
      let name = try SocketAddress.capture { (address, length) throws(Errno) in
        try checked { getsockname(descriptor, address, length) }
      }
      return try #require(name.address)
    }
  }

  static var flagsOfStreams: [SocketOption<Bool>] {
    var flags: [SocketOption<Bool>] = [.reuseAddress, .reusePort, .noDelay, .keepAlive, .cork]
    #if os(Linux)
    flags += [.quickAck, .fastOpenConnect]
    #endif
    return flags
  }

  @Test(arguments: flagsOfStreams)
  func switchesFlagsOfStreams(option: SocketOption<Bool>) throws {
    let socket = try TestSocket()
    for value in [true, false, true] {
      try socket.set(option, to: value)
      #expect(try socket.get(option) == value, "\(option)")
    }
  }

  @Test(arguments: [.broadcast, .multicastLoopback] as [SocketOption<Bool>])
  func switchesFlagsOfDatagrams(option: SocketOption<Bool>) throws {
    for family in [SocketAddress.Family.ipv4, .ipv6] {
      let socket = try TestSocket(family, .datagram)
      for value in [true, false, true] {
        try socket.set(option, to: value)
        #expect(try socket.get(option) == value, "\(option)")
      }
    }
  }

  @Test func switchesIPv6Only() throws {
    let socket = try TestSocket(.ipv6)
    for value in [true, false] {
      try socket.set(.ipv6Only, to: value)
      #expect(try socket.get(.ipv6Only) == value)
    }
    #expect(throws: Errno.self) { try TestSocket(.ipv4).get(.ipv6Only) }
  }

  @Test func ipv6OnlyLetsBothFamiliesShareAPort() throws {
    let first = try TestSocket(.ipv6)
    try first.set(.ipv6Only, to: true)
    try first.bind(.anyIPv6(port: 0))
    let port = try #require(try first.name().port)
    #expect(throws: Never.self) { try TestSocket(.ipv4).bind(.anyIPv4(port: port)) }
  }

  @Test func reusePortSharesAnAddress() throws {
    let sockets = try (TestSocket(), TestSocket(), TestSocket())
    try sockets.0.set(.reusePort, to: true)
    try sockets.0.bind(.loopbackIPv4(port: 0))
    let address = try sockets.0.name()
    #expect(throws: Errno.addressInUse) { try sockets.1.bind(address) }
    try sockets.2.set(.reusePort, to: true)
    #expect(throws: Never.self) { try sockets.2.bind(address) }
  }

  @Test func sizesBuffers() throws {
    let socket = try TestSocket()
    for option in [SocketOption<Int>.sendBufferSize, .receiveBufferSize] {
      try socket.set(option, to: 32 * 1024)
      #if os(Linux)
      #expect(try socket.get(option) == 64 * 1024)
      #else
      #expect(try socket.get(option) == 32 * 1024)
      #endif
      #expect(throws: Errno.invalidArgument) { try socket.set(option, to: 1 << 40) }
    }
  }

  @Test func setsTheLowWaterMark() throws {
    let socket = try TestSocket()
    #expect(try socket.get(.receiveLowWater) == 1)
    try socket.set(.receiveLowWater, to: 100)
    #expect(try socket.get(.receiveLowWater) == 100)
  }

  @Test func setsKeepAliveTimes() throws {
    let socket = try TestSocket()
    for option in [SocketOption<Duration>.keepAliveIdle, .keepAliveInterval] {
      try socket.set(option, to: .seconds(30))
      #expect(try socket.get(option) == .seconds(30))
      try socket.set(option, to: .milliseconds(1001))
      #expect(try socket.get(option) == .seconds(2), "rounded up")
      #expect(throws: Errno.invalidArgument) { try socket.set(option, to: .zero) }
      #expect(throws: Errno.invalidArgument) { try socket.set(option, to: .milliseconds(-1)) }
      #expect(throws: Errno.invalidArgument) { try socket.set(option, to: .seconds(Int64.max)) }
    }
    try socket.set(.keepAliveCount, to: 7)
    #expect(try socket.get(.keepAliveCount) == 7)
    #expect(throws: Errno.invalidArgument) { try socket.set(.keepAliveCount, to: 0) }
  }

  @Test func lingers() throws {
    let socket = try TestSocket()
    #expect(try socket.get(.linger) == nil)
    for value in [.seconds(5), .zero, nil] as [Duration?] {
      try socket.set(.linger, to: value)
      #expect(try socket.get(.linger) == value)
    }
    try socket.set(.linger, to: .nanoseconds(1))
    #expect(try socket.get(.linger) == .seconds(1))
    #expect(throws: Errno.invalidArgument) { try socket.set(.linger, to: .seconds(-1)) }
  }

  @Test func lingeringForZeroResetsTheConnection() throws {
    let server = try TestSocket()
    try server.bind(.loopbackIPv4(port: 0))
    _ = try checked { listen(server.descriptor, 1) }
    var client: TestSocket? = try TestSocket()
    try client?.connect(try server.name())
    let accepted = try checked { accept(server.descriptor, nil, nil) }
    defer { close(accepted) }
    try client?.set(.linger, to: .zero)
    client = nil
    var byte: UInt8 = 0
    #expect(throws: Errno.connectionReset) { try checked { recv(accepted, &byte, 1, 0) } }
  }

  @Test func tellsTheErrorOnce() throws {
    let closed = try TestSocket()
    try closed.bind(.loopbackIPv4(port: 0))
    let nobody = try closed.name()  // bound, but not listening
    let socket = try TestSocket()
    _ = fcntl(socket.descriptor, F_SETFL, O_NONBLOCK)
    #expect(try socket.get(.error) == nil)
    #expect(throws: Errno.nowInProgress) { try socket.connect(nobody) }
    var waiting = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
    #expect(poll(&waiting, 1, 5000) == 1)
    #expect(try socket.get(.error) == .connectionRefused)
    #expect(try socket.get(.error) == nil)
  }

  @Test func tellsTypeAndFamily() throws {
    for type in [SocketType.stream, .datagram] {
      for family in [SocketAddress.Family.ipv4, .ipv6, .unix] {
        let socket = try TestSocket(family, type)
        #expect(try socket.get(.socketType) == type)
        #expect(try socket.get(.family) == family)
      }
    }
    #expect(try TestSocket(.unix, .sequencedPacket).get(.socketType) == .sequencedPacket)
    let names = [SocketType.stream, .datagram, .sequencedPacket, .raw, SocketType(rawValue: 77)]
    #expect(
      names.map { "\($0)" } == ["stream", "datagram", "sequencedPacket", "raw", "socket type 77"])
  }

  @Test func tellsWhetherItListens() throws {
    let socket = try TestSocket()
    try socket.bind(.loopbackIPv4(port: 0))
    #expect(try !socket.get(.acceptsConnections))
    _ = try checked { listen(socket.descriptor, 1) }
    #expect(try socket.get(.acceptsConnections))
  }

  @Test(arguments: [SocketAddress.Family.ipv4, .ipv6])
  func limitsHops(family: SocketAddress.Family) throws {
    let socket = try TestSocket(family, .datagram)
    for option in [SocketOption<Int>.ttl, .multicastTTL] {
      try socket.set(option, to: 17)
      #expect(try socket.get(option) == 17, "\(option)")
      #expect(throws: Errno.invalidArgument) { try socket.set(option, to: 256) }
    }
    // And it was the right one of the two protocols' options.
    let code: (Int32, Int32) =
      family == .ipv6
      ? (Int32(IPPROTO_IPV6), IPV6_UNICAST_HOPS) : (Int32(IPPROTO_IP), IP_TTL)
    #expect(try socket.get(SocketOption<Int32>(level: code.0, name: code.1)) == 17)
  }

  @Test func opensFast() throws {
    let socket = try TestSocket()
    try socket.bind(.loopbackIPv4(port: 0))
    _ = try checked { listen(socket.descriptor, 5) }
    try socket.set(.fastOpen, to: 5)
    #expect(try socket.get(.fastOpen) > 0)
  }

  @Test func receivesFromGroups() throws {
    let interface = if_nametoindex(SocketAddressTests.loopbackInterface)
    let group = try SocketAddress.ipv4("239.255.77.1", port: 0)
    let receiver = try TestSocket(.ipv4, .datagram)
    try receiver.bind(.anyIPv4(port: 0))
    let port = try #require(try receiver.name().port)
    let membership = MulticastMembership(group, interface: interface)
    try receiver.set(.multicastJoin, to: membership)
    #expect(throws: Errno.addressInUse) { try receiver.set(.multicastJoin, to: membership) }

    let sender = try TestSocket(.ipv4, .datagram)
    try sender.set(.multicastInterface, to: Int(interface))
    let sent = group.with(port: port).withSockaddr { sendto(sender.descriptor, "x", 1, 0, $0, $1) }
    #expect(sent == 1)
    var waiting = pollfd(fd: receiver.descriptor, events: Int16(POLLIN), revents: 0)
    #expect(poll(&waiting, 1, 5000) == 1)

    try receiver.set(.multicastLeave, to: membership)
    #expect(throws: Errno.addressNotAvailable) {
      try receiver.set(.multicastLeave, to: membership)
    }
  }

  @Test func joinsIPv6GroupsAndSources() throws {
    let lo = SocketAddressTests.loopbackInterface
    let socket = try TestSocket(.ipv6, .datagram)
    let membership = MulticastMembership(try .ipv6("ff02::77%\(lo)", port: 0))
    #expect(membership.interface == if_nametoindex(lo))
    try socket.set(.multicastJoin, to: membership)
    try socket.set(.multicastLeave, to: membership)
    try socket.set(.multicastInterface, to: Int(membership.interface))
    #expect(try socket.get(.multicastInterface) == Int(membership.interface))

    let ipv4 = try TestSocket(.ipv4, .datagram)
    let sourced = MulticastMembership(
      try .ipv4("232.1.2.3", port: 0), interface: membership.interface,
      source: .loopbackIPv4(port: 0))
    try ipv4.set(.multicastJoin, to: sourced)
    try ipv4.set(.multicastLeave, to: sourced)
  }

  @Test func refusesSenselessMemberships() throws {
    let socket = try TestSocket(.ipv4, .datagram)
    #expect(throws: Errno.invalidArgument) {
      try socket.set(.multicastJoin, to: MulticastMembership(.unnamedUnix))
    }
    #expect(throws: Errno.invalidArgument) {
      try socket.set(
        .multicastJoin,
        to: MulticastMembership(
          try .ipv4("239.1.2.3", port: 0), source: .loopbackIPv6(port: 0)))
    }
    #expect(throws: Errno.self) {
      try socket.set(.multicastJoin, to: MulticastMembership(.loopbackIPv4(port: 0)))
    }
  }

  @Test func readOnlyAndWriteOnlyOptionsSaySo() throws {
    let socket = try TestSocket()
    #expect(throws: Errno.protocolNotAvailable) { try socket.set(.error, to: nil) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.set(.socketType, to: .raw) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.set(.family, to: .unix) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.set(.acceptsConnections, to: true) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.get(.multicastJoin) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.get(.multicastLeave) }
    #expect(throws: Errno.protocolNotAvailable) { try socket.get(.peerCredentials) }
  }

  @Test func reportsTheKernelsErrors() throws {
    #expect(throws: Errno.badFileDescriptor) { try SocketOption<Bool>.noDelay.get(from: -1) }
    #expect(throws: Errno.badFileDescriptor) { try SocketOption<Int>.ttl.set(1, on: -1) }
    let file = try checked { open("/dev/null", O_RDONLY) }
    defer { close(file) }
    #expect(throws: Errno.notSocket) { try SocketOption<Bool>.keepAlive.set(true, on: file) }
    #expect(throws: Errno.self) { try TestSocket(.unix).set(.noDelay, to: true) }
  }

  @Test func takesAnyOptionByItsConstants() throws {
    let socket = try TestSocket()
    let number = SocketOption<Int32>(level: SOL_SOCKET, name: SO_RCVLOWAT)
    try socket.set(number, to: 5)
    #expect(try socket.get(number) == 5)
    let flag = SocketOption<Bool>(level: SOL_SOCKET, name: SO_KEEPALIVE)
    try socket.set(flag, to: true)
    #expect(try socket.get(flag))
    #expect(try socket.get(.keepAlive))
    let bytes = SocketOption<[UInt8]>(level: SOL_SOCKET, name: SO_KEEPALIVE)
    #expect(try socket.get(bytes).contains(1))
    try socket.set(bytes, to: [0, 0, 0, 0])
    #expect(try !socket.get(.keepAlive))
    #expect("\(number)" == "option \(SOL_SOCKET)/\(SO_RCVLOWAT)")
    #expect("\(SocketOption<Bool>.noDelay)" == "noDelay")
  }

  @Test func tellsThePeersCredentials() throws {
    var pair: [Int32] = [-1, -1]
    _ = try checked { socketpair(AF_UNIX, SocketType.stream.rawValue, 0, &pair) }
    defer { for descriptor in pair { close(descriptor) } }
    #expect(try SocketOption.peerCredentials.get(from: pair[0]) == .current)
  }

  #if os(Linux)
  @Test func setsWhatOnlyLinuxHas() throws {
    let socket = try TestSocket()
    #expect(try socket.get(.userTimeout) == .zero)
    try socket.set(.userTimeout, to: .milliseconds(1500))
    #expect(try socket.get(.userTimeout) == .milliseconds(1500))
    try socket.set(.userTimeout, to: .microseconds(1))
    #expect(try socket.get(.userTimeout) == .milliseconds(1))

    try socket.set(.deferAccept, to: .seconds(3))
    #expect(try socket.get(.deferAccept) >= .seconds(3))
    try socket.set(.deferAccept, to: .zero)
    #expect(try socket.get(.deferAccept) == .zero)

    let unix = try TestSocket(.unix)
    #expect(try !unix.get(.passCredentials))
    try unix.set(.passCredentials, to: true)
    #expect(try unix.get(.passCredentials))
  }
  #endif
}
