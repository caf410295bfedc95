// Evergreen: the address of a socket: IPv4, IPv6 or Unix
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Where a socket is, or shall connect to: IPv4, IPv6 or a Unix socket's path or abstract name.
///
/// ```swift
/// let server = try SocketAddress(parsing: "127.0.0.1:7777")
/// let printer = try SocketAddress.ipv6("fe80::1%eth0", port: 631)
/// let bus = try SocketAddress.unix(path: "/run/bus.socket")
/// ```
///
/// An address is numeric: no name is ever looked up here, and nothing waits. A host *name* with a
/// port is a ``HostAndPort``, which a resolver turns into addresses.
///
/// IPv4 and IPv6 addresses are stored in the value itself, so that copying one, or receiving it
/// with each datagram, allocates nothing. Only a Unix address has its bytes in an array.
///
/// > gevent: The tuples `(host, port)`, `(host, port, flowinfo, scope_id)` and the strings of
/// > Python's `socket` module, and the address texts that `StreamServer` takes.
public struct SocketAddress: Hashable, Sendable {
  /// Numbers are in the machine's byte order, ready to be looked at.
  enum Storage: Hashable, Sendable {
    case ipv4(UInt32, port: UInt16)
    case ipv6(high: UInt64, low: UInt64, port: UInt16, scope: UInt32, flow: UInt32)
    /// What counts in `sun_path`: nothing for an unnamed socket, a zero byte first for an abstract
    /// name, else the path without its final zero.
    case unix([UInt8])
  }

  let storage: Storage

  init(_ storage: Storage) {
    self.storage = storage
  }
}

// MARK: Making one

extension SocketAddress {
  /// The IPv4 address `host`, given in dotted form, with a port.
  ///
  /// - Parameters:
  ///   - host: Four decimal numbers, as in `192.0.2.1`. A name is not looked up.
  ///   - port: The port; 0 lets the system choose one when the address is bound.
  /// - Returns: The address.
  /// - Throws: ``SocketAddressError`` if `host` is not an IPv4 address. The C function is
  ///   `inet_pton(3)`.
  public static func ipv4(
    _ host: String, port: UInt16
  ) throws(SocketAddressError) -> SocketAddress {
    guard let number = parsedIPv4(host) else {
      throw SocketAddressError(host, .badHost, "this is not an IPv4 address such as 192.0.2.1")
    }
    return SocketAddress(.ipv4(number, port: port))
  }

  /// The IPv6 address `host`, without brackets, with a port.
  ///
  /// - Parameters:
  ///   - host: An IPv6 address, as in `2001:db8::1`. A scope may follow, as in `fe80::1%eth0` or
  ///     `fe80::1%2`.
  ///   - port: The port; 0 lets the system choose one when the address is bound.
  ///   - scope: The number of the network interface on which a link-local address lives. 0, the
  ///     default, means that `host` says it or that there is none.
  ///   - flowInfo: The flow label and traffic class (`sin6_flowinfo`), 0 for none. It is part of
  ///     the address's identity, but is not printed.
  /// - Returns: The address.
  /// - Throws: ``SocketAddressError`` if `host` is not an IPv6 address, names an interface that
  ///   does not exist, or contradicts `scope`.
  public static func ipv6(
    _ host: String, port: UInt16, scope: UInt32 = 0, flowInfo: UInt32 = 0
  ) throws(SocketAddressError) -> SocketAddress {
    let (high, low, written) = try parsedIPv6(host)
    guard written == 0 || scope == 0 || written == scope else {
      throw SocketAddressError(
        host, .badScope, "the scope in the text is interface \(written), not \(scope)")
    }
    return SocketAddress(
      .ipv6(high: high, low: low, port: port, scope: max(written, scope), flow: flowInfo))
  }

  /// All interfaces, IPv4: `0.0.0.0`.
  public static func anyIPv4(port: UInt16) -> SocketAddress {
    SocketAddress(.ipv4(0, port: port))
  }

  /// All interfaces, IPv6: `::`. Where the system allows it, and ``SocketOption/ipv6Only`` is off,
  /// a socket bound to this takes IPv4 connections too.
  public static func anyIPv6(port: UInt16) -> SocketAddress {
    SocketAddress(.ipv6(high: 0, low: 0, port: port, scope: 0, flow: 0))
  }

  /// This machine, IPv4: `127.0.0.1`.
  public static func loopbackIPv4(port: UInt16) -> SocketAddress {
    SocketAddress(.ipv4(0x7f00_0001, port: port))
  }

  /// This machine, IPv6: `::1`.
  public static func loopbackIPv6(port: UInt16) -> SocketAddress {
    SocketAddress(.ipv6(high: 0, low: 1, port: port, scope: 0, flow: 0))
  }

  /// The Unix socket at `path`.
  ///
  /// - Parameter path: A path, absolute or relative to the working directory of whoever uses the
  ///   address. At most ``maximumUnixPathLength`` bytes of UTF-8.
  /// - Returns: The address.
  /// - Throws: ``SocketAddressError`` if `path` is empty, too long or contains a zero byte.
  public static func unix(path: String) throws(SocketAddressError) -> SocketAddress {
    try checkPath(path.utf8, named: path)
    return SocketAddress(.unix(Array(path.utf8)))
  }

  /// The Unix socket whose abstract name is `name`: one that is in no file system, and vanishes
  /// with its last descriptor. Only Linux has them.
  ///
  /// - Parameter name: The name, without the zero byte that marks it as abstract. It may be empty,
  ///   and may contain zero bytes. At most ``maximumUnixPathLength`` bytes of UTF-8.
  /// - Returns: The address.
  /// - Throws: ``SocketAddressError`` if `name` is too long.
  public static func unix(abstract name: String) throws(SocketAddressError) -> SocketAddress {
    try checkAbstract(name.utf8.count, named: name)
    return SocketAddress(.unix([0] + name.utf8))
  }

  /// A Unix socket that has no name: one that was not bound, or one of a socket pair.
  ///
  /// Binding a socket to this address makes Linux choose an abstract name.
  public static let unnamedUnix = SocketAddress(.unix([]))

  /// The most bytes that the path or the abstract name of a Unix socket can have: 107 on Linux,
  /// 103 on Darwin. (One more is taken by the zero after a path, or before an abstract name.)
  public static let maximumUnixPathLength =
    MemoryLayout<sockaddr_un>.size - pathOffset - 1

  static func checkPath(
    _ bytes: some Collection<UInt8>, named text: String
  ) throws(SocketAddressError) {
    if bytes.isEmpty {
      throw SocketAddressError(text, .badPath, "the path of a Unix socket cannot be empty")
    }
    if bytes.contains(0) {
      throw SocketAddressError(text, .badPath, "the path contains a zero byte")
    }
    if bytes.count > maximumUnixPathLength {
      throw SocketAddressError(
        text, .badPath,
        "the path has \(bytes.count) bytes, but a Unix socket's can have \(maximumUnixPathLength)")
    }
  }

  static func checkAbstract(_ count: Int, named text: String) throws(SocketAddressError) {
    if count > maximumUnixPathLength {
      throw SocketAddressError(
        text, .badPath,
        "the abstract name has \(count) bytes, but a Unix socket's can have "
          + "\(maximumUnixPathLength)")
    }
  }

  /// Where `sun_path` begins in a `sockaddr_un`.
  static let pathOffset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path)!
}

// MARK: Looking at one

extension SocketAddress {
  /// The kind of network an address belongs to: the first argument of `socket(2)`.
  public struct Family: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The C constant.
    public let rawValue: Int32

    /// The family whose C constant is `rawValue`.
    public init(rawValue: Int32) {
      self.rawValue = rawValue
    }

    /// `AF_INET`.
    public static let ipv4 = Family(rawValue: AF_INET)
    /// `AF_INET6`.
    public static let ipv6 = Family(rawValue: AF_INET6)
    /// `AF_UNIX`.
    public static let unix = Family(rawValue: AF_UNIX)

    /// `IPv4`, `IPv6`, `Unix`, or the number of another family.
    public var description: String {
      switch rawValue {
      case AF_INET: "IPv4"
      case AF_INET6: "IPv6"
      case AF_UNIX: "Unix"
      default: "address family \(rawValue)"
      }
    }
  }

  /// The kind of network this address belongs to.
  public var family: Family {
    switch storage {
    case .ipv4: .ipv4
    case .ipv6: .ipv6
    case .unix: .unix
    }
  }

  /// Whether this is an IPv4 address.
  public var isIPv4: Bool { if case .ipv4 = storage { true } else { false } }

  /// Whether this is an IPv6 address.
  public var isIPv6: Bool { if case .ipv6 = storage { true } else { false } }

  /// Whether this is the address of a Unix socket, named or not.
  public var isUnix: Bool { if case .unix = storage { true } else { false } }

  /// The port; `nil` for a Unix address, which has none.
  public var port: UInt16? {
    switch storage {
    case .ipv4(_, let port): port
    case .ipv6(_, _, let port, _, _): port
    case .unix: nil
    }
  }

  /// The same address with another port. A Unix address comes back as it is.
  public func with(port: UInt16) -> SocketAddress {
    switch storage {
    case .ipv4(let number, _):
      SocketAddress(.ipv4(number, port: port))
    case .ipv6(let high, let low, _, let scope, let flow):
      SocketAddress(.ipv6(high: high, low: low, port: port, scope: scope, flow: flow))
    case .unix:
      self
    }
  }

  /// The network interface on which an IPv6 address is meant, by its number
  /// (`if_nametoindex(3)`); 0 for none, and for the other families.
  public var scopeID: UInt32 {
    if case .ipv6(_, _, _, let scope, _) = storage { scope } else { 0 }
  }

  /// The flow label and traffic class of an IPv6 address (`sin6_flowinfo`); 0 for none, and for
  /// the other families.
  public var flowInfo: UInt32 {
    if case .ipv6(_, _, _, _, let flow) = storage { flow } else { 0 }
  }

  /// The path of a Unix socket; `nil` if this is another kind of address, abstract or unnamed.
  ///
  /// Bytes that are not UTF-8 are replaced by U+FFFD; such a path cannot be had as a `String`.
  public var unixPath: String? {
    guard case .unix(let bytes) = storage, let first = bytes.first, first != 0 else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The abstract name of a Unix socket, without its leading zero byte; `nil` if this is another
  /// kind of address. Bytes that are not UTF-8 are replaced by U+FFFD.
  public var abstractName: String? {
    guard case .unix(let bytes) = storage, bytes.first == 0 else { return nil }
    return String(decoding: bytes.dropFirst(), as: UTF8.self)
  }

  /// Whether this is the abstract name of a Unix socket.
  public var isAbstract: Bool {
    if case .unix(let bytes) = storage { bytes.first == 0 } else { false }
  }

  /// Whether this is a Unix socket without a name.
  public var isUnnamed: Bool {
    if case .unix(let bytes) = storage { bytes.isEmpty } else { false }
  }

  /// Whether packets to this address stay on this machine: `127.0.0.0/8`, `::1`, and the former
  /// written as IPv6 (`::ffff:127.0.0.1`). `false` for a Unix address.
  public var isLoopback: Bool {
    switch unmapped.storage {
    case .ipv4(let number, _): number >> 24 == 127
    case .ipv6(let high, let low, _, _, _): high == 0 && low == 1
    case .unix: false
    }
  }

  /// Whether this stands for all addresses of the machine: `0.0.0.0`, `::` and
  /// `::ffff:0.0.0.0`.
  public var isAny: Bool {
    switch unmapped.storage {
    case .ipv4(let number, _): number == 0
    case .ipv6(let high, let low, _, _, _): high == 0 && low == 0
    case .unix: false
    }
  }

  /// Whether this is a group's address: `224.0.0.0/4` or `ff00::/8`.
  public var isMulticast: Bool {
    switch unmapped.storage {
    case .ipv4(let number, _): number >> 28 == 0xe
    case .ipv6(let high, _, _, _, _): high >> 56 == 0xff
    case .unix: false
    }
  }

  /// The IPv4 address in an IPv6 address of the form `::ffff:192.0.2.1`, which is how a socket for
  /// both families shows its IPv4 peers. Any other address comes back as it is.
  public var unmapped: SocketAddress {
    guard case .ipv6(high: 0, let low, let port, _, _) = storage, low >> 32 == 0xffff else {
      return self
    }
    return SocketAddress(.ipv4(UInt32(truncatingIfNeeded: low), port: port))
  }
}
