// Evergreen: tests of what every blocking call of a socket promises, call by call.
// SPDX-License-Identifier: MIT
//
// Each call is set up so that it has to wait. It is then ended in every way there is, at every
// stage, and afterwards the same call must work, as if nothing had been.

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

enum Call: String, CaseIterable, Sendable {
  case accept, connect, connectUnix, connectHost
  case receive, receiveInto, receiveExactly, receiveFrom, receiveMessage, peek
  case send, sendAll, sendPieces, sendTo, sendMessage, sendFile
  case waitReadable, waitWritable, waitReadableNumber, waitWritableNumber
  case readLine, readExactly, readUntil, writeAndFlush

  /// It answers false when time runs out, where the others throw.
  var answersNo: Bool {
    switch self {
    case .waitReadable, .waitWritable, .waitReadableNumber, .waitWritableNumber: true
    default: false
    }
  }

  /// It has no direction of a descriptor for itself, so that several may do it at once.
  var isShared: Bool {
    switch self {
    case .waitReadableNumber, .waitWritableNumber, .connectHost, .connectUnix: true
    default: false
    }
  }

  static let exclusive = allCases.filter { !$0.isShared && $0 != .connect }
  static let all = allCases
  /// What the kernel still tries for a full backlog takes it a second to try again; what becomes of
  /// connects that succeed is in the tests of sockets.
  static let letThroughAtOnce = allCases.filter { $0 != .connect && $0 != .connectHost }
}

/// A call that waits for ever, unless it is let through.
final class Waiting {
  /// Makes the call; whether it did what it is for.
  let call: (Duration?) throws -> Bool
  /// Makes the next call succeed, or lets the waiting one.
  let letThrough: () throws -> Void
  /// Closes the socket; `nil` if the call does not belong to one.
  let close: (() -> Void)?

  private init(
    _ call: @escaping (Duration?) throws -> Bool, letThrough: @escaping () throws -> Void,
    closing socket: Socket?
  ) {
    self.call = call
    self.letThrough = letThrough
    close = socket.map { socket in { socket.close() } }
  }

  convenience init(_ call: Call) throws {
    switch call {
    case .accept:
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try listener.localAddress
      var clients: [Socket] = []
      self.init(
        { try listener.accept(timeout: $0).socket.isClosed == false },
        letThrough: {
          let client = try Socket(.ipv4)
          clients.append(client)
          // Loopback needs no waiting for the connection to be there.
          _ = try? client.connect(to: address, timeout: .zero)
        }, closing: listener)
    case .connect:
      let hole = try BlackHole()
      var socket = try Socket(.ipv4)
      var isOpen = false
      self.init(
        { timeout in
          // After a failure the socket is of no further use.
          defer { socket = try! Socket(.ipv4) }
          try socket.connect(
            to: isOpen ? hole.listener.localAddress : hole.address, timeout: timeout)
          return true
        },
        letThrough: {
          isOpen = true
          while (try? hole.listener.accept(timeout: .zero)) != nil {}
        }, closing: nil)
    case .connectUnix:
      let hole = try UnixBlackHole()
      self.init(
        { try !Socket.connect(to: hole.address, timeout: $0).isClosed },
        letThrough: { _ = try hole.listener.accept() }, closing: nil)
    case .connectHost:
      let holes = try [BlackHole(), BlackHole()]
      let working = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try working.localAddress
      let resolver = FakeResolver(answer: holes.map(\.address))
      Hub.current.resolver = resolver
      self.init(
        { try !Socket.connect(host: "somewhere", port: 1, timeout: $0).isClosed },
        letThrough: {
          resolver.answer = [address]
          for hole in holes { _ = try hole.listener.accept() }
        }, closing: nil)
    case .receive, .receiveInto, .receiveExactly, .receiveFrom, .receiveMessage, .peek,
      .waitReadable, .waitReadableNumber, .readLine, .readExactly, .readUntil:
      let (one, other) = try Socket.pair()
      if call == .receiveExactly || call == .readExactly { try other.sendAll([1]) }
      let stream = BufferedStream(one)
      let calls: [Call: (Duration?) throws -> Bool] = [
        .receive: { try one.receive(upTo: 100, timeout: $0)?.isEmpty == false },
        .receiveInto: { timeout in
          var room = [UInt8](repeating: 0, count: 10)
          return try room.withUnsafeMutableBytes { try one.receive(into: $0, timeout: timeout) } > 0
        },
        .receiveExactly: { try one.receive(exactly: 4, timeout: $0).count == 4 },
        .receiveFrom: { try !one.receiveFrom(timeout: $0).bytes.isEmpty },
        .receiveMessage: { try !one.receiveMessage(upTo: 100, timeout: $0).bytes.isEmpty },
        .peek: { try one.peek(upTo: 10, timeout: $0)?.isEmpty == false },
        .waitReadable: { try one.waitReadable(timeout: $0) },
        .waitReadableNumber: {
          try EvergreenNet.waitReadable(one.fileDescriptor, timeout: $0)
        },
        .readLine: { try stream.readLine(timeout: $0) == "abc" },
        .readExactly: { try stream.read(exactly: 4, timeout: $0).count == 4 },
        .readUntil: { try stream.read(until: [10], timeout: $0)?.count == 3 },
      ]
      self.init(calls[call]!, letThrough: { try other.sendAll("abc\n") }, closing: one)
    case .sendTo:
      let receiver = try Socket(.unix, .datagram)
      try receiver.bind(to: .unnamedUnix)
      let address = try receiver.localAddress
      let sender = try Socket(.unix, .datagram)
      func send(_ timeout: Duration?) throws { try sender.send([1], to: address, timeout: timeout) }
      while (try? send(.zero)) != nil {}
      self.init(
        {
          try send($0)
          return true
        },
        letThrough: { for _ in 0..<4 { _ = try receiver.receiveFrom() } }, closing: sender)
    case .send, .sendAll, .sendPieces, .sendMessage, .sendFile, .waitWritable,
      .waitWritableNumber, .writeAndFlush:
      let (one, other) = try Socket.pair()
      try fill(one)
      let file = try TemporaryFile([1, 2, 3])
      let stream = BufferedStream(one)
      let calls: [Call: (Duration?) throws -> Bool] = [
        .send: { try one.send([1], timeout: $0) == 1 },
        .sendAll: {
          try one.sendAll([1], timeout: $0)
          return true
        },
        .sendPieces: {
          try one.sendAll(pieces: [[1], [2]], timeout: $0)
          return true
        },
        .sendMessage: { try one.sendMessage([1], timeout: $0) == 1 },
        .sendFile: { try one.sendFile(file.descriptor, timeout: $0) == 3 },
        .waitWritable: { try one.waitWritable(timeout: $0) },
        .waitWritableNumber: {
          try EvergreenNet.waitWritable(one.fileDescriptor, timeout: $0)
        },
        .writeAndFlush: {
          try stream.writeAll([1])
          try stream.flush(timeout: $0)
          return true
        },
      ]
      self.init(calls[call]!, letThrough: { try drain(other) }, closing: one)
    }
  }
}

final class FakeResolver: Resolver {
  var answer: [SocketAddress]
  var asked: [String] = []

  init(answer: [SocketAddress]) { self.answer = answer }

  func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
    -> [SocketAddress]
  {
    asked.append(host)
    return answer
  }

  func name(of address: SocketAddress) throws -> (host: String, service: String) {
    ("fake.example", "fake")
  }
}

/// It never answers.
final class SilentResolver: Resolver {
  func addresses(of host: String, port: UInt16, family: SocketAddress.Family?) throws
    -> [SocketAddress]
  {
    try sleep(for: .seconds(3600))
    return []
  }

  func name(of address: SocketAddress) throws -> (host: String, service: String) {
    try sleep(for: .seconds(3600))
    return ("", "")
  }
}

@Suite(.timeLimit(.minutes(5))) struct SocketWaitingTests {
  /// The same call works as if nothing had been.
  static func checkUndisturbed(_ waiting: Waiting, _ call: Call) throws {
    if call != .connectHost { try waiting.letThrough() }
    if call == .connectHost || call == .connect {
      // What the kernel still tries for the holes takes it a second to try again.
      return
    }
    try #expect(waiting.call(.seconds(30)))
  }

  @Test(arguments: Call.letThroughAtOnce)
  func waitsUntilItIsLetThrough(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      let caller = spawn { try waiting.call(nil) }
      try idle()
      #expect(!caller.isReady)
      try waiting.letThrough()
      try #expect(caller.get(timeout: .seconds(30)))
    }
  }

  @Test(arguments: Call.letThroughAtOnce)
  func aTimeoutThatIsTakenBackDoesNotEndIt(_ call: Call) async throws {
    try await runGreen {
      if [.connectUnix, .sendTo].contains(call) { return }  // they look again from time to time
      let waiting = try Waiting(call)
      var timeout: Timeout?
      // Both timers fire in one pass of the loop, this one first.
      spawn {
        try sleep(for: .milliseconds(2))
        timeout?.cancel()
      }
      let caller = spawn {
        timeout = Timeout.start(after: .milliseconds(3))
        return try waiting.call(nil)
      }
      try Greenlet.yield()
      let end = ContinuousClock.now.advanced(by: .milliseconds(10))
      while ContinuousClock.now < end {}
      try idle()
      #expect(!caller.isReady)
      try waiting.letThrough()
      try #expect(caller.get(timeout: .seconds(30)))
    }
  }

  @Test(arguments: Call.letThroughAtOnce)
  func answersAtOnceWhenItNeedNotWait(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      try waiting.letThrough()
      try #expect(waiting.call(.zero))
    }
  }

  @Test(arguments: Call.all)
  func isKilledWhereItWaits(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      var wentOn = false
      let victim = spawn {
        _ = try waiting.call(nil)
        wentOn = true
      }
      try idle()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      #expect(!wentOn)
      try Self.checkUndisturbed(waiting, call)
    }
  }

  @Test(arguments: Call.all)
  func isKilledBeforeItWaits(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      let victim = spawn {
        try Greenlet.current.kill(waiting: false)  // due at the next switch point
        _ = try waiting.call(nil)
      }
      try victim.join()
      #expect(victim.error is GreenletExit)
      try Self.checkUndisturbed(waiting, call)
    }
  }

  @Test(arguments: Call.letThroughAtOnce)
  func isKilledInTheMomentInWhichItIsLetThrough(_ call: Call) async throws {
    try await runGreen {
      for killedFirst in [true, false] {
        let waiting = try Waiting(call)
        var succeeded = false
        let victim = spawn {
          succeeded = try waiting.call(nil)
          try sleep(for: .seconds(60))
        }
        try idle()
        if killedFirst { try victim.kill(waiting: false) }
        try waiting.letThrough()
        if !killedFirst { try victim.kill(waiting: false) }
        try victim.join()
        #expect(victim.error is GreenletExit)
        // Either it has won what was let through, or it is there still.
        if !succeeded, call != .writeAndFlush { try #expect(waiting.call(.seconds(30))) }
      }
    }
  }

  @Test(arguments: Call.all)
  func timesOutNotBeforeItsTime(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      for timeout in [Duration.zero, .milliseconds(20)] {
        let begin = ContinuousClock.now
        if call.answersNo {
          try #expect(!waiting.call(timeout))
        } else {
          #expect(socketError { _ = try waiting.call(timeout) }?.isTimeout == true)
        }
        #expect(ContinuousClock.now - begin >= timeout)
      }
      try Self.checkUndisturbed(waiting, call)
    }
  }

  @Test(arguments: Call.all)
  func theTimeoutOfAnEnclosingBlockComesThrough(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { _ = try waiting.call(nil) }
      }
      try Self.checkUndisturbed(waiting, call)
    }
  }

  @Test(arguments: Call.exclusive)
  func closingWakesItWithADefiniteError(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      let caller = spawn { try waiting.call(nil) }
      try idle()
      let close = try #require(waiting.close)
      close()
      #expect(socketError { _ = try caller.get(timeout: .seconds(30)) }?.isClosed == true)
    }
  }

  /// Ready and closed in the same moment: an error or an answer, but nothing in between.
  @Test(arguments: Call.exclusive)
  func closingWinsOverWhatWasNotTakenYet(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      let caller = spawn { try waiting.call(nil) }
      try idle()
      try waiting.letThrough()
      let close = try #require(waiting.close)
      close()
      #expect(socketError { _ = try caller.get(timeout: .seconds(30)) }?.isClosed == true)
    }
  }

  @Test(arguments: Call.exclusive)
  func aSecondOneIsRefusedAndTheFirstIsNotDisturbed(_ call: Call) async throws {
    try await runGreen {
      let waiting = try Waiting(call)
      let first = spawn { try waiting.call(nil) }
      first.name = "first"
      try idle()
      let second = spawn { try waiting.call(nil) }
      second.name = "second"
      Hub.current.onError = { _, _ in }
      let error = #expect(throws: ConcurrentUse.self) { try second.get(timeout: .seconds(30)) }
      let text = error?.description ?? ""
      #expect(text.contains("\"first\"") && text.contains("\"second\""))
      #expect(text.contains("SocketWaitingTests.swift"))
      try idle()
      #expect(!first.isReady)
      try waiting.letThrough()
      try #expect(first.get(timeout: .seconds(30)))
    }
  }

  @Test func theOtherDirectionIsFree() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try fill(one)
      let writer = spawn { try one.sendAll([1]) }
      let reader = spawn { try one.receive(upTo: 10) }
      try idle()
      try other.sendAll([5])
      try #expect(reader.get() == [5])
      try drain(other)
      try writer.get()
    }
  }

  /// Two may not send into the same stream, wherever the first one pauses: in the midst of a
  /// message, when the budget for I/O has been spent, it lets others run.
  @Test func nobodySlipsIntoAMessageThatIsUnderWay() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let (one, other) = try Socket.pair()
      let file = try TemporaryFile([UInt8](repeating: 1, count: 2_000_000))
      let large = [UInt8](repeating: 1, count: 2_000_000)
      let messages: [() throws -> Void] = [
        { try one.sendAll(large) }, { try one.sendAll(pieces: [large]) },
        { try one.sendFile(file.descriptor) },
      ]
      for message in messages {
        let sender = spawn(message)
        try idle()
        var slippedIn = 0
        var refused = 0
        while !sender.isReady {
          try drain(other)
          Hub.current.ioBudget = 0
          try Greenlet.yield()
          try drain(other)
          if sender.isReady { break }
          do {
            _ = try one.send([2], timeout: .zero)
            slippedIn += 1
          } catch is ConcurrentUse { refused += 1 } catch is SocketError {}
        }
        #expect(slippedIn == 0)
        #expect(refused > 0)
        try sender.get()
        try drain(other)
      }
    }
  }

  @Test func nobodyTakesAPartOfWhatAnotherCounts() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let (one, other) = try Socket.pair()
      let stream = BufferedStream(one)
      let counting: [() throws -> [UInt8]] = [
        { try one.receive(exactly: 100) }, { try stream.read(exactly: 100) },
      ]
      for count in counting {
        let reader = spawn(count)
        try idle()
        for byte in pattern(100) {
          try other.sendAll([byte])
          #expect(throws: ConcurrentUse.self) { try one.receive(upTo: 1, timeout: .zero) }
          Hub.current.ioBudget = 0
          try Greenlet.yield()
        }
        try #expect(reader.get(timeout: .seconds(30)) == pattern(100))
      }
    }
  }

  /// Whoever lets others run before it has begun looks again whether it is alone.
  @Test func whoGaveATurnBeforeItBeganDoesNotSlipIn() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let (one, other) = try Socket.pair()
      let large = [UInt8](repeating: 1, count: 2_000_000)
      Hub.current.ioBudget = 0
      let polite = spawn { try one.sendAll([2]) }
      let first = spawn { try one.sendAll(large) }
      spawn { try drain(other) }  // there is room again when the polite one goes on
      #expect(throws: ConcurrentUse.self) { try polite.get(timeout: .seconds(30)) }
      let reader = spawn { try receiveAll(other) }
      try first.get(timeout: .seconds(60))
      one.close()
      try #expect(!reader.get().contains(2))
    }
  }

  @Test func whoGaveATurnBeforeItBeganStealsNothing() async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let (one, other) = try Socket.pair()
      let (three, four) = try Socket.pair()
      let stream = BufferedStream(one)
      let counting: [() throws -> [UInt8]] = [
        { try one.receive(exactly: 4) }, { try stream.read(exactly: 4) },
      ]
      for count in counting {
        Hub.current.ioBudget = 0
        let polite = spawn { try one.receive(upTo: 10) }
        let first = spawn(count)
        spawn { try other.sendAll([1, 2]) }
        #expect(throws: ConcurrentUse.self) { try polite.get(timeout: .seconds(30)) }
        try other.sendAll([3, 4])
        try #expect(first.get(timeout: .seconds(30)) == [1, 2, 3, 4])
      }
      // Alone it just goes on.
      Hub.current.ioBudget = 0
      try three.sendAll([5])
      Hub.current.ioBudget = 0
      try #expect(four.receive(upTo: 10) == [5])
    }
  }

  @Test func thousandsOfKillsLeaveNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      for number in 0..<3000 {
        let victim = spawn {
          if number % 2 == 0 { _ = try one.receive(upTo: 10) } else { _ = try one.waitReadable() }
        }
        if number % 3 != 0 { try Greenlet.yield() }
        try victim.kill()
      }
      try other.sendAll([1])
      try #expect(one.receive(upTo: 10) == [1])
    }
  }
}
