// Evergreen: the options of TCP, UDP and IP
// SPDX-License-Identifier: MIT

import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

// MARK: TCP

extension SocketOption where Value == Bool {
  /// Whether small pieces are sent at once, instead of being collected while earlier ones are not
  /// acknowledged (Nagle's algorithm). The C constant is `TCP_NODELAY`.
  public static var noDelay: SocketOption { .flag("noDelay", .tcp(TCP_NODELAY)) }

  /// Whether only full packets are sent for now; switching it off sends the rest. Linux does not
  /// wait longer than 200 ms. The C constant is `TCP_CORK`, on Darwin `TCP_NOPUSH`.
  public static var cork: SocketOption {
    #if os(Linux)
    .flag("cork", .tcp(TCP_CORK))
    #else
    .flag("cork", .tcp(TCP_NOPUSH))
    #endif
  }
}

extension SocketOption where Value == Duration {
  /// How long a connection with ``SocketOption/keepAlive`` is idle before it is probed; whole
  /// seconds, rounded up, at least one. The C constant is `TCP_KEEPIDLE`, on Darwin
  /// `TCP_KEEPALIVE`.
  public static var keepAliveIdle: SocketOption {
    #if os(Linux)
    .seconds("keepAliveIdle", .tcp(TCP_KEEPIDLE))
    #else
    .seconds("keepAliveIdle", .tcp(TCP_KEEPALIVE))
    #endif
  }

  /// The time between two probes; whole seconds, rounded up, at least one. The C constant is
  /// `TCP_KEEPINTVL`.
  public static var keepAliveInterval: SocketOption {
    .seconds("keepAliveInterval", .tcp(TCP_KEEPINTVL))
  }
}

extension SocketOption where Value == Int {
  /// After how many probes without an answer a connection is given up; at least 1. The C constant
  /// is `TCP_KEEPCNT`.
  public static var keepAliveCount: SocketOption { .number("keepAliveCount", .tcp(TCP_KEEPCNT)) }

  /// How many connections that brought data with their first packet may wait on a listening
  /// socket; 0 to allow none. The C constant is `TCP_FASTOPEN`.
  public static var fastOpen: SocketOption { .number("fastOpen", .tcp(TCP_FASTOPEN)) }
}

#if os(Linux)
extension SocketOption where Value == Bool {
  /// Whether what arrives is acknowledged at once. The kernel changes it by itself as it sees fit,
  /// so set it after each receive that needs it. The C constant is `TCP_QUICKACK`.
  public static var quickAck: SocketOption { .flag("quickAck", .tcp(TCP_QUICKACK)) }

  /// Whether `connect` may wait for the first data and send it with the first packet. The C
  /// constant is `TCP_FASTOPEN_CONNECT`.
  public static var fastOpenConnect: SocketOption {
    .flag("fastOpenConnect", .tcp(TCP_FASTOPEN_CONNECT))
  }
}

extension SocketOption where Value == Duration {
  /// How long sent data may stay unacknowledged before the connection is given up, in
  /// milliseconds, rounded up. `.zero`: as the system sees fit. The C constant is
  /// `TCP_USER_TIMEOUT`.
  public static var userTimeout: SocketOption {
    .milliseconds("userTimeout", .tcp(TCP_USER_TIMEOUT))
  }

  /// How long a connection is kept from a listening socket while no data has come; whole seconds,
  /// rounded up, and then to a number of retransmissions: reading gives a longer time than was
  /// set. `.zero`: not at all. The C constant is `TCP_DEFER_ACCEPT`.
  public static var deferAccept: SocketOption { .seconds("deferAccept", .tcp(TCP_DEFER_ACCEPT)) }
}
#endif

// MARK: IP

extension SocketOption where Value == Bool {
  /// Whether an IPv6 socket is for IPv6 only, or takes IPv4 too. To be set before it is bound. The
  /// C constant is `IPV6_V6ONLY`.
  public static var ipv6Only: SocketOption { .flag("ipv6Only", .ipv6(IPV6_V6ONLY)) }

  /// Whether what is sent to a group also comes to the members on this machine. The C constants
  /// are `IP_MULTICAST_LOOP` and `IPV6_MULTICAST_LOOP`.
  public static var multicastLoopback: SocketOption {
    .flag("multicastLoopback", .ipv4(IP_MULTICAST_LOOP), ipv6: .ipv6(IPV6_MULTICAST_LOOP))
  }
}

extension SocketOption where Value == Int {
  /// How many routers a packet may pass, 1 to 255. The C constants are `IP_TTL` and
  /// `IPV6_UNICAST_HOPS`.
  public static var ttl: SocketOption {
    .number("ttl", .ipv4(IP_TTL), ipv6: .ipv6(IPV6_UNICAST_HOPS))
  }

  /// How many routers a packet to a group may pass, 0 (it stays on this machine) to 255; 1 at
  /// first. The C constants are `IP_MULTICAST_TTL` and `IPV6_MULTICAST_HOPS`.
  public static var multicastTTL: SocketOption {
    .number("multicastTTL", .ipv4(IP_MULTICAST_TTL), ipv6: .ipv6(IPV6_MULTICAST_HOPS))
  }

  /// The network interface by which packets to groups leave, by its number (`if_nametoindex(3)`);
  /// 0 for the system's choice. On Linux an IPv4 socket's cannot be read back: it answers 0. The C
  /// constants are `IP_MULTICAST_IF` and `IPV6_MULTICAST_IF`.
  public static var multicastInterface: SocketOption {
    SocketOption(
      "multicastInterface", .ipv4(IP_MULTICAST_IF), ipv6: .ipv6(IPV6_MULTICAST_IF),
      read: { descriptor, code throws(Errno) in
        // For IPv4 the kernel answers an address, which is that of no interface in particular.
        guard code.level == Int32(IPPROTO_IPV6) else { return 0 }
        return Int(try code.value(on: descriptor, Int32(0)))
      },
      write: { value, descriptor, code throws(Errno) in
        guard let index = Int32(exactly: value) else { throw .invalidArgument }
        if code.level == Int32(IPPROTO_IPV6) {
          try code.set(index, on: descriptor)
        } else {
          var request = ip_mreqn()
          request.imr_ifindex = index
          try code.set(request, on: descriptor)
        }
      })
  }
}

extension SocketOption where Value == MulticastMembership {
  /// Makes the socket a member of a group. Write only. The C constants are `MCAST_JOIN_GROUP` and
  /// `MCAST_JOIN_SOURCE_GROUP`.
  public static var multicastJoin: SocketOption {
    SocketOption(
      "multicastJoin", .ipv4(MCAST_JOIN_GROUP), read: nil,
      write: { value, descriptor, _ throws(Errno) in
        try value.apply(MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, on: descriptor)
      })
  }

  /// Ends the socket's membership in a group. Write only. The C constants are `MCAST_LEAVE_GROUP`
  /// and `MCAST_LEAVE_SOURCE_GROUP`.
  public static var multicastLeave: SocketOption {
    SocketOption(
      "multicastLeave", .ipv4(MCAST_LEAVE_GROUP), read: nil,
      write: { value, descriptor, _ throws(Errno) in
        try value.apply(MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP, on: descriptor)
      })
  }
}

extension MulticastMembership {
  fileprivate func apply(
    _ groupOption: Int32, _ sourceOption: Int32, on descriptor: Int32
  ) throws(Errno) {
    guard !group.isUnix, source.map({ $0.family == group.family }) ?? true else {
      throw .invalidArgument
    }
    let level = Int32(group.isIPv6 ? IPPROTO_IPV6 : IPPROTO_IP)
    if let source {
      var request = group_source_req()
      request.gsr_interface = interface
      request.gsr_group = group.storageStructure
      request.gsr_source = source.storageStructure
      try SocketOptionCode(level: level, name: sourceOption).set(request, on: descriptor)
    } else {
      var request = group_req()
      request.gr_interface = interface
      request.gr_group = group.storageStructure
      try SocketOptionCode(level: level, name: groupOption).set(request, on: descriptor)
    }
  }
}

extension SocketAddress {
  fileprivate var storageStructure: sockaddr_storage {
    var storage = sockaddr_storage()
    withSockaddr { pointer, length in
      withUnsafeMutableBytes(of: &storage) {
        $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: Int(length)))
      }
    }
    return storage
  }
}
