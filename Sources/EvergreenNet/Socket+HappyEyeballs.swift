// Evergreen: connecting to a name that has several addresses, after RFC 8305.
// SPDX-License-Identifier: MIT
//
// 1. The families take turns in the order of the attempts, beginning with that of the resolver's
//    first answer.
// 2. Each attempt has a greenlet. The next one begins when the one before has failed, or after a
//    quarter of a second.
// 3. The first that is connected wins. The others are killed, and their sockets closed, whichever
//    way this call ends.

import EventLoop
import EvergreenBase
import EvergreenHub
import EvergreenSync

extension Socket {
  /// A socket connected to a host.
  ///
  /// - Parameters:
  ///   - host: A name or a numeric address; not empty.
  ///   - port: The TCP port.
  ///   - timeout: For the look-up and all attempts together; `nil` sets no limit. With `.zero` an
  ///     address that is known without waiting is tried, and succeeds if the peer answers at once.
  /// - Returns: The connected socket.
  /// - Throws: The ``SocketError`` of the first attempt if all fail; ``ResolverError``; a
  ///   ``SocketError`` whose `isTimeout` is true; ``SocketAddressError`` if `host` is empty, which
  ///   would be this machine; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `gevent.socket.create_connection`, which tries one address after the other.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func connect(
    host: String, port: UInt16, timeout: Duration? = nil
  ) throws -> Socket {
    if host.isEmpty {
      throw SocketAddressError(":\(port)", .badHost, "there is no host to connect to")
    }
    let target = (try? HostAndPort(host, port: port))?.description ?? "\(host):\(port)"
    let late = SocketError(.connect, .timedOut, host: target)
    let onlyLooks = timeout ?? .seconds(1) <= .zero
    return try withTimeout(onlyLooks ? nil : timeout, throwing: late) {
      let addresses = try withTimeout(onlyLooks ? .zero : nil, throwing: late) {
        try SocketAddress.resolve(host, port: port)
      }
      return try connect(toAnyOf: addresses, timeout: onlyLooks ? .zero : nil)
    }
  }

  /// A socket connected to the first of several addresses that answers.
  ///
  /// - Parameters:
  ///   - addresses: The best first; not empty.
  ///   - delay: How long one attempt is alone before the next begins.
  ///   - timeout: For all attempts together; `nil` sets no limit, `.zero` tries each once.
  /// - Returns: The connected socket.
  /// - Throws: The ``SocketError`` of the first attempt if all fail; one whose `isTimeout` is true;
  ///   what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public static func connect(
    toAnyOf addresses: [SocketAddress], delay: Duration = .milliseconds(250),
    timeout: Duration? = nil
  ) throws -> Socket {
    if addresses.isEmpty { fatal("there is no address to connect to") }
    if addresses.count == 1 { return try connect(to: addresses[0], timeout: timeout) }
    if let timeout, timeout <= .zero { return try connectAtOnce(alternatingFamilies(addresses)) }
    let late = SocketError(.connect, .timedOut, addresses[0])
    return try withTimeout(timeout, throwing: late) { try race(addresses, delay) }
  }

  private static func connectAtOnce(_ addresses: [SocketAddress]) throws -> Socket {
    var first: SocketError?
    for address in addresses {
      do { return try connect(to: address, timeout: .zero) } catch let error as SocketError {
        first = first ?? error
      }
    }
    throw first!
  }

  private static func race(_ addresses: [SocketAddress], _ delay: Duration) throws -> Socket {
    let race = Race()
    defer { race.end() }
    for address in alternatingFamilies(addresses) {
      race.progress.clear()
      race.start(address)
      try race.progress.wait(timeout: delay)
      if let winner = race.takeWinner() { return winner }
    }
    while race.running > 0 {
      race.progress.clear()
      try race.progress.wait()
      if let winner = race.takeWinner() { return winner }
    }
    throw race.firstError!
  }
}

private final class Race {
  /// Set when an attempt has ended, whichever way.
  let progress = Event()
  private var attempts: [AnyGreenlet] = []
  private var winner: Socket?
  private var isOver = false
  private(set) var running = 0
  /// Of the attempts that have failed, the error of the one that began first.
  private(set) var firstError: (any Error)?
  private var firstFailed = Int.max

  func start(_ address: SocketAddress) {
    running += 1
    let place = attempts.count
    let attempt = spawn { [self] in
      do {
        let socket = try Socket.connect(to: address)
        if winner == nil && !isOver { winner = socket } else { socket.close() }
      } catch let error as SocketError {
        note(error, of: place)
      }
    }
    attempts.append(attempt)
    // Not in the attempt itself: one that is killed at once, or that gets no stack, never runs.
    _ = attempt.rawLink { [self, unowned attempt] in
      if let error = attempt.error { note(error, of: place) }
      running -= 1
      progress.set()
    }
  }

  private func note(_ error: any Error, of place: Int) {
    if place < firstFailed { (firstFailed, firstError) = (place, error) }
  }

  func takeWinner() -> Socket? {
    defer { winner = nil }
    return winner
  }

  func end() {
    isOver = true
    winner?.close()
    for attempt in attempts { _ = try? attempt.kill(waiting: false) }
  }
}

/// The families in turn, each in its own order.
package func alternatingFamilies(_ addresses: [SocketAddress]) -> [SocketAddress] {
  let first = addresses.filter { $0.family == addresses[0].family }
  let second = addresses.filter { $0.family != addresses[0].family }
  var result: [SocketAddress] = []
  for index in 0..<max(first.count, second.count) {
    if index < first.count { result.append(first[index]) }
    if index < second.count { result.append(second[index]) }
  }
  return result
}
