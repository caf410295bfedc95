// Evergreen: what the tests of GreenGlibc share.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import GreenGlibc
import Testing

/// What `call` answers, and how often another greenlet has run meanwhile: not at all if the thread was
/// blocked, or if there was nothing to wait for.
func counting<R>(_ call: () throws -> R) throws -> (R, turns: Int) {
  var turns = 0
  let other = spawn {
    while true {
      turns += 1
      try Greenlet.yield()
    }
  }
  defer { _ = try? other.kill() }
  let result = try call()
  return (result, turns)
}

/// As ``counting(_:)``, while another greenlet does what the call waits for.
func counting<R>(
  while doing: @escaping () throws -> Void, _ call: () throws -> R
) throws -> (R, turns: Int) {
  var isReady = false
  let helper = spawn {
    while !isReady { try Greenlet.yield() }
    for _ in 0..<10 { try Greenlet.yield() }
    try doing()
  }
  defer { _ = try? helper.join() }
  return try counting {
    isReady = true
    return try call()
  }
}

/// What `call` answers on a thread without a hub.
func onThread<R: Sendable>(_ call: @escaping @Sendable () -> R) async -> R {
  await withCheckedContinuation { continuation in
    let thread = startThread { continuation.resume(returning: call()) }
    pthread_detach(thread)
  }
}

func makePipe() throws -> (reading: Int32, writing: Int32) {
  var ends: [Int32] = [-1, -1]
  try #require(pipe(&ends) == 0)
  return (ends[0], ends[1])
}

func makePair(_ type: Int32 = streams) throws -> (Int32, Int32) {
  var ends: [Int32] = [-1, -1]
  try #require(socketpair(AF_UNIX, type, 0, &ends) == 0)
  return (ends[0], ends[1])
}

let streams = Int32(SOCK_STREAM.rawValue)
let datagrams = Int32(SOCK_DGRAM.rawValue)
let oneProcess = idtype_t(rawValue: 1)  // P_PID, which Swift's Glibc does not have

/// A socket of this machine, bound to a port of its own.
func makeBound(_ type: Int32) throws -> (socket: Int32, address: sockaddr_in) {
  let new = socket(AF_INET, type, 0)
  try #require(new >= 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
  var size = socklen_t(MemoryLayout<sockaddr_in>.size)
  try #require(withSockaddr(&address) { bind(new, $0, size) } == 0)
  try #require(withSockaddr(&address) { getsockname(new, $0, &size) } == 0)
  return (new, address)
}

func withSockaddr<R>(
  _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>) throws -> R
) rethrows -> R {
  try withUnsafeMutablePointer(to: &address) {
    try $0.withMemoryRebound(to: sockaddr.self, capacity: 1, body)
  }
}

/// The result, and errno if that is -1.
func told<I: FixedWidthInteger>(_ name: String, _ result: I) -> String {
  let error = errno
  return result == -1 ? "\(name): -1 \(String(cString: strerror(error)))" : "\(name): \(result)"
}

/// An open file that has no name.
func makeFile() -> Int32 {
  var path = Array("/tmp/green-glibc-XXXXXX\0".utf8CString)
  let file = mkstemp(&path)
  #expect(file >= 0)
  unlink(path)
  return file
}

/// Starts a shell that reads its standard input from there.
func launch(_ command: String, input: Int32) throws -> pid_t {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_adddup2(&actions, input, 0)
  var arguments: [UnsafeMutablePointer<CChar>?] = [
    strdup("sh"), strdup("-c"), strdup(command), nil,
  ]
  defer { for argument in arguments { free(argument) } }
  var child: pid_t = 0
  try #require(posix_spawn(&child, "/bin/sh", &actions, nil, &arguments, environ) == 0)
  return child
}

/// An epoll descriptor that tells when `descriptor` is readable. Swift's Glibc cannot make one.
func epollWatching(_ descriptor: Int32) -> Int32 {
  typealias Create = @convention(c) (Int32) -> Int32
  typealias Control =
    @convention(c) (Int32, Int32, Int32, UnsafeMutablePointer<epoll_event>) -> Int32
  let epoll = unsafeBitCast(dlsym(nil, "epoll_create1"), to: Create.self)(0)
  var event = epoll_event()
  event.events = 1  // EPOLLIN
  let add: Int32 = 1
  #expect(
    unsafeBitCast(dlsym(nil, "epoll_ctl"), to: Control.self)(epoll, add, descriptor, &event) == 0)
  return epoll
}
