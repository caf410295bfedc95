// Evergreen: the ways in which the kernel can be asked for events
// SPDX-License-Identifier: MIT

import CLibev

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A way in which a ``Loop`` asks the kernel which descriptors are ready.
///
/// The environment variable `EVERGREEN_BACKEND` names the backend of every loop that is made
/// without an explicit one; several names, separated by commas, are tried in that order.
///
/// > gevent: the `backend` argument of `gevent.core.loop` and `GEVENT_BACKEND`.
public struct Backend: Hashable, Sendable {
  /// The name, as in `EVERGREEN_BACKEND`: `select`, `poll`, `epoll`, `kqueue`.
  public let name: String

  /// libev's bit.
  let mask: UInt32

  /// `select(2)`: everywhere; its cost grows with the highest watched descriptor. Its time-outs
  /// are exact to the microsecond, the others' to the millisecond.
  public static let select = Backend(name: "select", mask: UInt32(EVBACKEND_SELECT))

  /// `poll(2)`: everywhere; its cost grows with the number of watched descriptors.
  public static let poll = Backend(name: "poll", mask: UInt32(EVBACKEND_POLL))

  /// `epoll(7)`: Linux, the default there.
  public static let epoll = Backend(name: "epoll", mask: UInt32(EVBACKEND_EPOLL))

  /// `kqueue(2)`: macOS and the BSDs.
  public static let kqueue = Backend(name: "kqueue", mask: UInt32(EVBACKEND_KQUEUE))

  /// Those that Evergreen knows, best first. libev's `linuxaio` and `iouring` are not among them:
  /// its own documentation advises against both.
  static let known: [Backend] = [.epoll, .kqueue, .poll, .select]

  /// The backends that this libev offers on this machine, best first.
  public static var available: [Backend] {
    let mask = ev_supported_backends()
    return known.filter { $0.mask & mask != 0 }
  }

  /// The backends that work well on this machine, best first; the default is among them.
  public static var recommended: [Backend] {
    let mask = ev_recommended_backends()
    return available.filter { $0.mask & mask != 0 }
  }

  /// The available backend called `name`, in whatever case.
  public init(named name: String) throws(LoopError) {
    let wanted = name.lowercased()
    guard let backend = Backend.known.first(where: { $0.name == wanted }) else {
      throw LoopError(.unknownBackend, "there is no backend called '\(name)'; \(Backend.choice)")
    }
    guard Backend.available.contains(backend) else {
      throw LoopError(
        .unavailableBackend, "this libev does not offer the backend '\(name)'; \(Backend.choice)")
    }
    self = backend
  }

  private init(name: String, mask: UInt32) {
    self.name = name
    self.mask = mask
  }

  private static var choice: String {
    "available: \(available.map(\.name).joined(separator: ", "))"
  }

  /// What a value of `EVERGREEN_BACKEND` asks for, in order of preference; empty when it asks for
  /// nothing. An unknown name is an error; an unavailable one only if it leaves none.
  package static func preferred(by setting: String?) throws(LoopError) -> [Backend] {
    guard let setting else { return [] }
    var found: [Backend] = []
    var failure: LoopError?
    for name in setting.split(whereSeparator: { $0 == "," || $0 == " " }) {
      do throws(LoopError) {
        found.append(try Backend(named: String(name)))
      } catch {
        if error.kind == .unknownBackend { throw error.prefixed("EVERGREEN_BACKEND: ") }
        failure = failure ?? error
      }
    }
    if found.isEmpty, let failure { throw failure.prefixed("EVERGREEN_BACKEND: ") }
    return found
  }

  /// The value of `EVERGREEN_BACKEND`.
  static var environmentSetting: String? {
    getenv("EVERGREEN_BACKEND").map { String(cString: $0) }
  }
}

extension Backend: CustomStringConvertible {
  /// The name.
  public var description: String { name }
}
