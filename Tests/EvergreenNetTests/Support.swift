// Evergreen: what the tests of sockets share.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Two ends of a TCP connection over loopback.
func tcpPair() throws -> (client: Socket, server: Socket) {
  let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
  let client = try Socket.connect(to: listener.localAddress)
  return (client, try listener.accept(timeout: .seconds(10)).socket)
}

/// Two ends that hold little: what is sent soon has to wait.
func narrowPair() throws -> (Socket, Socket) {
  let (one, other) = try Socket.pair()
  for socket in [one, other] {
    try socket.set(.sendBufferSize, 4096)
    try socket.set(.receiveBufferSize, 4096)
  }
  return (one, other)
}

/// Sends until the kernel takes no more; says how much it took.
@discardableResult
func fill(_ socket: Socket) throws -> Int {
  let chunk = [UInt8](repeating: 0x2e, count: 16 * 1024)
  var total = 0
  while true {
    do { total += try socket.send(chunk, timeout: .zero) } catch let error as SocketError
      where error.isTimeout
    {
      return total
    }
  }
}

/// Receives until there is nothing more for now; says how much it was.
@discardableResult
func drain(_ socket: Socket) throws -> Int {
  var total = 0
  while true {
    do {
      guard let chunk = try socket.receive(upTo: 16 * 1024, timeout: .zero) else { return total }
      total += chunk.count
    } catch let error as SocketError where error.isTimeout {
      return total
    }
  }
}

/// Receives until the end of the stream.
func receiveAll(_ socket: Socket) throws -> [UInt8] {
  var all: [UInt8] = []
  while let chunk = try socket.receive(upTo: 64 * 1024) { all += chunk }
  return all
}

/// Bytes of which each part looks different.
func pattern(_ count: Int) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
    for index in 0..<count { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ index >> 8) }
    filled = count
  }
}

/// A listener at which connecting never comes to an end: its backlog is full.
final class BlackHole {
  let listener: Socket
  let address: SocketAddress
  private var fillers: [Socket] = []

  init() throws {
    listener = try Socket.listen(on: .loopbackIPv4(port: 0), backlog: 0)
    address = try listener.localAddress
    for _ in 0..<8 {
      let filler = try Socket(.ipv4)
      do { try filler.connect(to: address, timeout: .milliseconds(30)) } catch let error
        as SocketError
        where error.isTimeout
      {
        return
      }
      fillers.append(filler)
    }
    Issue.record("the backlog of 0 was never full")
  }
}

/// A Unix listener whose backlog is full.
final class UnixBlackHole {
  let listener: Socket
  let address: SocketAddress
  private var fillers: [Socket] = []

  init(_ name: String = #function) throws {
    address = try .unix(abstract: "evergreen-\(getpid())-\(UInt64.random(in: 0 ... .max))")
    listener = try Socket.listen(on: address, backlog: 0)
    for _ in 0..<8 {
      let filler = try Socket(.unix)
      do { try filler.connect(to: address, timeout: .zero) } catch let error as SocketError
        where error.isTimeout
      {
        return
      }
      fillers.append(filler)
    }
    Issue.record("the backlog of 0 was never full")
  }
}

/// A file with a content, gone with the object.
final class TemporaryFile {
  let descriptor: Int32

  init(_ content: [UInt8]) throws {
    var name = Array("/tmp/evergreen-test-XXXXXX".utf8CString)
    descriptor = try checked { mkstemp(&name) }
    unlink(name)
    var rest = content[...]
    while !rest.isEmpty {
      rest = rest.dropFirst(
        try checked { rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) } })
    }
  }

  deinit { close(descriptor) }
}

/// A path for a Unix socket, short enough everywhere.
func temporaryPath() -> String {
  "/tmp/evergreen-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
}

func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

func removeFile(_ path: String) { unlink(path) }

func pipeEnds() throws -> (reading: Int32, writing: Int32) {
  var ends: [Int32] = [-1, -1]
  _ = try checked { pipe(&ends) }
  return (ends[0], ends[1])
}

func writeRaw(_ descriptor: Int32, _ bytes: [UInt8]) throws {
  _ = try checked { write(descriptor, bytes, bytes.count) }
}

/// Closes a descriptor that no object owns.
func closeRaw(_ descriptor: Int32) { _ = close(descriptor) }

func isOpen(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

/// The error that `body` throws as a socket's; a test failure if it is another one or none.
@discardableResult
func socketError(
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) -> SocketError? {
  #expect(throws: SocketError.self, sourceLocation: sourceLocation) { try body() }
}

/// Waits until nobody listens at `address`. A process that was being spawned when the listener was
/// closed may hold it open for a moment.
func waitUntilRefused(at address: SocketAddress) throws {
  try wait {
    do {
      try Socket.connect(to: address).close()
      return false
    } catch let error as SocketError {
      return error.errno == .connectionRefused
    }
  }
}

/// Lets time pass until something that comes from outside has come true.
func wait(until condition: () throws -> Bool) throws {
  while try !condition() { try sleep(for: .milliseconds(1)) }
}

/// Whether the machine has the IPv6 loopback.
let hasIPv6: Bool = {
  let number = socket(AF_INET6, streamType, 0)
  guard number >= 0 else { return false }
  defer { close(number) }
  return SocketAddress.loopbackIPv6(port: 0).withSockaddr { bind(number, $0, $1) } == 0
}()

#if os(Linux)
private let streamType = Int32(SOCK_STREAM.rawValue)
#else
private let streamType = SOCK_STREAM
#endif

#if os(Linux)
func openNetlink() -> Int32 { socket(AF_NETLINK, Int32(SOCK_DGRAM.rawValue), 0) }
#endif

#if os(Linux)
/// How much address space the program has taken, in bytes.
func addressSpace() throws -> Int {
  let file = try checked { open("/proc/self/statm", O_RDONLY) }
  defer { close(file) }
  var text = [UInt8](repeating: 0, count: 100)
  let count = try checked { read(file, &text, text.count) }
  let pages = String(decoding: text.prefix(count).prefix { $0 != 0x20 }, as: UTF8.self)
  return (Int(pages) ?? 0) * Int(getpagesize())
}
#endif

/// Those of the hosts and addresses that this machine can have.
func possible(_ places: [String]) -> [String] {
  places.filter { hasIPv6 || !$0.contains("::") }
}

/// Whether so much virtual time has passed, and hardly more.
func isAbout(_ time: Duration, _ expected: Duration) -> Bool {
  time >= expected && time < expected + .milliseconds(20)
}
