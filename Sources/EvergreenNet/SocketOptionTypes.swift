// Evergreen: the values of some socket options
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// How a socket carries data: the second argument of `socket(2)`.
public struct SocketType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  /// The C constant, without flags.
  public let rawValue: Int32

  /// The type whose C constant is `rawValue`.
  public init(rawValue: Int32) {
    self.rawValue = rawValue
  }

  #if canImport(Glibc)
  /// Bytes in order, without boundaries: `SOCK_STREAM`.
  public static let stream = SocketType(rawValue: Int32(SOCK_STREAM.rawValue))
  /// Single messages, which may get lost or change places, except on Unix: `SOCK_DGRAM`.
  public static let datagram = SocketType(rawValue: Int32(SOCK_DGRAM.rawValue))
  /// Messages in order, between two that are connected: `SOCK_SEQPACKET`.
  public static let sequencedPacket = SocketType(rawValue: Int32(SOCK_SEQPACKET.rawValue))
  /// Packets as they are on the network: `SOCK_RAW`.
  public static let raw = SocketType(rawValue: Int32(SOCK_RAW.rawValue))
  #else
  /// Bytes in order, without boundaries: `SOCK_STREAM`.
  public static let stream = SocketType(rawValue: SOCK_STREAM)
  /// Single messages, which may get lost or change places, except on Unix: `SOCK_DGRAM`.
  public static let datagram = SocketType(rawValue: SOCK_DGRAM)
  /// Messages in order, between two that are connected: `SOCK_SEQPACKET`.
  public static let sequencedPacket = SocketType(rawValue: SOCK_SEQPACKET)
  /// Packets as they are on the network: `SOCK_RAW`.
  public static let raw = SocketType(rawValue: SOCK_RAW)
  #endif

  /// `stream`, `datagram`, `sequencedPacket`, `raw`, or the number of another type.
  public var description: String {
    switch self {
    case .stream: "stream"
    case .datagram: "datagram"
    case .sequencedPacket: "sequencedPacket"
    case .raw: "raw"
    default: "socket type \(rawValue)"
    }
  }
}

/// Which group a socket joins or leaves, and where.
///
/// ```swift
/// let group = try SocketAddress.ipv4("239.1.2.3", port: 0)
/// try socket.set(.multicastJoin, MulticastMembership(group))
/// ```
public struct MulticastMembership: Hashable, Sendable {
  /// The group; its port does not matter.
  public var group: SocketAddress
  /// The network interface, by its number (`if_nametoindex(3)`); 0 for the system's choice.
  public var interface: UInt32
  /// The only sender to listen to; `nil` for all.
  public var source: SocketAddress?

  /// The membership in `group`.
  ///
  /// - Parameters:
  ///   - group: An IPv4 or IPv6 multicast address; its port does not matter.
  ///   - interface: The number of the network interface. `nil`, the default: the scope of `group`,
  ///     which is 0, the system's choice, where it has none.
  ///   - source: The only sender to listen to, of the same family; `nil` for all.
  public init(_ group: SocketAddress, interface: UInt32? = nil, source: SocketAddress? = nil) {
    self.group = group
    self.interface = interface ?? group.scopeID
    self.source = source
  }
}
