// Evergreen: socket options with the types of their values
// SPDX-License-Identifier: MIT

package import EventLoop

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

// How it works: an option is its level and name, and two functions that read and write its value
// in the kernel's own form. The functions capture nothing, so making and using an option allocates
// nothing. The few options that IPv4 and IPv6 have under different names carry both, and ask the
// socket for its family when used.

/// One of the settings of a socket, with the Swift type of its value.
///
/// ```swift
/// try socket.set(.noDelay, true)
/// try socket.set(.keepAliveIdle, .seconds(30))
/// let size = try socket.get(.receiveBufferSize)
/// ```
///
/// An option that is not listed here is made from its C constants, as in
/// `SocketOption<Int32>(level: SOL_SOCKET, name: SO_PRIORITY)`.
///
/// Writing an option that can only be read, and reading one that can only be written, fails with
/// ``Errno/protocolNotAvailable`` (`ENOPROTOOPT`), as it does in the kernel. A value that the C
/// type cannot hold, such as a negative time, fails with ``Errno/invalidArgument``.
///
/// > gevent: `socket.getsockopt` and `socket.setsockopt`.
public struct SocketOption<Value>: Sendable, CustomStringConvertible {
  typealias Read = @Sendable (_ descriptor: Int32, _ code: SocketOptionCode) throws(Errno) -> Value
  typealias Write =
    @Sendable (_ value: Value, _ descriptor: Int32, _ code: SocketOptionCode) throws(Errno) -> Void

  let code: SocketOptionCode
  /// What the option is called on an IPv6 socket, if that differs.
  let ipv6Code: SocketOptionCode?
  let label: StaticString?
  let read: Read?
  let write: Write?

  init(
    _ label: StaticString?, _ code: SocketOptionCode, ipv6: SocketOptionCode? = nil,
    read: Read?, write: Write?
  ) {
    self.code = code
    self.ipv6Code = ipv6
    self.label = label
    self.read = read
    self.write = write
  }

  /// The name of the option in Swift, as in `noDelay`, or its C constants, as in `option 6/12`.
  public var description: String {
    label.map { "\($0)" } ?? "option \(code.level)/\(code.name)"
  }

  /// The option's value on the socket `descriptor`.
  ///
  /// - Parameter descriptor: An open socket.
  /// - Returns: The value.
  /// - Throws: What `getsockopt(2)` says.
  package func get(from descriptor: Int32) throws(Errno) -> Value {
    guard let read else { throw .protocolNotAvailable }
    return try read(descriptor, code(on: descriptor))
  }

  /// Gives the option a value on the socket `descriptor`.
  ///
  /// - Parameters:
  ///   - value: The value.
  ///   - descriptor: An open socket.
  /// - Throws: What `setsockopt(2)` says.
  package func set(_ value: Value, on descriptor: Int32) throws(Errno) {
    guard let write else { throw .protocolNotAvailable }
    try write(value, descriptor, code(on: descriptor))
  }

  private func code(on descriptor: Int32) throws(Errno) -> SocketOptionCode {
    guard let ipv6Code else { return code }
    return try socketFamily(of: descriptor) == .ipv6 ? ipv6Code : code
  }
}

// MARK: Any option

extension SocketOption where Value == Int32 {
  /// An option whose value is an `int`, by its C constants.
  ///
  /// - Parameters:
  ///   - level: The protocol, as in `SOL_SOCKET` or `IPPROTO_TCP`.
  ///   - name: The option, as in `SO_PRIORITY`.
  public init(level: Int32, name: Int32) {
    self.init(
      nil, SocketOptionCode(level: level, name: name),
      read: { descriptor, code throws(Errno) in try code.value(on: descriptor, Int32(0)) },
      write: { value, descriptor, code throws(Errno) in try code.set(value, on: descriptor) })
  }
}

extension SocketOption where Value == Bool {
  /// An option whose value is an `int` that is 0 or not, by its C constants.
  ///
  /// - Parameters:
  ///   - level: The protocol, as in `SOL_SOCKET` or `IPPROTO_TCP`.
  ///   - name: The option, as in `SO_DONTROUTE`.
  public init(level: Int32, name: Int32) {
    self = .flag(nil, SocketOptionCode(level: level, name: name))
  }
}

extension SocketOption where Value == [UInt8] {
  /// An option whose value is a string or a structure, as bytes, by its C constants. At most 1,024
  /// bytes are read.
  ///
  /// - Parameters:
  ///   - level: The protocol, as in `SOL_SOCKET` or `IPPROTO_TCP`.
  ///   - name: The option, as in `SO_BINDTODEVICE` or `TCP_INFO`.
  public init(level: Int32, name: Int32) {
    self.init(
      nil, SocketOptionCode(level: level, name: name),
      read: { descriptor, code throws(Errno) in
        try withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 16) {
          (buffer) throws(Errno) -> [UInt8] in
          var length = socklen_t(buffer.count)
          _ = try checked {
            getsockopt(descriptor, code.level, code.name, buffer.baseAddress, &length)
          }
          return Array(buffer.prefix(Int(length)))
        }
      },
      write: { value, descriptor, code throws(Errno) in
        _ = try checked {
          setsockopt(descriptor, code.level, code.name, value, socklen_t(value.count))
        }
      })
  }
}

// MARK: The ways values are written in C

/// The C constants of an option, and the two system calls.
struct SocketOptionCode: Hashable, Sendable {
  var level: Int32
  var name: Int32

  init(level: Int32, name: Int32) {
    self.level = level
    self.name = name
  }

  static func socket(_ name: Int32) -> SocketOptionCode {
    SocketOptionCode(level: SOL_SOCKET, name: name)
  }

  static func tcp(_ name: Int32) -> SocketOptionCode {
    SocketOptionCode(level: Int32(IPPROTO_TCP), name: name)
  }

  static func ipv4(_ name: Int32) -> SocketOptionCode {
    SocketOptionCode(level: Int32(IPPROTO_IP), name: name)
  }

  static func ipv6(_ name: Int32) -> SocketOptionCode {
    SocketOptionCode(level: Int32(IPPROTO_IPV6), name: name)
  }

  /// What the kernel writes over `initial`.
  func value<T: BitwiseCopyable>(on descriptor: Int32, _ initial: T) throws(Errno) -> T {
    var value = initial
    var length = socklen_t(MemoryLayout<T>.size)
    _ = try checked { getsockopt(descriptor, level, name, &value, &length) }
    return value
  }

  func set<T: BitwiseCopyable>(_ value: T, on descriptor: Int32) throws(Errno) {
    try withUnsafeBytes(of: value) { (bytes) throws(Errno) in
      _ = try checked {
        setsockopt(descriptor, level, name, bytes.baseAddress, socklen_t(bytes.count))
      }
    }
  }
}

extension SocketOption where Value == Bool {
  static func flag(_ label: StaticString?, _ code: SocketOptionCode, ipv6: SocketOptionCode? = nil)
    -> SocketOption
  {
    SocketOption(
      label, code, ipv6: ipv6,
      read: { descriptor, code throws(Errno) in try code.value(on: descriptor, Int32(0)) != 0 },
      write: { value, descriptor, code throws(Errno) in
        try code.set(value ? Int32(1) : 0, on: descriptor)
      })
  }
}

extension SocketOption where Value == Int {
  static func number(
    _ label: StaticString, _ code: SocketOptionCode, ipv6: SocketOptionCode? = nil
  ) -> SocketOption {
    SocketOption(
      label, code, ipv6: ipv6,
      read: { descriptor, code throws(Errno) in Int(try code.value(on: descriptor, Int32(0))) },
      write: { value, descriptor, code throws(Errno) in
        guard let number = Int32(exactly: value) else { throw .invalidArgument }
        try code.set(number, on: descriptor)
      })
  }
}

extension SocketOption where Value == Duration {
  /// A time in whole seconds, rounded up.
  static func seconds(_ label: StaticString, _ code: SocketOptionCode) -> SocketOption {
    SocketOption(
      label, code,
      read: { descriptor, code throws(Errno) in
        .seconds(try code.value(on: descriptor, Int32(0)))
      },
      write: { value, descriptor, code throws(Errno) in
        try code.set(try value.roundedUp(unitsPerSecond: 1), on: descriptor)
      })
  }

  /// A time in milliseconds, rounded up.
  static func milliseconds(_ label: StaticString, _ code: SocketOptionCode) -> SocketOption {
    SocketOption(
      label, code,
      read: { descriptor, code throws(Errno) in
        .milliseconds(try code.value(on: descriptor, Int32(0)))
      },
      write: { value, descriptor, code throws(Errno) in
        try code.set(try value.roundedUp(unitsPerSecond: 1000), on: descriptor)
      })
  }
}

extension Duration {
  /// This time in a C `int`, never shorter than it was.
  func roundedUp(unitsPerSecond: Int64) throws(Errno) -> Int32 {
    let (seconds, attoseconds) = components
    guard self >= .zero, seconds <= Int64(Int32.max) else { throw .invalidArgument }
    let unit = 1_000_000_000_000_000_000 / unitsPerSecond
    let units = seconds * unitsPerSecond + (attoseconds + unit - 1) / unit
    guard let number = Int32(exactly: units) else { throw .invalidArgument }
    return number
  }
}

/// The family of the socket `descriptor`, bound or not.
private func socketFamily(of descriptor: Int32) throws(Errno) -> SocketAddress.Family {
  var address = sockaddr_storage()
  var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
  try withUnsafeMutablePointer(to: &address) { (pointer) throws(Errno) in
    let pointer = UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: sockaddr.self)
    _ = try checked { getsockname(descriptor, pointer, &length) }
  }
  return SocketAddress.Family(rawValue: Int32(address.ss_family))
}

extension SocketOption where Value == SocketAddress.Family {
  /// The family of the socket's addresses. Read only.
  public static var family: SocketOption {
    SocketOption(
      "family", .socket(SO_TYPE),
      read: { descriptor, _ throws(Errno) in try socketFamily(of: descriptor) }, write: nil)
  }
}
