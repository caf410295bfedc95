// Evergreen: tests of connections in memory.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

/// The contract of all that is used like a connected socket, checked with sockets, too.
enum PairKind: CaseIterable, Sendable {
  case socket, memory, seeded, network

  func make() throws -> (any ByteStream, any ByteStream) {
    switch self {
    case .socket: return try Socket.pair()
    case .memory: return MemoryStream.pair()
    case .seeded: return MemoryStream.pair(seed: 3)
    case .network:
      let network = SimulatedNetwork(seed: 4)
      Hub.current.keep(network)
      let listener = try network.host("a").listen(port: 1)
      let one = try network.host("b").connect(to: network.host("a"), port: 1)
      return (one, try listener.accept())
    }
  }
}

extension Hub {
  fileprivate func keep(_ object: AnyObject) { attachments[ObjectIdentifier(object)] = object }
}

@Suite(.timeLimit(.minutes(2))) struct ByteStreamTests {
  @Test(arguments: PairKind.allCases)
  func whatIsSentIsReceivedInOrder(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let data = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
      let sender = spawn {
        try one.sendAll(data)
        try one.shutdown(.write)
      }
      var received: [UInt8] = []
      while let chunk = try other.receive(upTo: 10_000) { received += chunk }
      #expect(received == data)
      try sender.get()
      try other.sendAll("bye")
      try #expect(one.receive(exactly: 3) == Array("bye".utf8))
      one.close()
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func aSenderWaitsForRoomAndSaysHowMuchHasGone(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let error = #expect(throws: SocketError.self) {
        try one.sendAll([UInt8](repeating: 1, count: 4_000_000), timeout: .milliseconds(20))
      }
      #expect(error?.isTimeout == true && error!.bytesSent > 1000)
      var left = error!.bytesSent
      while left > 0 { left -= try other.receive(upTo: left, timeout: .zero)!.count }
      let nothing = #expect(throws: SocketError.self) { try other.receive(upTo: 1, timeout: .zero) }
      #expect(nothing?.isTimeout == true)
      one.close()
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func oneAtATimeMayReceive(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let first = spawn { try one.receive(upTo: 1) }
      try waitUntilBlocked()
      #expect(throws: ConcurrentUse.self) { try one.receive(upTo: 1) }
      try other.sendAll("x")
      try #expect(first.get() == [UInt8(ascii: "x")])
      one.close()
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func aKilledReceiverLeavesThePlaceAndTheBytes(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let victim = spawn { try one.receive(upTo: 1) }
      try waitUntilBlocked()
      try victim.kill()
      try other.sendAll("x")
      try #expect(one.receive(upTo: 5) == [UInt8(ascii: "x")])
      one.close()
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func closingWakesWhoWaits(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let receiver = spawn { try one.receive(upTo: 1) }
      let sender = spawn { try one.sendAll([UInt8](repeating: 0, count: 4_000_000)) }
      try waitUntilBlocked()
      one.close()
      one.close()
      try joinAll([receiver], count: 1)
      try sender.join()
      #expect((receiver.error as? SocketError)?.isClosed == true)
      #expect((sender.error as? SocketError)?.isClosed == true)
      #expect(one.isClosed && !other.isClosed)
      #expect(throws: SocketError.self) { try one.receive(upTo: 1) }
      #expect(throws: SocketError.self) { try one.shutdown(.both) }
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func theEndComesBehindTheBytes(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      try one.sendAll("last")
      one.close()
      try #expect(other.receive(exactly: 4) == Array("last".utf8))
      for _ in 0..<3 { try #expect(other.receive(upTo: 1) == nil) }
      #expect(throws: EndOfStream.self) { try other.receive(exactly: 1) }
      other.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func sendingToOneWhoHasClosedFails(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      other.close()
      var failures = 0
      for _ in 0..<3 {
        do { try one.sendAll("x") } catch let error as SocketError {
          #expect(error.isPeerGone)
          failures += 1
        }
      }
      #expect(failures >= 2)
      one.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func closingBeforeAllWasReceivedIsAReset(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      try one.sendAll("never read")
      other.close()
      let error = #expect(throws: SocketError.self) { try one.receive(upTo: 1) }
      #expect(error?.errno == .connectionReset)
      one.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func aBufferedStreamReadsLinesOfAny(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      let writer = BufferedStream(one, bufferSize: 100)
      let reader = BufferedStream(other, bufferSize: 64)
      let sender = spawn {
        for number in 0..<500 { try writer.writeAll("line \(number)\r\n") }
        try writer.flush()
        try writer.base.shutdown(.write)
      }
      var lines = 0
      while let line = try reader.readLine() {
        #expect(line == "line \(lines)")
        lines += 1
      }
      #expect(lines == 500)
      try sender.get()
      let waiting = spawn { try writer.read(upTo: 1) }
      try waitUntilBlocked()
      #expect(throws: ConcurrentUse.self) { try writer.readLine() }
      reader.close()
      try #expect(waiting.get() == nil)
      writer.close()
    }
  }

  @Test(arguments: PairKind.allCases)
  func theTimeOfTheStreamCountsWhereNoneIsGiven(_ kind: PairKind) async throws {
    try await runGreen {
      let (one, other) = try kind.make()
      one.timeout = .milliseconds(5)
      let error = #expect(throws: SocketError.self) { try one.receive(upTo: 1) }
      #expect(error?.isTimeout == true)
      let stream = BufferedStream(one)
      #expect(throws: SocketError.self) { try stream.read(exactly: 1) }
      one.close()
      other.close()
    }
  }
}

@Suite(.timeLimit(.minutes(2))) struct MemoryStreamTests {
  @Test func hasNoDescriptor() async throws {
    try await runGreen {
      let (one, other) = MemoryStream.pair(capacity: 10)
      try #expect(one.send(Array("0123456789ab".utf8)) == 10)
      #expect(other.availableCount == 10)
      #expect(one.peerAddress == .unnamedUnix)
      other.close()
    }
  }

  @Test func aSeedTakesFewerBytes() async throws {
    let sizes = try await runGreen {
      let (one, other) = MemoryStream.pair(seed: 8)
      var sizes: [Int] = []
      for _ in 0..<20 { sizes.append(try one.send([UInt8](repeating: 0, count: 100))) }
      for _ in 0..<5 { sizes.append(try other.receive(upTo: 100)!.count) }
      return sizes
    }
    #expect(Set(sizes).count > 5 && sizes.allSatisfy { (1...100).contains($0) })
    let again = try await runGreen {
      let (one, other) = MemoryStream.pair(seed: 8)
      var sizes: [Int] = []
      for _ in 0..<20 { sizes.append(try one.send([UInt8](repeating: 0, count: 100))) }
      for _ in 0..<5 { sizes.append(try other.receive(upTo: 100)!.count) }
      return sizes
    }
    #expect(sizes == again)
  }

  @Test func aResetIsToldToBoth() async throws {
    try await runGreen {
      let (one, other) = MemoryStream.pair()
      try one.sendAll("there")
      let waiting = spawn { try one.receive(upTo: 1) }
      try waitUntilBlocked()
      other.reset()
      try waiting.join()
      #expect((waiting.error as? SocketError)?.errno == .connectionReset)
      try #expect(other.receive(exactly: 5) == Array("there".utf8))  // it had arrived
      let error = #expect(throws: SocketError.self) { try other.receive(upTo: 1) }
      #expect(error?.errno == .connectionReset)
      try #expect(other.receive(upTo: 1) == nil)
      let sending = #expect(throws: SocketError.self) { try other.sendAll("x") }
      #expect(sending?.isPeerGone == true)
    }
  }

  @Test func theLastReferenceCloses() async throws {
    try await runGreen {
      var (one, other): (MemoryStream?, MemoryStream) = MemoryStream.pair()
      try one?.sendAll("x")
      one = nil
      try #expect(other.receive(upTo: 9) == [UInt8(ascii: "x")])
      try #expect(other.receive(upTo: 9) == nil)
    }
  }
}
