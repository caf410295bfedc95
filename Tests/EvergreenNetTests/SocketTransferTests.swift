// Evergreen: tests of sending and receiving.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct SocketTransferTests {
  // MARK: Receiving

  @Test(arguments: [1, 64, 1024, 1025, 4096, 65_536, 200_000])
  func receiveTakesWhatIsThereAndNoMore(room: Int) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll(pattern(100))
      let first = try #require(try one.receive(upTo: room))
      #expect(first == Array(pattern(100).prefix(room)))
      var rest: [UInt8] = []
      while first.count + rest.count < 100 { rest += try one.receive(upTo: room) ?? [] }
      #expect(first + rest == pattern(100))
      other.close()
      try #expect(one.receive(upTo: room) == nil)
      try #expect(one.receive(upTo: room) == nil)
    }
  }

  @Test func receiveIntoABufferSaysHowMuch() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1, 2, 3])
      var bytes = [UInt8](repeating: 0, count: 8)
      let count = try bytes.withUnsafeMutableBytes { try one.receive(into: $0) }
      #expect(count == 3)
      #expect(bytes == [1, 2, 3, 0, 0, 0, 0, 0])
      other.close()
      try #expect(bytes.withUnsafeMutableBytes { try one.receive(into: $0) } == 0)
    }
  }

  @Test func receiveIntoASpan() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      var bytes = [UInt8](repeating: 0, count: 8)
      let sender = spawn { try other.sendAll([1, 2, 3]) }
      var span = bytes.mutableSpan
      var raw = span.mutableBytes
      let count = try one.receive(into: &raw)
      #expect(count == 3)
      #expect(bytes == [1, 2, 3, 0, 0, 0, 0, 0])
      try sender.get()
    }
  }

  @Test func receiveExactlyCollectsTrickles() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      let content = pattern(500)
      let sender = spawn {
        for byte in content {
          try other.sendAll([byte])
          try Greenlet.yield()
        }
        other.close()
      }
      try #expect(one.receive(exactly: 499) == Array(content.prefix(499)))
      #expect(throws: EndOfStream.self) { try one.receive(exactly: 2) }
      try #expect(one.receive(exactly: 0) == [])
      try sender.get()
    }
  }

  /// As a protocol does that believes a length which the peer has sent.
  @Test func aLengthThatNobodySendsCostsNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll(pattern(1000))
      other.close()
      let error = #expect(throws: EndOfStream.self) { try one.receive(exactly: 1 << 60) }
      #expect(error?.received == 1000 && error?.wanted == 1 << 60)
    }
  }

  @Test(arguments: [128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 256 * 1024, 3_000_001])
  func muchIsReceivedExactly(count: Int) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let content = pattern(count + 10)
      let sender = spawn { try other.sendAll(content) }
      let received = try one.receive(exactly: count)
      #expect(received == Array(content.prefix(count)))
      try #expect(one.receive(exactly: 10) == Array(content.suffix(10)))
      try sender.get()
    }
  }

  @Test(arguments: [64 * 1024, 1 << 20])
  func whatIsReceivedTakesNoMoreRoomThanItNeeds(room: Int) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      for count in [50_000, 64, 50_000, 64] {
        let sender = spawn { try other.sendAll(pattern(count)) }
        var received: [UInt8] = []
        while received.count < count {
          let chunk = try #require(try one.receive(upTo: room))
          #expect(chunk.capacity < 2 * chunk.count + 1024)
          received += chunk
        }
        #expect(received == pattern(count))
        try sender.get()
      }
    }
  }

  #if os(Linux)
  /// Though the last request was large.
  @Test(.disabled(if: Sanitizer.any, "their heaps keep what was freed"), arguments: 0..<4)
  func whoeverWaitsHoldsNoRoom(number: Int) async throws {
    try await runGreen {
      let call: (Socket) throws -> Void = [
        { _ = try $0.receive(upTo: 1 << 20) }, { _ = try $0.peek(upTo: 1 << 20) },
        { _ = try $0.receiveMessage(upTo: 1 << 20) }, { _ = try $0.receiveFrom(upTo: 1 << 20) },
      ][number]
      let pairs = try (0..<100).map { _ in try Socket.pair() }
      for (one, other) in pairs {
        try other.sendAll(pattern(64 * 1024))
        try #expect(one.receive(exactly: 64 * 1024).count == 64 * 1024)
      }
      func takenByWaiters(_ body: @escaping (Socket) throws -> Void) throws -> Int {
        let before = try addressSpace()
        let waiters = pairs.map { pair in spawn { try body(pair.0) } }
        try idle()
        #expect(waiters.allSatisfy { !$0.isReady })
        defer { _ = try? killAll(waiters) }
        return try addressSpace() - before
      }
      _ = try takenByWaiters { _ = try $0.waitReadable() }  // their stacks stay
      try #expect(takenByWaiters(call) < 40 << 20)
    }
  }
  #endif

  @Test func theEndComesWithItsCount() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1, 2, 3])
      other.close()
      let error = #expect(throws: EndOfStream.self) { try one.receive(exactly: 5) }
      #expect(error?.wanted == 5 && error?.received == 3)
      #expect(error?.description == "the stream ended after 3 of 5 bytes")
    }
  }

  @Test func peekTakesNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let peeker = spawn { try one.peek(upTo: 2) }
      try idle()
      try other.sendAll([1, 2, 3])
      try #expect(peeker.get() == [1, 2])
      try #expect(one.peek(upTo: 10) == [1, 2, 3])
      try #expect(one.receive(upTo: 10) == [1, 2, 3])
      #expect(socketError { _ = try one.peek(upTo: 1, timeout: .zero) }?.isTimeout == true)
      other.close()
      try #expect(one.peek(upTo: 1) == nil)
      try #expect(one.receive(upTo: 1) == nil)
    }
  }

  @Test func aLongDatagramIsCut() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.datagram)
      try other.sendAll(pattern(100))
      try other.sendAll([7])
      try #expect(one.receiveFrom(upTo: 10).bytes == Array(pattern(10)))
      try #expect(one.receiveFrom(upTo: 10).bytes == [7])
    }
  }

  // MARK: Sending

  @Test func allFormsOfSendAllSendAll() async throws {
    try await runGreen {
      let (one, other) = try narrowPair()
      let content = pattern(300_000)
      let reader = spawn { try receiveAll(other) }
      try one.sendAll(content)
      try one.sendAll(content[100...])
      try content.withUnsafeBytes { try one.sendAll($0) }
      try one.sendAll(content.span.bytes)
      try one.sendAll("grün")
      try one.sendAll("")
      try one.sendAll([UInt8]())
      one.close()
      let all = try reader.get()
      #expect(all == content + content[100...] + content + content + Array("grün".utf8))
    }
  }

  @Test func sendTakesWhatTheKernelTakes() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      try one.set(.sendBufferSize, 8192)
      let content = pattern(1_000_000)
      let sent = try one.send(content)
      #expect(sent > 0 && sent < content.count)
      try #expect(other.receive(exactly: sent) == Array(content.prefix(sent)))
    }
  }

  @Test(arguments: [1, 63, 64, 65, 200])
  func piecesArriveAsOne(count: Int) async throws {
    try await runGreen {
      for socketPair in [try narrowPair(), try tcpPair()] {
        let (one, other) = socketPair
        try one.set(.sendBufferSize, 4096)
        let pieces = (0..<count).map { index in
          index % 5 == 3 ? [] : pattern(index * 37 % 3001).map { $0 &+ UInt8(index % 251) }
        }
        let reader = spawn { try receiveAll(other) }
        try one.sendAll(pieces: pieces)
        one.close()
        let received = try reader.get()
        #expect(received == Array(pieces.joined()))
      }
    }
  }

  @Test func noPiecesAndEmptyPiecesSendNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try one.sendAll(pieces: [])
      try one.sendAll(pieces: [[UInt8]](repeating: [], count: 130))
      try one.sendAll(pieces: [[], [1], [], []])
      one.close()
      try #expect(receiveAll(other) == [1])
    }
  }

  @Test func bothDirectionsFlowAtOnce() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      for socket in [one, other] { try socket.set(.sendBufferSize, 8192) }
      let content = pattern(500_000)
      let workers = [one, other].flatMap { socket in
        [
          spawn {
            try socket.sendAll(content)
            try socket.shutdown(.write)
          },
          spawn {
            let all = try receiveAll(socket)
            #expect(all == content)
          },
        ]
      }
      try joinAll(workers, raisingErrors: true)
    }
  }

  // MARK: Files

  @Test func sendFileSendsParts() async throws {
    try await runGreen {
      let content = pattern(100_000)
      let file = try TemporaryFile(content)
      for (offset, count) in [(0, nil), (0, 100), (99_000, nil), (99_000, 5000), (100_000, nil)] {
        let (one, other) = try narrowPair()
        let reader = spawn { try receiveAll(other) }
        let wanted = content[offset...].prefix(count ?? .max)
        try #expect(
          one.sendFile(file.descriptor, offset: offset, count: count) == wanted.count)
        one.close()
        let received = try reader.get()
        #expect(received == Array(wanted))
      }
      let (one, _) = try Socket.pair()
      try #expect(one.sendFile(file.descriptor, count: 0) == 0)
    }
  }

  @Test func sendingToOneWhoHasGoneRaisesNoSignal() async throws {
    try await runGreen {
      let file = try TemporaryFile(pattern(1000))
      let calls: [(Socket) throws -> Void] = [
        { try $0.sendFile(file.descriptor) }, { try $0.sendAll([1]) },
        { try $0.sendAll(pieces: [[1], [2]]) }, { try $0.sendMessage([1]) },
      ]
      for call in calls {
        let (one, other) = try Socket.pair()
        other.close()
        let error = socketError { try call(one) }
        #expect(error?.errno == .brokenPipe)
        #expect(error?.isPeerGone == true)
      }
    }
  }

  @Test func sendFileOfWhatIsNoFileFails() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      #expect(socketError { try one.sendFile(other.fileDescriptor, count: 10) } != nil)
      #expect(!one.isClosed)
      withExtendedLifetime(other) {}
    }
  }

  @Test func sendFileNamesABadFileAndDoesNotBlameTheSocket() async throws {
    try await runGreen {
      let (client, server) = try tcpPair()
      let peer = try client.peerAddress
      let error = socketError { try client.sendFile(1_000_000, count: 10) }
      #expect(error?.errno == .badFileDescriptor)
      #expect(error?.isClosed == false)
      #expect(
        error?.description == "send file \(peer): file descriptor 1000000: Bad file descriptor")
      let (reading, writing) = try pipeEnds()
      defer {
        closeRaw(reading)
        closeRaw(writing)
      }
      // Open, but not to be read.
      let unreadable = socketError { try client.sendFile(writing, count: 10) }
      #expect(unreadable?.isClosed == false)
      #expect(unreadable?.description.contains("file descriptor \(writing)") == true)
      // A socket's own errors stay its own.
      let file = try TemporaryFile(pattern(10))
      client.close()
      #expect(socketError { try client.sendFile(file.descriptor) }?.isClosed == true)
      withExtendedLifetime(server) {}
    }
  }

  @Test func whoCouldNotSendAllIsToldHowMuchWent() async throws {
    try await runGreen {
      let large = pattern(10_000_000)
      let file = try TemporaryFile(large)
      let calls: [(Socket) throws -> Void] = [
        { try $0.sendAll(large, timeout: .zero) },
        { try $0.sendAll(large, timeout: .milliseconds(5)) },
        { try $0.sendAll(pieces: [[], [1], large], timeout: .milliseconds(5)) },
        { try $0.sendFile(file.descriptor, timeout: .milliseconds(5)) },
      ]
      for call in calls {
        let (one, other) = try Socket.pair()
        let error = try #require(socketError { try call(one) })
        #expect(error.isTimeout)
        #expect(error.bytesSent > 0)
        #expect(
          error.description == "\(error.operation): \(error.reason), after \(error.bytesSent) bytes"
        )
        try #expect(drain(other) == error.bytesSent)
        let (gone, far) = try Socket.pair()
        far.close()
        #expect(socketError { try call(gone) }?.bytesSent == 0)
      }
    }
  }

  @Test func aDatagramMayBeLargerThanAnyOfTheNetwork() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.datagram)
      try one.set(.sendBufferSize, 400_000)
      let large = pattern(100_000)
      _ = try one.send(large)
      let received = try other.receiveFrom(upTo: 200_000).bytes
      #expect(received == large)
      _ = try one.send(large)
      let cut = try other.receiveFrom().bytes
      #expect(cut == Array(large.prefix(65_536)))
      try one.sendAll([])
      try #expect(other.receiveFrom(upTo: 0).bytes == [])
    }
  }

  // MARK: Timeouts

  @Test func oneDeadlineCoversATrickle() async throws {
    try await runGreenInVirtualTime { clock in
      let (one, other) = try Socket.pair()
      let dripper = spawn {
        while true {
          try sleep(for: .seconds(1))
          try other.sendAll([1])
        }
      }
      let error = socketError { _ = try one.receive(exactly: 100, timeout: .milliseconds(5500)) }
      #expect(error?.isTimeout == true)
      #expect(clock.elapsed >= .milliseconds(5500))
      #expect(clock.elapsed < .seconds(7))
      try dripper.kill()
    }
  }

  @Test func oneDeadlineCoversASlowReader() async throws {
    try await runGreenInVirtualTime { clock in
      let (one, other) = try narrowPair()
      let sipper = spawn {
        while true {
          try sleep(for: .seconds(1))
          _ = try other.receive(upTo: 5000)
        }
      }
      let large = [UInt8](repeating: 1, count: 1_000_000)
      let file = try TemporaryFile(large)
      let calls: [() throws -> Void] = [
        { try one.sendAll(large, timeout: .milliseconds(5500)) },
        { try one.sendAll(pieces: [large], timeout: .milliseconds(5500)) },
        { try one.sendFile(file.descriptor, timeout: .milliseconds(5500)) },
      ]
      for call in calls {
        let begin = clock.elapsed
        #expect(socketError { try call() }?.isTimeout == true)
        #expect(clock.elapsed - begin >= .milliseconds(5500))
        #expect(clock.elapsed - begin < .seconds(7))
      }
      try sipper.kill()
    }
  }

  @Test func theSocketsTimeoutIsTheDefault() async throws {
    try await runGreenInVirtualTime { clock in
      let (one, other) = try Socket.pair()
      one.timeout = .seconds(3)
      #expect(socketError { _ = try one.receive(upTo: 1) }?.isTimeout == true)
      #expect(clock.elapsed >= .seconds(3) && clock.elapsed < .seconds(4))
      #expect(socketError { _ = try one.receive(upTo: 1, timeout: .seconds(1)) } != nil)
      #expect(clock.elapsed >= .seconds(4) && clock.elapsed < .seconds(5))
      let stream = BufferedStream(one)
      #expect(socketError { _ = try stream.readLine() }?.isTimeout == true)
      #expect(clock.elapsed >= .seconds(7) && clock.elapsed < .seconds(8))
      try #expect(!one.waitReadable())
      #expect(clock.elapsed >= .seconds(10))
      withExtendedLifetime(other) {}
    }
  }

  @Test func zeroTakesWhatIsThere() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1, 2])
      try #expect(one.receive(upTo: 1, timeout: .zero) == [1])
      try #expect(one.receive(upTo: 9, timeout: .zero) == [2])
      let error = socketError { _ = try one.receive(upTo: 9, timeout: .zero) }
      #expect(error?.isTimeout == true)
      #expect(error?.description == "receive: Connection timed out")
      try other.sendAll([3])
      try #expect(one.receive(upTo: 9, timeout: .zero) == [3])
    }
  }

  @Test func aNegativeTimeoutOnlyLooks() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      #expect(socketError { _ = try one.receive(upTo: 9, timeout: .seconds(-1)) } != nil)
      try other.sendAll([3])
      try #expect(one.receive(upTo: 9, timeout: .seconds(-1)) == [3])
    }
  }

  /// The data came before the greenlet could run, though after the time.
  @Test func dataThatIsThereBeatsTheClock() async throws {
    try await runGreenInVirtualTime { clock in
      let (one, other) = try Socket.pair()
      let reader = spawn { try one.receive(upTo: 10, timeout: .seconds(1)) }
      try idle()
      try other.sendAll([1])
      clock.advance(by: .seconds(2))
      try #expect(reader.get() == [1])
    }
  }

  // MARK: Fairness

  @Test func aSocketThatIsAlwaysReadyStarvesNobody() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      var turns = 0
      let counter = spawn { while true { turns += 1; try Greenlet.yield() } }
      let chunk = pattern(10)
      for _ in 0..<2000 {
        try one.sendAll(chunk)
        _ = try other.receive(upTo: 100, timeout: .zero)
      }
      #expect(turns > 10)
      // A timeout of an enclosing block comes through, too.
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) {
          while true {
            try one.sendAll(chunk)
            _ = try other.receive(upTo: 100)
          }
        }
      }
      try counter.kill()
    }
  }
}
