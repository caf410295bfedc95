// Evergreen: each family of calls waits in its greenlet alone.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import GreenGlibc
import Testing

@Suite(.timeLimit(.minutes(2)))
struct WaitingTests {
  // MARK: Reading and writing

  @Test func readWaitsForAnotherGreenletsWrite() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      var bytes: [UInt8] = [0, 0]
      let (count, turns) = try counting(while: { #expect(write(writing, "hi", 2) == 2) }) {
        read(reading, &bytes, 2)
      }
      #expect(count == 2)
      #expect(bytes == Array("hi".utf8))
      #expect(turns > 0)
      close(reading)
      close(writing)
    }
  }

  @Test(arguments: [true, false])
  func writeGoesOnUntilAllIsRead(_ isSocket: Bool) async throws {
    try await runGreen {
      let (reading, writing) = isSocket ? try makePair() : try makePipe()
      let sent = [UInt8](repeating: 7, count: 1_000_000)
      let writer = spawn { write(writing, sent, sent.count) }
      var received = 0
      var piece = [UInt8](repeating: 0, count: 50_000)
      while received < sent.count { received += read(reading, &piece, piece.count) }
      #expect(try writer.get() == sent.count)
      #expect(received == sent.count)
      close(reading)
      close(writing)
    }
  }

  @Test func vectorsWaitToo() async throws {
    try await runGreen {
      let (one, other) = try makePair()
      var bytes: [UInt8] = [1, 2, 3, 4]
      let (count, turns) = try bytes.withUnsafeMutableBytes { memory in
        let base = memory.baseAddress!
        let halves = [iovec(iov_base: base, iov_len: 2), iovec(iov_base: base + 2, iov_len: 2)]
        return try counting(while: { #expect(writev(other, halves, 2) == 4) }) {
          readv(one, halves, 2)
        }
      }
      #expect(count == 4)
      #expect(bytes == [1, 2, 3, 4])
      #expect(turns > 0)
      close(one)
      close(other)
    }
  }

  // MARK: Sockets

  @Test func receivingWaits() async throws {
    try await runGreen {
      let (one, other) = try makePair()
      var byte: UInt8 = 0
      let received = try counting(while: { #expect(send(other, "a", 1, 0) == 1) }) {
        recv(one, &byte, 1, 0)
      }
      #expect(received.0 == 1 && byte == UInt8(ascii: "a") && received.turns > 0)

      let message = try counting(while: { #expect(send(other, "b", 1, 0) == 1) }) {
        withUnsafeMutablePointer(to: &byte) { byte in
          var part = iovec(iov_base: byte, iov_len: 1)
          return withUnsafeMutablePointer(to: &part) { part in
            var message = msghdr()
            message.msg_iov = part
            message.msg_iovlen = 1
            return recvmsg(one, &message, 0)
          }
        }
      }
      #expect(message.0 == 1 && byte == UInt8(ascii: "b") && message.turns > 0)
      close(one)
      close(other)
    }
  }

  @Test func severalMessagesWait() async throws {
    try await runGreen {
      let (one, other) = try makePair(datagrams)
      var bytes: [UInt8] = [1, 2]
      let (counts, turns) = try bytes.withUnsafeMutableBytes { memory in
        let parts = UnsafeMutablePointer<iovec>.allocate(capacity: 2)
        defer { parts.deallocate() }
        var messages = [mmsghdr(), mmsghdr()]
        for i in 0..<2 {
          parts[i] = iovec(iov_base: memory.baseAddress! + i, iov_len: 1)
          messages[i].msg_hdr.msg_iov = parts + i
          messages[i].msg_hdr.msg_iovlen = 1
        }
        let sent = sendmmsg(other, &messages, 2, 0)
        let first = recvmmsg(one, &messages, 2, 0, nil)
        let (second, turns) = try counting(while: { #expect(send(other, "c", 1, 0) == 1) }) {
          recvmmsg(one, &messages, 1, 0, nil)
        }
        return ([sent, first, second], turns)
      }
      #expect(counts == [2, 2, 1])
      #expect(bytes == [UInt8(ascii: "c"), 2])
      #expect(turns > 0)
      close(one)
      close(other)
    }
  }

  @Test func datagramsWait() async throws {
    try await runGreen {
      let (receiver, address) = try makeBound(datagrams)
      let (sender, _) = try makeBound(datagrams)
      var to = address
      var from = sockaddr_in()
      var size = socklen_t(MemoryLayout<sockaddr_in>.size)
      var byte: UInt8 = 0
      let size0 = size
      let (count, turns) = try counting(
        while: { #expect(withSockaddr(&to) { sendto(sender, "x", 1, 0, $0, size0) } == 1) },
        { withSockaddr(&from) { recvfrom(receiver, &byte, 1, 0, $0, &size) } })
      #expect(count == 1 && byte == UInt8(ascii: "x") && turns > 0)
      #expect(from.sin_port != 0)
      close(receiver)
      close(sender)
    }
  }

  @Test(arguments: [true, false])
  func acceptWaitsForConnect(_ isFour: Bool) async throws {
    try await runGreen {
      var (listener, address) = try makeBound(streams)
      #expect(listen(listener, 4) == 0)
      let client = socket(AF_INET, streams, 0)
      let size = socklen_t(MemoryLayout<sockaddr_in>.size)
      let (server, turns) = try counting(
        while: { #expect(withSockaddr(&address) { connect(client, $0, size) } == 0) },
        { isFour ? accept4(listener, nil, nil, 0) : accept(listener, nil, nil) })
      #expect(server >= 0)
      #expect(turns > 0)
      #expect(fcntl(server, F_GETFL) & O_NONBLOCK == 0)
      #expect(fcntl(listener, F_GETFL) & O_NONBLOCK == 0)
      for descriptor in [listener, client, server] { close(descriptor) }
    }
  }

  @Test func sendfileGoesOnUntilAllIsReceived() async throws {
    try await runGreen {
      let size = 1_000_000
      let file = makeFile()
      #expect(ftruncate(file, size) == 0)
      let (one, other) = try makePair()
      let sender = spawn { () -> Int in
        var offset: off_t = 0
        return sendfile(other, file, &offset, size)
      }
      var received = 0
      var piece = [UInt8](repeating: 0, count: 50_000)
      while received < size { received += recv(one, &piece, piece.count, 0) }
      #expect(try sender.get() == size)
      for descriptor in [file, one, other] { close(descriptor) }
    }
  }

  @Test func spliceWaits() async throws {
    try await runGreen {
      let (one, other) = try makePair()
      let (reading, writing) = try makePipe()
      let (count, turns) = try counting(while: { #expect(send(other, "abc", 3, 0) == 3) }) {
        splice(one, nil, writing, nil, 100, 0)
      }
      #expect(count == 3)
      #expect(turns > 0)
      for descriptor in [one, other, reading, writing] { close(descriptor) }
    }
  }

  // MARK: Several descriptors

  enum Selector: CaseIterable {
    case polls, ppolls, selects, pselects, epolls, epollsWithMask, epollsWithTime

    func wait(for descriptor: Int32, epoll: Int32) -> Int32 {
      var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      var set = fd_set()
      withUnsafeMutableBytes(of: &set) {
        $0[Int(descriptor) / 8] |= 1 << UInt8(descriptor % 8)
      }
      var event = epoll_event()
      switch self {
      case .polls: return poll(&polled, 1, -1)
      case .ppolls: return ppoll(&polled, 1, nil, nil)
      case .selects: return select(descriptor + 1, &set, nil, nil, nil)
      case .pselects: return pselect(descriptor + 1, &set, nil, nil, nil, nil)
      case .epolls: return epoll_wait(epoll, &event, 1, -1)
      case .epollsWithMask: return epoll_pwait(epoll, &event, 1, -1, nil)
      case .epollsWithTime: return epoll_pwait2(epoll, &event, 1, nil, nil)
      }
    }
  }

  @Test(arguments: Selector.allCases)
  func selectorsWait(_ selector: Selector) async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      let epoll = epollWatching(reading)
      try #require(reading < 1024, "no set of select(2) holds it")
      let (count, turns) = try counting(while: { #expect(write(writing, "x", 1) == 1) }) {
        selector.wait(for: reading, epoll: epoll)
      }
      #expect(count == 1)
      #expect(turns > 0)
      for descriptor in [reading, writing, epoll] { close(descriptor) }
    }
  }

  // MARK: Time

  @Test(arguments: 0..<4)
  func sleepersLetOthersRun(_ which: Int) async throws {
    try await runGreen {
      let clock = ContinuousClock()
      let start = clock.now
      var time = timespec(tv_sec: 0, tv_nsec: 20_000_000)
      let (result, turns) = try counting {
        switch which {
        case 0: Int32(bitPattern: sleep(1))
        case 1: usleep(20_000)
        case 2: nanosleep(&time, nil)
        default: clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nil)
        }
      }
      #expect(result == 0)
      #expect(turns > 1)
      #expect(clock.now - start >= (which == 0 ? .seconds(1) : .milliseconds(20)))
    }
  }

  // MARK: Names

  @Test func lookUpsLetOthersRun() async throws {
    try await runGreen {
      var found: UnsafeMutablePointer<addrinfo>?
      let (code, turns) = try counting { getaddrinfo("localhost", nil, nil, &found) }
      #expect(code == 0)
      #expect(turns > 0)
      freeaddrinfo(found)
      let (entry, others) = try counting { gethostbyname("localhost") }
      #expect(entry != nil)
      #expect(others > 0)

      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
      var host = [CChar](repeating: 0, count: 256)
      let size = socklen_t(MemoryLayout<sockaddr_in>.size)
      let (back, more) = try counting {
        withSockaddr(&address) { getnameinfo($0, size, &host, 256, nil, 0, 0) }
      }
      #expect(back == 0)
      #expect(more > 0)
    }
  }

  // MARK: Other processes

  @Test(arguments: ["waitpid", "wait4", "waitid"])
  func waitingForAChildLetsOthersRun(_ name: String) async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      fcntl(writing, F_SETFD, FD_CLOEXEC)
      let child = try launch("read line; exit 3", input: reading)
      var status: Int32 = 0
      let (found, turns) = try counting(while: { #expect(write(writing, "\n", 1) == 1) }) {
        switch name {
        case "waitpid": waitpid(child, &status, 0)
        case "wait4": wait4(child, &status, 0, nil)
        default: waitid(oneProcess, id_t(child), nil, WEXITED)
        }
      }
      #expect(found == (name == "waitid" ? 0 : child))
      #expect(status == (name == "waitid" ? 0 : 3 << 8))
      #expect(turns > 0)
      close(reading)
      close(writing)
    }
  }

  @Test func commandsLetOthersRun() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      let (status, turns) = try counting(while: { #expect(write(writing, "\n", 1) == 1) }) {
        system("read line < /dev/fd/\(reading); exit 3")
      }
      close(reading)
      close(writing)
      #expect(status == 3 << 8)
      #expect(turns > 0)
      let stream = try #require(popen("cat > /dev/null; exit 4", "w"))
      let (end, others) = try counting { pclose(stream) }
      #expect(end == 4 << 8)
      #expect(others > 0)
    }
  }

  // MARK: Locks of files

  @Test(arguments: [false, true])
  func locksLetTheirOwnerRun(_ isControl: Bool) async throws {
    try await runGreen {
      let mine = makeFile()
      let path = "/proc/self/fd/\(mine)"
      let other = open(path, O_RDWR)
      #expect(other >= 0)
      var exclusive = GreenGlibc.flock()
      exclusive.l_type = Int16(F_WRLCK)
      let setAndWait: Int32 = 38  // F_OFD_SETLKW, which Swift's Glibc does not have
      func take(_ file: Int32) -> Int32 {
        isControl ? fcntl(file, setAndWait, &exclusive) : flock(file, LOCK_EX)
      }
      #expect(take(mine) == 0)
      let (result, turns) = try counting(while: { close(mine) }) { take(other) }
      #expect(result == 0)
      #expect(turns > 0)
      close(other)
    }
  }
}
