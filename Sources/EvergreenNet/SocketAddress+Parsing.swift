// Evergreen: socket addresses from texts
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension SocketAddress {
  /// Reads an address. Whatever ``description`` prints is read back as an equal address, except
  /// for ``unnamedUnix`` and ``flowInfo``.
  ///
  /// | text | address |
  /// | --- | --- |
  /// | `192.0.2.1:80` | IPv4 |
  /// | `[2001:db8::1]:80` | IPv6 |
  /// | `[fe80::1%eth0]:80`, `[fe80::1%2]:80` | IPv6 with a scope |
  /// | `:80`, `*:80` | all interfaces, IPv4: the same as `0.0.0.0:80` |
  /// | `[::]:80` | all interfaces, IPv6, and IPv4 too unless ``SocketOption/ipv6Only`` is set |
  /// | `/run/a.socket`, `unix:/run/a.socket`, `unix:a.socket` | Unix path |
  /// | `unix:@name` | Unix abstract name |
  ///
  /// Behind `unix:`, `\\` is a backslash and `\x40` the byte 0x40: for bytes that are not UTF-8,
  /// zeros and control characters, and a relative path that begins with `@`. A text that begins
  /// with `/` is taken as it is.
  ///
  /// - Parameter text: The text. A host *name* is refused: see ``HostAndPort``.
  /// - Throws: ``SocketAddressError``, which quotes `text` and says what is wrong with it.
  public init(parsing text: String) throws(SocketAddressError) {
    do {
      if text.utf8.first == UInt8(ascii: "/") {
        self = try .unix(path: text)
      } else if text.utf8.starts(with: "unix:".utf8) {
        self = try .unix(escaped: text.utf8.dropFirst(5))
      } else {
        let parts = try HostAndPort.Parts(text)
        self = try SocketAddress(numeric: parts)
      }
    } catch {
      throw error.about(text)
    }
  }

  /// The address of a host that is a number.
  init(numeric parts: HostAndPort.Parts) throws(SocketAddressError) {
    let host = parts.host
    if parts.isBracketed {
      self = try .ipv6(String(host), port: parts.port)
    } else if host.isEmpty || host == "*" {
      self = .anyIPv4(port: parts.port)
    } else if let number = Self.parsedIPv4(String(host)) {
      self.init(.ipv4(number, port: parts.port))
    } else {
      try HostAndPort.checkName(host)
      throw SocketAddressError(
        host, .needsResolver, "'\(host)' is a name, not a numeric address, and must be resolved")
    }
  }

  /// The number of an IPv4 address in dotted form.
  static func parsedIPv4(_ host: String) -> UInt32? {
    var address = in_addr()
    // A zero byte would end the C string early, and hide what comes behind it.
    guard !host.utf8.contains(0), inet_pton(AF_INET, host, &address) == 1 else { return nil }
    return UInt32(bigEndian: address.s_addr)
  }

  /// The two halves and the scope of an IPv6 address without brackets.
  static func parsedIPv6(
    _ host: String
  ) throws(SocketAddressError) -> (high: UInt64, low: UInt64, scope: UInt32) {
    let percent = host.utf8.firstIndex(of: UInt8(ascii: "%"))
    let number = String(host[..<(percent ?? host.endIndex)])
    var address = in6_addr()
    guard !number.utf8.contains(0), inet_pton(AF_INET6, number, &address) == 1 else {
      throw SocketAddressError(
        host, .badHost, "'\(number)' is not an IPv6 address such as 2001:db8::1")
    }
    let (high, low) = halves(of: address)
    guard let percent else { return (high, low, 0) }
    return (high, low, try scope(named: host[host.utf8.index(after: percent)...], in: host))
  }

  /// The number of the interface that stands behind `%`. A name comes first, as in `getaddrinfo`.
  private static func scope(
    named name: Substring, in host: String
  ) throws(SocketAddressError) -> UInt32 {
    if name.isEmpty {
      throw SocketAddressError(host, .badScope, "no interface follows the '%'")
    }
    if !name.utf8.contains(0) {
      let index = if_nametoindex(String(name))
      if index != 0 { return index }
    }
    if name.utf8.allSatisfy(\.isDigit), let number = UInt32(name), number != 0 { return number }
    throw SocketAddressError(host, .badScope, "there is no network interface '\(name)'")
  }

  /// The Unix address written behind `unix:`.
  private static func unix(
    escaped text: Substring.UTF8View
  ) throws(SocketAddressError) -> SocketAddress {
    let isAbstract = text.first == UInt8(ascii: "@")
    let bytes = try unescaped(isAbstract ? text.dropFirst() : text)
    if isAbstract {
      try checkAbstract(bytes.count, named: "")
      return SocketAddress(.unix([0] + bytes))
    }
    try checkPath(bytes, named: "")
    return SocketAddress(.unix(bytes))
  }

  private static func unescaped(
    _ text: Substring.UTF8View
  ) throws(SocketAddressError) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "\\") else {
        bytes.append(byte)
        continue
      }
      switch rest.popFirst() {
      case UInt8(ascii: "\\"):
        bytes.append(byte)
      case UInt8(ascii: "x"):
        guard let high = rest.popFirst()?.hexDigit, let low = rest.popFirst()?.hexDigit else {
          throw SocketAddressError("", .badPath, "two hexadecimal digits must follow '\\x'")
        }
        bytes.append(high << 4 | low)
      default:
        throw SocketAddressError("", .badPath, "a backslash must be written '\\\\' behind 'unix:'")
      }
    }
    return bytes
  }
}

extension UInt8 {
  /// Whether this is an ASCII digit.
  var isDigit: Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) }

  /// The value of this hexadecimal digit.
  fileprivate var hexDigit: UInt8? {
    switch self {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): self - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): self - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): self - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
