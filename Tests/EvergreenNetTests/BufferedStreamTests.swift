// Evergreen: tests of reading by lines, delimiters and counts.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct BufferedStreamTests {
  static let sizes = [1, 2, 3, 7, 16, 1000, 16 * 1024, 200_000]

  /// What `content` is read as, through a buffer of `size` bytes, sent in pieces of `piece`.
  static func reading<R: Sendable>(
    _ content: [UInt8], size: Int, piece: Int = .max,
    _ body: @escaping @Sendable (BufferedStream) throws -> R
  ) async throws -> R {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let sender = spawn {
        var rest = content[...]
        while !rest.isEmpty {
          try other.sendAll(rest.prefix(piece))
          rest = rest.dropFirst(piece)
          try Greenlet.yield()
        }
        other.close()
      }
      defer { _ = try? sender.kill() }
      return try body(BufferedStream(one, bufferSize: size))
    }
  }

  @Test(arguments: sizes, [1, 5, Int.max])
  func linesComeOneByOne(size: Int, piece: Int) async throws {
    let content = Array("first\nsecond\r\n\n\r\nlast but one\ra\nlast".utf8)
    let lines = try await Self.reading(content, size: size, piece: piece) { stream in
      var lines: [String] = []
      while let line = try stream.readLine() { lines.append(line) }
      try #expect(stream.readLine() == nil)
      return lines
    }
    #expect(lines == ["first", "second", "", "", "last but one\ra", "last"])
  }

  @Test func aFinalNewlineBeginsNoLine() async throws {
    let lines = try await Self.reading(Array("a\nb\n".utf8), size: 100) { stream in
      var lines: [String] = []
      while let line = try stream.readLine() { lines.append(line) }
      return lines
    }
    #expect(lines == ["a", "b"])
  }

  @Test func bytesThatAreNotTextAreRepaired() async throws {
    let line = try await Self.reading([0x61, 0xff, 0x62, 0x0a], size: 100) { try $0.readLine() }
    #expect(line == "a\u{fffd}b")
  }

  @Test(arguments: sizes, [1, 5, Int.max])
  func delimitersMaySpanChunks(size: Int, piece: Int) async throws {
    let content = Array("abab--a\r\n\r\nx\r\r\n\r\n\r\n\r\nrest".utf8)
    let parts = try await Self.reading(content, size: size, piece: piece) { stream in
      var parts: [String] = []
      for _ in 0..<3 {
        let part = try #require(try stream.read(until: Array("\r\n\r\n".utf8)))
        parts.append(String(decoding: part, as: UTF8.self))
      }
      let error = #expect(throws: EndOfStream.self) {
        try stream.read(until: Array("\r\n\r\n".utf8))
      }
      #expect(error?.wanted == nil && error?.received == 4)
      try #expect(stream.read(exactly: 4) == Array("rest".utf8))
      try #expect(stream.read(until: [0]) == nil)
      return parts
    }
    #expect(parts == ["abab--a", "x\r", ""])
  }

  @Test(arguments: sizes)
  func aDelimiterThatBeginsLikeItselfIsFound(size: Int) async throws {
    let part = try await Self.reading(Array("aaaaab-aab".utf8), size: size, piece: 1) {
      try $0.read(until: Array("aab".utf8))
    }
    #expect(part == Array("aaa".utf8))
  }

  @Test(arguments: sizes, [1, 7, Int.max])
  func countsAreExact(size: Int, piece: Int) async throws {
    let content = pattern(3000)
    try await Self.reading(content, size: size, piece: piece) { stream in
      var all: [UInt8] = []
      for count in [0, 1, 2, 3, 100, 894, 1000] {
        let part = try stream.read(exactly: count)
        #expect(part.count == count)
        all += part
      }
      while let part = try stream.read(upTo: 77) {
        #expect(!part.isEmpty && part.count <= 77)
        all += part
      }
      #expect(all == content)
      try #expect(stream.read(upTo: 1) == nil)
      #expect(throws: EndOfStream.self) { try stream.read(exactly: 1) }
      try #expect(stream.read(exactly: 0) == [])
    }
  }

  @Test(arguments: sizes)
  func theWaysOfReadingMayBeMixed(size: Int) async throws {
    let content = Array("HEAD\r\nkey: 5\r\n\r\nbody!next".utf8)
    try await Self.reading(content, size: size, piece: 3) { stream in
      try #expect(stream.readLine() == "HEAD")
      try #expect(stream.read(until: Array(": ".utf8)) == Array("key".utf8))
      try #expect(stream.readLine() == "5")
      try #expect(stream.readLine() == "")
      try #expect(stream.read(exactly: 5) == Array("body!".utf8))
      try #expect(stream.readLine() == "next")
    }
  }

  @Test func theEndMidwayLeavesWhatHasComeInTheBuffer() async throws {
    try await Self.reading([1, 2, 3], size: 100) { stream in
      let error = #expect(throws: EndOfStream.self) { try stream.read(exactly: 5) }
      #expect(error?.wanted == 5 && error?.received == 3)
      #expect(stream.bufferedCount == 3)
      try #expect(stream.read(exactly: 3) == [1, 2, 3])
    }
  }

  @Test(arguments: sizes)
  func limitsHold(size: Int) async throws {
    let content = Array("1234\n12345\n123456\n".utf8)
    try await Self.reading(content, size: size, piece: 4) { stream in
      try #expect(stream.readLine(limit: 5) == "1234")
      try #expect(stream.readLine(limit: 5) == "12345")
      let error = #expect(throws: LimitExceeded.self) { try stream.readLine(limit: 5) }
      #expect(error?.limit == 5)
      // It stays in the buffer.
      try #expect(stream.readLine(limit: 6) == "123456")
      try #expect(stream.readLine(limit: 0) == nil)
    }
  }

  @Test func aLineWithoutAnEndIsRefusedEarly() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let flood = spawn { while true { try other.sendAll(pattern(10_000).map { $0 | 1 | 32 }) } }
      let stream = BufferedStream(one)
      #expect(throws: LimitExceeded.self) { try stream.readLine(limit: 1000) }
      #expect(stream.bufferedCount < 100_000)
      try flood.kill()
    }
  }

  @Test func aDelimiterIsNotCountedByTheLimit() async throws {
    try await Self.reading(Array("12345END123456END".utf8), size: 2, piece: 1) { stream in
      let end = Array("END".utf8)
      try #expect(stream.read(until: end, limit: 5) == Array("12345".utf8))
      #expect(throws: LimitExceeded.self) { try stream.read(until: end, limit: 5) }
    }
  }

  @Test func aKillMidwayLosesNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      let calls: [() throws -> Void] = [
        { _ = try stream.readLine() }, { _ = try stream.read(exactly: 100) },
        { _ = try stream.read(until: [0]) },
      ]
      for (number, call) in calls.enumerated() {
        let victim = spawn(call)
        try idle()
        try other.sendAll([UInt8(ascii: "a") + UInt8(number)])
        try idle()
        #expect(!victim.isReady)
        try victim.kill()
        #expect(socketError { try withSocketTimeout(one, call) }?.isTimeout == true)
      }
      try other.sendAll("d\n")
      try #expect(stream.readLine() == "abcd")
    }
  }

  private func withSocketTimeout(_ socket: Socket, _ body: () throws -> Void) throws {
    socket.timeout = .milliseconds(5)
    defer { socket.timeout = nil }
    try body()
  }

  @Test func oneDeadlineCoversTheWholeLine() async throws {
    try await runGreenInVirtualTime { clock in
      let (one, other) = try Socket.pair()
      let dripper = spawn {
        while true {
          try sleep(for: .seconds(1))
          try other.sendAll("x")
        }
      }
      let stream = BufferedStream(one)
      #expect(socketError { _ = try stream.readLine(timeout: .milliseconds(4500)) } != nil)
      #expect(clock.elapsed >= .milliseconds(4500) && clock.elapsed < .seconds(6))
      #expect(stream.bufferedCount == 4)
      try dripper.kill()
    }
  }

  @Test func whatIsInTheBufferNeedsNoTime() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      try other.sendAll("a\nb\nc")
      try #expect(stream.readLine() == "a")
      other.close()
      one.close()
      // The buffer outlives the socket.
      try #expect(stream.readLine(timeout: .zero) == "b")
      try #expect(stream.read(upTo: 10, timeout: .zero) == Array("c".utf8))
      #expect(socketError { _ = try stream.read(upTo: 10) }?.isClosed == true)
    }
  }

  @Test func aSecondReaderIsRefused() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      let first = spawn { try stream.readLine() }
      try idle()
      #expect(throws: ConcurrentUse.self) { try stream.readLine() }
      try other.sendAll("line\n")
      try #expect(first.get() == "line")
    }
  }

  /// Also where there is something in the buffer, which the first one needs.
  @Test func aSecondReaderTakesNothingFromTheFirst() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      let first = spawn { try stream.readLine() }
      try other.sendAll("be")
      try idle()
      #expect(stream.bufferedCount == 2)
      #expect(throws: ConcurrentUse.self) { try stream.read(upTo: 1) }
      #expect(throws: ConcurrentUse.self) { try stream.read(exactly: 1) }
      #expect(throws: ConcurrentUse.self) { try stream.read(until: [0x62]) }
      try other.sendAll("gin\n")
      try #expect(first.get() == "begin")
    }
  }

  @Test(arguments: sizes)
  func theEndOfALineIsNotCountedByTheLimit(size: Int) async throws {
    let content = Array("12345\r\n123456\r\n\r\n12345\r".utf8)
    try await Self.reading(content, size: size, piece: 3) { stream in
      try #expect(stream.readLine(limit: 5) == "12345")
      #expect(throws: LimitExceeded.self) { try stream.readLine(limit: 5) }
      try #expect(stream.readLine(limit: 6) == "123456")
      try #expect(stream.readLine(limit: 0) == "")
      try #expect(stream.readLine(limit: 5) == "12345")
      try #expect(stream.readLine(limit: 5) == nil)
    }
  }

  @Test(arguments: 0..<4)
  func aCountThatMakesNoSenseIsRefusedWithASentence(number: Int) async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { [number] in
      try await runGreenInChild {
        let stream = BufferedStream(try Socket.pair().0)
        let calls: [() throws -> Void] = [
          { _ = try stream.readLine(limit: -1) }, { _ = try stream.read(until: [1], limit: -1) },
          { _ = try stream.read(exactly: -1) }, { _ = try stream.base.receive(upTo: -1) },
        ]
        try calls[number]()
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    let verb = ["read a line of up to", "read a line of up to", "read", "receive up to"][number]
    #expect(text.contains("evergreen: cannot \(verb) -1 bytes"))
  }

  // MARK: Writing

  @Test func whatCouldNotBeSentInTimeIsSentLater() async throws {
    try await runGreen {
      let (one, other) = try narrowPair()
      let stream = BufferedStream(one, bufferSize: 1000)
      let content = pattern(300_000)
      let error = socketError { try stream.writeAll(content, timeout: .milliseconds(5)) }
      #expect(error?.isTimeout == true)
      let sent = try #require(error?.bytesSent)
      #expect(sent > 0 && stream.unsentCount == content.count - sent)
      #expect(socketError { try stream.writeAll([1, 2], timeout: .zero) }?.bytesSent == 0)
      // Killed in the midst.
      let flusher = spawn { try stream.flush() }
      try idle()
      let reader = spawn { try receiveAll(other) }
      try Greenlet.yield()
      try flusher.kill()
      try stream.flush()
      #expect(stream.unsentCount == 0)
      stream.close()
      let received = try reader.get()
      #expect(received == content + [1, 2])
    }
  }

  @Test func whatIsWrittenDuringAFlushComesBehind() async throws {
    try await runGreen {
      let (one, other) = try narrowPair()
      let stream = BufferedStream(one, bufferSize: 1000)
      let content = pattern(100_000)
      let first = spawn { try stream.writeAll(content) }
      try idle()
      try stream.writeAll([1])
      #expect(throws: ConcurrentUse.self) { try stream.flush() }
      #expect(stream.unsentCount == 1)
      let reader = spawn { try receiveAll(other) }
      try first.get()
      try stream.flush()
      stream.close()
      let received = try reader.get()
      #expect(received == content + [1])
    }
  }

  /// Also where it lets others run before it has sent anything, because the budget for I/O is spent,
  /// and even if it is killed there.
  @Test(arguments: [false, true])
  func whatIsFlushedLaterDoesNotOvertake(isFirstKilled: Bool) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      try stream.writeAll("first ")
      Hub.current.ioBudget = 0
      let first = spawn { try stream.flush() }
      try Greenlet.yield()
      try stream.writeAll("second")
      if isFirstKilled {
        try first.kill()
      } else {
        #expect(throws: ConcurrentUse.self) { try stream.flush() }
        try first.get()
        #expect(stream.unsentCount == 6)
      }
      try stream.flush()
      try #expect(other.receive(upTo: 100) == Array("first second".utf8))
    }
  }

  @Test func whatABrokenConnectionCannotTakeIsDropped() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one, bufferSize: 10)
      other.close()
      for _ in 0..<3 {
        #expect(socketError { try stream.writeAll(pattern(100)) }?.isPeerGone == true)
        #expect(stream.unsentCount == 0)
      }
    }
  }

  @Test func writingIsGatheredUntilThereIsEnough() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one, bufferSize: 10)
      try stream.writeAll("12345")
      #expect(socketError { _ = try other.receive(upTo: 100, timeout: .zero) } != nil)
      try stream.writeAll([0x36, 0x37])
      try stream.writeAll("89abc")
      try #expect(other.receive(upTo: 100) == Array("123456789abc".utf8))
      try stream.writeAll("rest")
      try stream.flush()
      try #expect(other.receive(upTo: 100) == Array("rest".utf8))
      try stream.flush()
      stream.close()
      try #expect(other.receive(upTo: 100) == nil)
    }
  }

  @Test func oneReadsWhileAnotherWrites() async throws {
    try await runGreen {
      let (near, far) = try narrowPair()
      let one = BufferedStream(near, bufferSize: 100)
      let other = BufferedStream(far, bufferSize: 333)
      let workers = [one, other].flatMap { stream in
        [
          spawn {
            for number in 0..<2000 { try stream.writeAll("message \(number)\n") }
            try stream.flush()
            try stream.base.shutdown(.write)
          },
          spawn {
            var number = 0
            while let line = try stream.readLine() {
              #expect(line == "message \(number)")
              number += 1
            }
            #expect(number == 2000)
          },
        ]
      }
      try joinAll(workers, raisingErrors: true)
    }
  }
}
