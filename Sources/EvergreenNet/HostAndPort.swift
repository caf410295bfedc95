// Evergreen: a host, perhaps a name, with a port
// SPDX-License-Identifier: MIT

/// A host and a port, as people write them; the host may be a name that a resolver must look up.
///
/// ```swift
/// let target = try HostAndPort(parsing: "example.com:443")
/// if let address = target.address {        // "192.0.2.1:443": nothing to look up
///   ...
/// }
/// ```
///
/// > gevent: The tuple `(host, port)`, and `gevent._util.parse_address` behind `StreamServer`.
public struct HostAndPort: Hashable, Sendable, CustomStringConvertible {
  /// The name, or the numeric address without brackets (an IPv6 address may have a `%scope`).
  /// Empty for all interfaces.
  public let host: String
  /// The port.
  public let port: UInt16

  /// Reads `localhost:80`, `example.com:443`, `192.0.2.1:80` or `[::1]:80`. `:80` and `*:80`, which
  /// mean all interfaces, have an empty ``host``.
  ///
  /// - Parameter text: The text. The port must be there, and in digits.
  /// - Throws: ``SocketAddressError``, which quotes `text` and says what is wrong with it. That a
  ///   name exists is not checked: that is for the resolver.
  public init(parsing text: String) throws(SocketAddressError) {
    do {
      let parts = try Parts(text)
      try self.init(String(parts.host == "*" ? "" : parts.host), port: parts.port)
      // "[localhost]:80" and "[]:80" are mistakes.
      if parts.isBracketed { _ = try SocketAddress.parsedIPv6(host) }
    } catch {
      throw error.about(text)
    }
  }

  /// The host and the port, given apart.
  ///
  /// - Parameters:
  ///   - host: A name, a numeric address without brackets, or nothing for all interfaces.
  ///   - port: The port.
  /// - Throws: ``SocketAddressError`` if `host` is neither an address nor a possible name.
  public init(_ host: String, port: UInt16) throws(SocketAddressError) {
    if host.utf8.contains(UInt8(ascii: ":")) {
      _ = try SocketAddress.parsedIPv6(host)
    } else if !host.isEmpty, SocketAddress.parsedIPv4(host) == nil {
      try Self.checkName(host[...])
    }
    self.host = host
    self.port = port
  }

  /// The address, if ``host`` is a number or empty (all interfaces, IPv4) and nothing need be looked
  /// up; else `nil`.
  public var address: SocketAddress? {
    if host.isEmpty { return .anyIPv4(port: port) }
    if let number = SocketAddress.parsedIPv4(host) {
      return SocketAddress(.ipv4(number, port: port))
    }
    return try? .ipv6(host, port: port)
  }

  /// `example.com:443`, `[::1]:80` or `:80`.
  public var description: String {
    host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)"
  }
}

// MARK: The grammar

extension HostAndPort {
  /// A text cut into host and port; the host not looked at yet.
  struct Parts {
    var host: Substring
    var isBracketed: Bool
    var port: UInt16

    init(_ text: String) throws(SocketAddressError) {
      let utf8 = text.utf8
      let colon: String.Index
      if utf8.first == UInt8(ascii: "[") {
        guard let close = utf8.firstIndex(of: UInt8(ascii: "]")) else {
          throw SocketAddressError(text, .badHost, "the '[' is not closed")
        }
        host = text[utf8.index(after: utf8.startIndex)..<close]
        isBracketed = true
        colon = utf8.index(after: close)
        guard colon < utf8.endIndex else {
          throw SocketAddressError(text, .missingPort, "no port follows the ']'")
        }
        guard utf8[colon] == UInt8(ascii: ":") else {
          throw SocketAddressError(text, .badHost, "only a ':' and a port may follow the ']'")
        }
      } else {
        guard let last = utf8.lastIndex(of: UInt8(ascii: ":")) else {
          throw SocketAddressError(text, .missingPort, "there is no port; write 'host:port'")
        }
        colon = last
        host = text[..<colon]
        isBracketed = false
        if host.utf8.contains(UInt8(ascii: ":")) {
          throw SocketAddressError(
            text, .badHost, "an IPv6 address needs brackets before its port, as in '[::1]:80'")
        }
      }
      let digits = text[utf8.index(after: colon)...]
      if digits.isEmpty {
        throw SocketAddressError(text, .missingPort, "no port follows the ':'")
      }
      guard digits.utf8.allSatisfy(\.isDigit) else {
        throw SocketAddressError(text, .badPort, "the port '\(digits)' is not a number")
      }
      guard let port = UInt16(digits) else {
        throw SocketAddressError(text, .badPort, "the port \(digits) is not between 0 and 65535")
      }
      self.port = port
    }
  }

  /// Refuses what cannot be a host's name; what can is for the resolver to judge.
  static func checkName(_ name: Substring) throws(SocketAddressError) {
    if let bad = name.unicodeScalars.first(where: { !mayBeInName($0) }) {
      throw SocketAddressError(
        name, .badHost, "a host's name cannot contain \(String(bad).debugDescription)")
    }
    if name.utf8.allSatisfy({ $0.isDigit || $0 == UInt8(ascii: ".") }) {
      throw SocketAddressError(
        name, .badHost, "'\(name)' is neither an IPv4 address such as 192.0.2.1 nor a name")
    }
    // A name has 253 bytes at most in the DNS; the 254th may be the dot that ends it.
    if name.utf8.count > 254 {
      throw SocketAddressError(
        name, .badHost, "the host's name has \(name.utf8.count) bytes, but can have 253")
    }
  }

  private static func mayBeInName(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", "-", "_", ".": true
    default: !scalar.isASCII && !scalar.properties.isWhitespace
    }
  }
}
