// Evergreen: the options that every kind of socket has
// SPDX-License-Identifier: MIT

public import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The C structure, whose name is also that of an option below.
private typealias CLinger = linger

extension SocketOption where Value == Bool {
  /// Whether the address may be bound although connections that used it linger (`TIME_WAIT`).
  /// The C constant is `SO_REUSEADDR`.
  public static var reuseAddress: SocketOption { .flag("reuseAddress", .socket(SO_REUSEADDR)) }

  /// Whether several sockets, each with this option set before it is bound, may share an address;
  /// the kernel spreads the connections over them. The C constant is `SO_REUSEPORT`.
  public static var reusePort: SocketOption { .flag("reusePort", .socket(SO_REUSEPORT)) }

  /// Whether an idle connection is probed now and then, so that the loss of the peer is noticed.
  /// The C constant is `SO_KEEPALIVE`.
  public static var keepAlive: SocketOption { .flag("keepAlive", .socket(SO_KEEPALIVE)) }

  /// Whether datagrams may be sent to broadcast addresses. The C constant is `SO_BROADCAST`.
  public static var broadcast: SocketOption { .flag("broadcast", .socket(SO_BROADCAST)) }

  /// Whether the socket listens. Read only. The C constant is `SO_ACCEPTCONN`.
  public static var acceptsConnections: SocketOption {
    SocketOption(
      "acceptsConnections", .socket(SO_ACCEPTCONN),
      read: { descriptor, code throws(Errno) in try code.value(on: descriptor, Int32(0)) != 0 },
      write: nil)
  }
}

extension SocketOption where Value == Int {
  /// The size of the kernel's send buffer, in bytes. Linux doubles what is set, for its own
  /// bookkeeping, and answers the double; it silently keeps within `net.core.wmem_max`. The C
  /// constant is `SO_SNDBUF`.
  public static var sendBufferSize: SocketOption { .number("sendBufferSize", .socket(SO_SNDBUF)) }

  /// The size of the kernel's receive buffer, in bytes. Linux doubles what is set, for its own
  /// bookkeeping, and answers the double; it silently keeps within `net.core.rmem_max`. The C
  /// constant is `SO_RCVBUF`.
  public static var receiveBufferSize: SocketOption {
    .number("receiveBufferSize", .socket(SO_RCVBUF))
  }

  /// How many bytes must have arrived before the socket counts as readable; 1 at first. The C
  /// constant is `SO_RCVLOWAT`.
  public static var receiveLowWater: SocketOption {
    .number("receiveLowWater", .socket(SO_RCVLOWAT))
  }
}

extension SocketOption where Value == Duration? {
  /// What closing does with data that was not sent yet. `nil`, as it is at first: the kernel goes
  /// on sending behind the scenes. `.zero`: the data is dropped and the connection reset. Any
  /// other time, rounded up to seconds: `close(2)` waits for the peer that long.
  ///
  /// > Important: With a time other than zero `close(2)` blocks the whole thread, hub and all; the
  /// > kernel does not care that the socket is non-blocking.
  ///
  /// The C constant is `SO_LINGER`.
  public static var linger: SocketOption {
    #if os(Linux)
    let name = SO_LINGER
    #else
    let name = SO_LINGER_SEC  // Darwin's SO_LINGER counts clock ticks
    #endif
    return SocketOption(
      "linger", .socket(name),
      read: { descriptor, code throws(Errno) in
        let value = try code.value(on: descriptor, CLinger())
        return value.l_onoff == 0 ? nil : .seconds(value.l_linger)
      },
      write: { value, descriptor, code throws(Errno) in
        var raw = CLinger()
        if let value {
          raw.l_onoff = 1
          raw.l_linger = try value.roundedUp(unitsPerSecond: 1)
        }
        try code.set(raw, on: descriptor)
      })
  }
}

extension SocketOption where Value == Errno? {
  /// The error that is pending on the socket, as after a connect in the background; `nil` for
  /// none. Reading it clears it. Read only. The C constant is `SO_ERROR`.
  public static var error: SocketOption {
    SocketOption(
      "error", .socket(SO_ERROR),
      read: { descriptor, code throws(Errno) in
        let value = try code.value(on: descriptor, Int32(0))
        return value == 0 ? nil : Errno(rawValue: value)
      }, write: nil)
  }
}

extension SocketOption where Value == SocketType {
  /// Whether the socket is for streams, datagrams or something else. Read only. The C constant is
  /// `SO_TYPE`.
  public static var socketType: SocketOption {
    SocketOption(
      "socketType", .socket(SO_TYPE),
      read: { descriptor, code throws(Errno) in
        SocketType(rawValue: try code.value(on: descriptor, Int32(0)))
      }, write: nil)
  }
}

extension SocketOption where Value == ProcessCredentials {
  /// The process at the other end of a connected Unix socket, as it was when it connected (or made
  /// the pair, or listened). Read only. The C constant is `SO_PEERCRED`.
  public static var peerCredentials: SocketOption {
    #if os(Linux)
    SocketOption(
      "peerCredentials", .socket(SO_PEERCRED),
      read: { descriptor, code throws(Errno) in
        guard try SocketOption<SocketAddress.Family>.family.get(from: descriptor) == .unix else {
          throw .protocolNotAvailable  // the kernel would answer with process 0
        }
        return try code.value(
          on: descriptor, ProcessCredentials(processID: 0, userID: 0, groupID: 0))
      }, write: nil)
    #else
    SocketOption(
      "peerCredentials", SocketOptionCode(level: SOL_LOCAL, name: LOCAL_PEERPID),
      read: { descriptor, code throws(Errno) in
        var user: uid_t = 0
        var group: gid_t = 0
        _ = try checked { getpeereid(descriptor, &user, &group) }
        return ProcessCredentials(
          processID: try code.value(on: descriptor, pid_t(0)), userID: user, groupID: group)
      }, write: nil)
    #endif
  }
}

#if os(Linux)
extension SocketOption where Value == Bool {
  /// Whether each message received on this Unix socket comes with its sender's
  /// ``ControlMessage/credentials(_:)``. The C constant is `SO_PASSCRED`.
  public static var passCredentials: SocketOption {
    .flag("passCredentials", .socket(SO_PASSCRED))
  }
}
#endif
