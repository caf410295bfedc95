// Evergreen: names and addresses.
// SPDX-License-Identifier: MIT

import EventLoop
public import EvergreenHub
public import EvergreenSync

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Answers which addresses a name has, and which name an address has.
///
/// A resolver is asked only what needs one: numeric addresses are answered before. One of your own
/// says with ``ResolverError/notFound(_:)`` that there is no such name.
public protocol Resolver: AnyObject {
  /// The addresses of `host`, the best first, each with `port`.
  ///
  /// - Throws: ``ResolverError``; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
    -> [SocketAddress]

  /// The name of the host and of the service at `address`.
  ///
  /// > Switch point: Yes.
  func name(of address: SocketAddress) throws -> (host: String, service: String)
}

/// A look-up that failed: `look up no.such.host: Name or service not known`.
public struct ResolverError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was looked up.
  public let subject: String
  /// The `EAI_` code of `getaddrinfo(3)`.
  public let code: Int32
  /// Why it failed, without what was looked up: `Name or service not known`.
  public let reason: String

  /// For resolvers of one's own.
  ///
  /// - Parameters:
  ///   - subject: What was looked up.
  ///   - code: The `EAI_` code of `getaddrinfo(3)` that comes nearest; programs ask it through
  ///     ``isNotFound`` and ``isTransient``.
  ///   - reason: Why it failed, for people; `nil` for what the system says of `code`.
  public init(subject: String, code: Int32, reason: String? = nil) {
    self.subject = subject
    self.code = code
    self.reason = reason ?? String(cString: gai_strerror(code))
  }

  /// There is no such name, or it has no address of the family that was asked for.
  public static func notFound(_ subject: String) -> ResolverError {
    ResolverError(subject: subject, code: EAI_NONAME)
  }

  /// As `getaddrinfo(3)` has failed.
  init(subject: String, code: Int32, errno: Int32) {
    self.init(
      subject: subject, code: code,
      reason: code == EAI_SYSTEM ? Errno(rawValue: errno).description : nil)
  }

  /// The name does not exist, or has no address of the family that was asked for.
  public var isNotFound: Bool {
    #if os(Linux)
    code == EAI_NONAME || code == EAI_NODATA || code == EAI_ADDRFAMILY
    #else
    code == EAI_NONAME
    #endif
  }

  /// Worth another try later: a server did not answer.
  public var isTransient: Bool { code == EAI_AGAIN }

  public var description: String { "look up \(subject): \(reason)" }

  #if os(Linux)
  // glibc shows these with _GNU_SOURCE only.
  private var EAI_NODATA: Int32 { -5 }
  private var EAI_ADDRFAMILY: Int32 { -9 }
  #endif
}

/// Asks the C library, on threads: its answers are the system's, whatever that is configured to ask.
///
/// A look-up that is killed or timed out is left to end by itself; its answer is dropped. The hubs' own
/// resolver looks up 16 names at a time, and beside those up to 112 that nobody waits for any more
/// may still occupy threads until the system gives them up.
///
/// > gevent: `gevent.resolver.thread.Resolver`.
public final class ThreadPoolResolver: Resolver {
  package let pool: ThreadPool

  /// - Parameter pool: Where the look-ups run. Its size is how many names are looked up at a time.
  public init(pool: ThreadPool) { self.pool = pool }

  /// For whoever needs no pool of his own; look-ups do not compete with other work for threads.
  static let sharedPool = ThreadPool(maxThreads: 16, maxAbandoned: 112)

  public func addresses(
    of host: String, port: UInt16, family: SocketAddress.Family?
  ) throws -> [SocketAddress] {
    let wanted = family?.rawValue ?? AF_UNSPEC
    return try pool.run { try lookUp(host, port, wanted) }
  }

  public func name(of address: SocketAddress) throws -> (host: String, service: String) {
    try pool.run { try nameOf(address) }
  }
}

private func lookUp(_ host: String, _ port: UInt16, _ family: Int32) throws -> [SocketAddress] {
  var hints = addrinfo()
  hints.ai_family = family
  #if os(Linux)
  hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
  #else
  hints.ai_socktype = SOCK_STREAM
  #endif
  // C would read no further than the first of them.
  if host.utf8.contains(0) { throw ResolverError.notFound(host) }
  var list: UnsafeMutablePointer<addrinfo>?
  let code = getaddrinfo(host, String(port), &hints, &list)
  guard code == 0 else { throw ResolverError(subject: host, code: code, errno: errno) }
  defer { freeaddrinfo(list) }
  var found: [SocketAddress] = []
  var entry = list
  while let one = entry {
    if let pointer = one.pointee.ai_addr,
      let address = SocketAddress(pointer, length: one.pointee.ai_addrlen),
      !found.contains(address)
    {
      found.append(address)
    }
    entry = one.pointee.ai_next
  }
  return found
}

private func nameOf(_ address: SocketAddress) throws -> (host: String, service: String) {
  var host = [CChar](repeating: 0, count: 1025)  // NI_MAXHOST
  var service = [CChar](repeating: 0, count: 32)  // NI_MAXSERV
  let code = address.withSockaddr {
    getnameinfo(
      $0, $1, &host, socklen_t(host.count), &service, socklen_t(service.count), 0)
  }
  guard code == 0 else { throw ResolverError(subject: "\(address)", code: code, errno: errno) }
  return (text(host), text(service))
}

private func text(_ characters: [CChar]) -> String {
  String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

extension Hub {
  /// Answers the look-ups of this hub's greenlets. Replace it with your own.
  ///
  /// > gevent: `hub.resolver`.
  public var resolver: any Resolver {
    get {
      if let slot = attachments[ResolverSlot.key] as? ResolverSlot { return slot.resolver }
      let resolver = ThreadPoolResolver(pool: ThreadPoolResolver.sharedPool)
      self.resolver = resolver
      return resolver
    }
    set { attachments[ResolverSlot.key] = ResolverSlot(newValue) }
  }
}

private final class ResolverSlot {
  static var key: ObjectIdentifier { ObjectIdentifier(ResolverSlot.self) }
  let resolver: any Resolver

  init(_ resolver: any Resolver) { self.resolver = resolver }
}

extension SocketAddress {
  /// The addresses of a host, the best first.
  ///
  /// - Parameters:
  ///   - host: A name, or a numeric address, which is answered at once.
  ///   - port: What the addresses are given as their port.
  ///   - family: Only those of this family; `nil` for all.
  ///   - timeout: The longest wait; `nil` waits as long as the resolver does, `.zero` only takes what
  ///     the resolver knows without waiting.
  /// - Returns: One or more.
  /// - Throws: ``ResolverError``; a ``Timeout``; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless `host` is numeric. The C function is `getaddrinfo(3)`.
  ///
  /// > gevent: `gevent.socket.getaddrinfo(host, port)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func resolve(
    _ host: String, port: UInt16, family: Family? = nil, timeout: Duration? = nil
  ) throws -> [SocketAddress] {
    if let address = try? HostAndPort(host, port: port).address {
      guard family == nil || address.family == family else {
        throw ResolverError.notFound(host)
      }
      return [address]
    }
    // "127.1" is an address to the system; what is none, as "256.0.0.1", is not to be asked of a server.
    if host.utf8.allSatisfy({ $0.isDigit || $0 == UInt8(ascii: ".") }) {
      var unused = in_addr()
      if inet_aton(host, &unused) == 0 { throw ResolverError.notFound(host) }
    }
    let resolver = Hub.current.resolver
    let found = try withTimeout(timeout) {
      try resolver.addresses(of: host, port: port, family: family)
    }
    if found.isEmpty { throw ResolverError.notFound(host) }
    return found
  }

  /// Where to listen: what ``resolve(_:port:family:timeout:)`` says first, but `*` means all
  /// interfaces as in addresses with a port, and an IPv6 address may have its brackets.
  static func whereToListen(_ host: String, _ port: UInt16) throws -> SocketAddress {
    if host == "*" { return .anyIPv4(port: port) }
    if host.utf8.first == UInt8(ascii: "["), host.utf8.last == UInt8(ascii: "]") {
      return try .ipv6(String(host.dropFirst().dropLast()), port: port)
    }
    return try resolve(host, port: port)[0]
  }

  /// The name of the host and of the service at this address.
  ///
  /// > Switch point: Yes. The C function is `getnameinfo(3)`.
  ///
  /// > gevent: `gevent.socket.getnameinfo(sockaddr, flags)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func lookUpName(timeout: Duration? = nil) throws -> (host: String, service: String) {
    let resolver = Hub.current.resolver
    return try withTimeout(timeout) { try resolver.name(of: self) }
  }
}
