// Evergreen: socket addresses as the system calls want them
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
public import Glibc
#else
public import Darwin
#endif

// What the kernel does that we must survive:
//
// 1. The length says how much of a Unix address counts. 0 is "no address" (a datagram from a
//    socket that was not bound; a stream socket's recvfrom). The size of the family alone is
//    "unnamed". A path's length usually, but not always, includes a zero byte; a path of 108
//    bytes, which Linux permits, has none inside sockaddr_un and is reported as 111 bytes long.
//    So the buffer is a sockaddr_storage, and a path ends at its first zero or at the length.
// 2. The length reported is that of the whole address, also where it did not fit.

extension SocketAddress {
  /// Calls `body` with this address as a `sockaddr`, valid during the call only.
  ///
  /// ```swift
  /// let result = address.withSockaddr { bind(descriptor, $0, $1) }
  /// ```
  ///
  /// - Parameter body: Gets the address and its length. It must not let the pointer escape.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws.
  public func withSockaddr<R, E: Error>(
    _ body: (UnsafePointer<sockaddr>, socklen_t) throws(E) -> R
  ) throws(E) -> R {
    switch storage {
    case .ipv4(let number, let port):
      var address = sockaddr_in()
      #if !os(Linux)
      address.sin_len = UInt8(MemoryLayout<sockaddr_in>.size)
      #endif
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = number.bigEndian
      return try withPointer(to: address, body)
    case .ipv6(let high, let low, let port, let scope, let flow):
      var address = sockaddr_in6()
      #if !os(Linux)
      address.sin6_len = UInt8(MemoryLayout<sockaddr_in6>.size)
      #endif
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = port.bigEndian
      address.sin6_flowinfo = flow.bigEndian
      address.sin6_scope_id = scope
      withUnsafeMutableBytes(of: &address.sin6_addr) {
        $0.storeBytes(of: high.bigEndian, as: UInt64.self)
        $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
      }
      return try withPointer(to: address, body)
    case .unix(let bytes):
      var address = sockaddr_storage()
      // A path has its zero byte counted, where there is room for it.
      let terminator = bytes.isEmpty || bytes[0] == 0 ? 0 : 1
      let length = min(
        Self.pathOffset + bytes.count + terminator,
        max(MemoryLayout<sockaddr_un>.size, Self.pathOffset + bytes.count))
      address.ss_family = sa_family_t(AF_UNIX)
      #if !os(Linux)
      address.ss_len = UInt8(length)
      #endif
      withUnsafeMutableBytes(of: &address) {
        UnsafeMutableRawBufferPointer(rebasing: $0[Self.pathOffset...]).copyBytes(from: bytes)
      }
      return try withPointer(to: address, length: length, body)
    }
  }

  /// The address at `pointer`, or `nil` if there is none (`length` is 0, which is what a datagram
  /// from an unbound Unix socket has), if it is cut off or if it is of a family not known here.
  ///
  /// - Parameters:
  ///   - pointer: A `sockaddr` of any family.
  ///   - length: How many bytes of it count, as the system call reported it.
  public init?(_ pointer: UnsafePointer<sockaddr>, length: socklen_t) {
    self.init(UnsafeRawBufferPointer(start: pointer, count: Int(length)))
  }

  /// Lets a system call write an address, and reads it. Nothing is allocated for IPv4 and IPv6.
  ///
  /// ```swift
  /// let (accepted, peer) = try SocketAddress.capture { address, length throws(Errno) in
  ///   try checked { accept4(descriptor, address, length, SOCK_CLOEXEC) }
  /// }
  /// ```
  ///
  /// - Parameter body: Gets room for the address, zeroed, and for its length, set to that room.
  ///   It must not park, nor let the pointers escape.
  /// - Returns: What `body` returned, and the address; `nil` as in ``init(_:length:)``.
  /// - Throws: What `body` throws.
  package static func capture<R, E: Error>(
    _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) throws(E) -> R
  ) throws(E) -> (result: R, address: SocketAddress?) {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = try withUnsafeMutablePointer(to: &storage) { (pointer) throws(E) -> R in
      let address = UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: sockaddr.self)
      return try body(address, &length)
    }
    let count = min(Int(length), MemoryLayout<sockaddr_storage>.size)
    let address = withUnsafeBytes(of: &storage) { SocketAddress(.init(rebasing: $0[..<count])) }
    return (result, address)
  }

  /// The address that `bytes` hold, which need not be aligned.
  package init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.familyEnd else { return nil }
    let family = bytes.loadUnaligned(fromByteOffset: Self.familyOffset, as: sa_family_t.self)
    switch Int32(family) {
    case AF_INET:
      guard bytes.count >= MemoryLayout<sockaddr_in>.size else { return nil }
      let address = bytes.loadUnaligned(as: sockaddr_in.self)
      self.init(
        .ipv4(UInt32(bigEndian: address.sin_addr.s_addr), port: UInt16(bigEndian: address.sin_port))
      )
    case AF_INET6:
      guard bytes.count >= MemoryLayout<sockaddr_in6>.size else { return nil }
      let address = bytes.loadUnaligned(as: sockaddr_in6.self)
      let (high, low) = Self.halves(of: address.sin6_addr)
      self.init(
        .ipv6(
          high: high, low: low, port: UInt16(bigEndian: address.sin6_port),
          scope: address.sin6_scope_id, flow: UInt32(bigEndian: address.sin6_flowinfo)))
    case AF_UNIX:
      var name = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(Self.pathOffset))
      #if os(Linux)
      let isAbstract = name.first == 0
      #else
      let isAbstract = false
      #endif
      if !isAbstract, let end = name.firstIndex(of: 0) {
        name = UnsafeRawBufferPointer(rebasing: name[..<end])
      }
      self.init(.unix(Array(name)))
    default:
      return nil
    }
  }

  /// The two halves of an IPv6 address, as numbers.
  static func halves(of address: in6_addr) -> (high: UInt64, low: UInt64) {
    withUnsafeBytes(of: address) {
      (
        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      )
    }
  }

  private static let familyOffset = MemoryLayout<sockaddr>.offset(of: \.sa_family)!
  private static let familyEnd = familyOffset + MemoryLayout<sa_family_t>.size

  private func withPointer<T, R, E: Error>(
    to address: T, length: Int = MemoryLayout<T>.size,
    _ body: (UnsafePointer<sockaddr>, socklen_t) throws(E) -> R
  ) throws(E) -> R {
    try withUnsafePointer(to: address) { (pointer) throws(E) -> R in
      try body(
        UnsafeRawPointer(pointer).assumingMemoryBound(to: sockaddr.self), socklen_t(length))
    }
  }
}
