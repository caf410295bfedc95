// Evergreen: socket addresses as texts
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension SocketAddress: CustomStringConvertible {
  /// The numeric address alone, without brackets, scope and port: `192.0.2.1` or `fe80::1`. `nil`
  /// for a Unix address.
  public var host: String? {
    switch storage {
    case .ipv4(let number, _):
      var address = in_addr(s_addr: number.bigEndian)
      return Self.printed(AF_INET, &address)
    case .ipv6(let high, let low, _, _, _):
      var address = (high.bigEndian, low.bigEndian)
      return Self.printed(AF_INET6, &address)
    case .unix:
      return nil
    }
  }

  /// The name of the interface ``scopeID`` refers to, or its number in digits if there is no such
  /// interface now; `nil` if there is no scope.
  public var scopeName: String? {
    let scope = scopeID
    guard scope != 0 else { return nil }
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(IF_NAMESIZE)) { buffer in
      if_indextoname(scope, buffer.baseAddress).map { String(cString: $0) } ?? String(scope)
    }
  }

  /// The address as ``init(parsing:)`` reads it: `192.0.2.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`,
  /// `unix:/run/a.socket`, `unix:@name`, or `unix:` for a Unix socket without a name.
  public var description: String {
    switch storage {
    case .ipv4(_, let port):
      return "\(host!):\(port)"
    case .ipv6(_, _, let port, _, _):
      return scopeName.map { "[\(host!)%\($0)]:\(port)" } ?? "[\(host!)]:\(port)"
    case .unix(let bytes):
      if bytes.first == 0 { return "unix:@" + Self.escaped(bytes.dropFirst()) }
      if bytes.first == UInt8(ascii: "@") { return "unix:\\x40" + Self.escaped(bytes.dropFirst()) }
      return "unix:" + Self.escaped(bytes[...])
    }
  }

  private static func printed(_ family: Int32, _ address: UnsafeRawPointer) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { buffer in
      let text = inet_ntop(family, address, buffer.baseAddress!, socklen_t(buffer.count))
      guard let text else { preconditionFailure("inet_ntop refused address family \(family)") }
      return String(cString: text)
    }
  }

  /// `bytes` as text, with `\xHH` for whatever would not survive as text or would spoil a line.
  private static func escaped(_ bytes: ArraySlice<UInt8>) -> String {
    let backslash = UInt8(ascii: "\\")
    let valid = String(validating: bytes, as: UTF8.self)
    if let valid, !bytes.contains(where: { $0 < 0x20 || $0 == 0x7f || $0 == backslash }) {
      return valid
    }
    var text: [UInt8] = []
    for byte in bytes {
      if byte == backslash {
        text += [backslash, backslash]
      } else if byte < 0x20 || byte == 0x7f || (byte >= 0x80 && valid == nil) {
        let digits = String(byte, radix: 16)
        text += "\\x\(digits.count == 1 ? "0" : "")\(digits)".utf8
      } else {
        text.append(byte)
      }
    }
    return String(decoding: text, as: UTF8.self)
  }
}
