// Evergreen: tests of hostile peers and of a system that has run out.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite(.timeLimit(.minutes(5))) struct SocketFaultTests {
  // MARK: Peers

  @Test func aResetIsReportedToReaderAndWriter() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let (one, other) = try tcpPair()
      try one.set(.sendBufferSize, 4096)
      try fill(one)
      let reader = spawn { try one.receive(upTo: 10) }
      let writer = spawn { try one.sendAll([UInt8](repeating: 1, count: 20_000_000)) }
      try idle()
      try other.set(.linger, .zero)
      other.close()
      let errors = [
        socketError { _ = try reader.get(timeout: .seconds(10)) },
        socketError { try writer.get(timeout: .seconds(10)) },
      ]
      // The first to look gets the reset; to the other the connection is just gone.
      #expect(errors.contains { $0?.isPeerGone == true })
    }
  }

  @Test func aPeerThatVanishesWhileItWasNotAcceptedYet() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      for _ in 0..<10 {
        let client = try Socket.connect(to: listener.localAddress)
        try client.set(.linger, .zero)
        client.close()
      }
      let good = try Socket.connect(to: listener.localAddress)
      try good.sendAll([7])
      var seen = false
      while !seen {
        let (socket, _) = try listener.accept(timeout: .seconds(10))
        seen = (try? socket.receive(upTo: 10)) == [7]
      }
    }
  }

  @Test func aFloodThatNobodyReadsBlocksTheSenderAlone() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      let large = [UInt8](repeating: 1, count: 50_000_000)
      let flood = spawn { try one.sendAll(large) }
      // Others go on, and the sender can be timed out and killed.
      let (ping, pong) = try tcpPair()
      for _ in 0..<100 {
        try ping.sendAll([1])
        try #expect(pong.receive(upTo: 10) == [1])
      }
      #expect(!flood.isReady)
      try flood.kill()
      #expect(
        socketError { try one.sendAll(large, timeout: .milliseconds(20)) }?
          .isTimeout == true)
      withExtendedLifetime(other) {}
    }
  }

  @Test func oneByteAtATimeIsAStreamToo() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      let lines = (0..<50).map { "line \($0)" }
      let dripper = spawn {
        for byte in Array(lines.joined(separator: "\n").utf8) {
          try other.sendAll([byte])
          if byte % 7 == 0 { try sleep(for: .microseconds(100)) }
        }
        other.close()
      }
      let stream = BufferedStream(one)
      var received: [String] = []
      while let line = try stream.readLine() { received.append(line) }
      #expect(received == lines)
      try dripper.get()
    }
  }

  // MARK: Numbers

  /// Whoever gets the number next must get its own events and none of the old owner's.
  @Test func aNumberThatIsUsedAgainAtOnceBelongsToItsNewOwner() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      var reused = 0
      for number in 0..<5000 {
        let (one, far) = try Socket.pair()
        let old = one.fileDescriptor
        let waiter = spawn { try one.receive(upTo: 10) }
        try Greenlet.yield()
        if number % 3 == 0 { try far.sendAll([99]) }  // pending when it is closed
        one.close()
        let (next, nextFar) = try Socket.pair()
        if next.fileDescriptor == old { reused += 1 }
        let reader = spawn { try next.receive(upTo: 10) }
        try Greenlet.yield()
        #expect(!reader.isReady)
        try nextFar.sendAll([UInt8(truncatingIfNeeded: number)])
        try #expect(reader.get() == [UInt8(truncatingIfNeeded: number)])
        #expect(socketError { _ = try waiter.get() }?.isClosed == true)
      }
      #expect(reused > 0)
    }
  }

  /// A duplicate keeps the kernel's registration of the closed number alive.
  @Test func aNumberIsUsedAgainWhileADuplicateLives() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      for _ in 0..<500 {
        let (one, far) = try Socket.pair()
        let waiter = spawn { try one.receive(upTo: 10) }
        try idle()
        let copy = try one.duplicate()
        one.close()
        let (next, nextFar) = try Socket.pair()
        let reader = spawn { try next.receive(upTo: 10) }
        try far.sendAll([99])  // for the duplicate alone
        try idle()
        #expect(!reader.isReady)
        try nextFar.sendAll([1])
        try #expect(reader.get(timeout: .seconds(10)) == [1])
        try #expect(copy.receive(upTo: 10) == [99])
        #expect(socketError { _ = try waiter.get() }?.isClosed == true)
      }
    }
  }

  @Test func aDetachedNumberIsUsedAgain() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      for _ in 0..<200 {
        let (one, oneFar) = try Socket.pair()
        let waiter = spawn { try one.receive(upTo: 10) }
        try idle()
        closeRaw(try one.detach())
        #expect(socketError { _ = try waiter.get() }?.isClosed == true)
        let (next, far) = try Socket.pair()
        let reader = spawn { try next.receive(upTo: 10) }
        try idle()
        oneFar.close()
        try far.sendAll([1])
        try #expect(reader.get(timeout: .seconds(10)) == [1])
      }
    }
  }

  @Test func aWaitForAPlainNumberDoesNotSurviveIt() async throws {
    try await runGreen {
      for _ in 0..<200 {
        let (one, far) = try Socket.pair()
        try #expect(!waitReadable(one.fileDescriptor, timeout: .microseconds(100)))
        one.close()
        let (next, nextFar) = try Socket.pair()
        let waiter = spawn { try waitReadable(next.fileDescriptor, timeout: .seconds(10)) }
        try idle()
        try nextFar.sendAll([1])
        try #expect(waiter.get())
        withExtendedLifetime(far) {}
      }
    }
  }

  @Test func closingASocketEndsTheWaitsForItsNumber() async throws {
    try await runGreen {
      let (one, far) = try Socket.pair()
      let number = one.fileDescriptor
      try fill(one)
      let waiters = [
        spawn { try waitReadable(number) }, spawn { try waitReadable(number) },
        spawn { try waitWritable(number) },
      ]
      try idle()
      one.close()
      let begin = ContinuousClock.now
      for waiter in waiters {
        let error = socketError { _ = try waiter.get(timeout: .seconds(10)) }
        #expect(error?.errno == .badFileDescriptor)
        #expect("\(error!)".contains("\(number)"))
      }
      #expect(ContinuousClock.now - begin < .seconds(8))  // not only when something else happens
      withExtendedLifetime(far) {}
    }
  }

  @Test(arguments: [true, false])
  func aNumberClosedByOthersIsNoTrouble(_ kernelKnowsIt: Bool) async throws {
    try await runGreen {
      let (one, far) = try Socket.pair()
      try fill(one)
      let number = try one.detach()
      let writer = spawn { try waitWritable(number, timeout: .seconds(10)) }
      let reader = spawn { try waitReadable(number, timeout: .milliseconds(1)) }
      if kernelKnowsIt { try idle() } else { try Greenlet.yield() }
      closeRaw(number)
      // epoll(7) does not tell; but when something is to change it is found out.
      do {
        try #expect(!reader.get())
        #expect(kernelKnowsIt)
      } catch let error as SocketError {
        #expect(error.errno == .badFileDescriptor)
      }
      #expect(socketError { _ = try writer.get() }?.errno == .badFileDescriptor)
      withExtendedLifetime(far) {}
    }
  }

  @Test func greenletsCloseEachOthersSockets() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      var sockets: [(Socket, Socket)] = []
      for _ in 0..<50 { sockets.append(try Socket.pair()) }
      var served = 0
      let workers = (0..<50).map { index in
        spawn {
          while served < 5000 {
            do {
              let (one, other) = sockets[index]
              try other.sendAll([UInt8(index)])
              let got = try one.receive(upTo: 10, timeout: .milliseconds(50))
              #expect(got?.allSatisfy { $0 == UInt8(index) } != false)
              served += 1
              _ = try one.receive(upTo: 10, timeout: .microseconds(200))
            } catch let error as SocketError where error.isClosed || error.isTimeout {}
          }
        }
      }
      let closer = spawn {
        while served < 5000 {
          let index = Int.random(in: 0..<50)
          sockets[index].0.close()
          sockets[index].1.close()
          sockets[index] = try Socket.pair()
          try Greenlet.yield()
        }
      }
      try joinAll(workers)
      try closer.join()
      #expect(served >= 5000)
      for worker in workers { #expect(worker.error == nil) }
    }
  }

  // MARK: Nothing left

  @Test func whenDescriptorsRunOutAcceptSaysSoAndGoesOnLater() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
        let client = try Socket.connect(to: listener.localAddress)
        let hoard = takeAllDescriptors()
        let error = socketError { _ = try listener.accept() }
        #expect(error?.errno == .tooManyOpenFiles)
        #expect(error?.isTransient == true)
        #expect(socketError { _ = try Socket(.ipv4) }?.errno == .tooManyOpenFiles)
        #expect(socketError { _ = try Socket.pair() }?.errno == .tooManyOpenFiles)
        #expect(socketError { _ = try client.duplicate() }?.errno == .tooManyOpenFiles)
        for descriptor in hoard { closeRaw(descriptor) }
        let (socket, _) = try listener.accept(timeout: .seconds(10))
        try client.sendAll([1])
        try #expect(socket.receive(upTo: 10) == [1])
      }
    }
  }

  @Test func aServerSurvivesTheLackOfDescriptors() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let server = try StreamServer("127.0.0.1:0") { socket, _ in try socket.sendAll("served") }
        try server.start()
        let clients = try (0..<3).map { _ in try Socket(.ipv4) }
        let hoard = takeAllDescriptors()
        for client in clients { try client.connect(to: server.address) }
        // It tries again now and then, and the others go on.
        for client in clients {
          #expect(
            socketError { _ = try client.receive(upTo: 10, timeout: .milliseconds(40)) }?
              .isTimeout == true)
        }
        #expect(server.isAccepting && server.connectionCount == 0)
        for descriptor in hoard { closeRaw(descriptor) }
        for client in clients {
          client.timeout = .seconds(20)
          try #expect(receiveAll(client) == Array("served".utf8))
        }
        try server.stop()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("cannot accept at 127.0.0.1:"))
    #expect(text.split(separator: "\n").count < 20)
  }

  @Test func aServerThatStopsWhileDescriptorsLackLeavesNothing() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let server = try StreamServer("127.0.0.1:0") { _, _ in }
        try server.start()
        let client = try Socket(.ipv4)
        let hoard = takeAllDescriptors()
        try client.connect(to: server.address)
        try sleep(for: .milliseconds(30))
        try server.stop()
        for descriptor in hoard { closeRaw(descriptor) }
      }
    }
  }
}

/// Opens files until there are no more descriptors, of which there are few from now on.
private func takeAllDescriptors() -> [Int32] {
  var limit = rlimit(rlim_cur: 64, rlim_max: 64)
  #if os(Linux)
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  #else
  setrlimit(RLIMIT_NOFILE, &limit)
  #endif
  var hoard: [Int32] = []
  var rounds = 0
  while rounds < 3 {
    let descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
    if descriptor >= 0 {
      hoard.append(descriptor)
      rounds = 0
    } else {
      // Other threads of a process that has just begun may give one back still.
      rounds += 1
      usleep(20_000)
    }
  }
  return hoard
}
