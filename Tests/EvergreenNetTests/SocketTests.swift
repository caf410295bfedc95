// Evergreen: tests of making, connecting, ending and asking sockets.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct SocketTests {
  // MARK: Connecting

  @Test(arguments: possible(["127.0.0.1:0", "[::1]:0", "unix:@", "unix:/"]))
  func streamsCarryBytesBothWays(over kind: String) async throws {
    try await runGreen {
      let path = temporaryPath()
      let place =
        switch kind {
        case "unix:@": try SocketAddress.unix(abstract: path)
        case "unix:/": try SocketAddress.unix(path: path)
        default: try SocketAddress(parsing: kind)
        }
      let listener = try Socket.listen(on: place)
      let address = try listener.localAddress
      let server = spawn {
        let (socket, _) = try listener.accept()
        while let chunk = try socket.receive(upTo: 100) { try socket.sendAll(chunk) }
        try socket.sendAll("bye")
      }
      let client = try Socket.connect(to: address)
      try #expect(client.peerAddress == address)
      try client.sendAll("hello")
      try #expect(client.receive(exactly: 5) == Array("hello".utf8))
      try client.shutdown(.write)
      try #expect(receiveAll(client) == Array("bye".utf8))
      try server.get()
      listener.close()
      if kind == "unix:/" {
        #expect(exists(path))
        removeFile(path)
      }
    }
  }

  @Test(arguments: possible(["127.0.0.1:0", "[::1]:0"]))
  func datagramsCarryTheirSender(over kind: String) async throws {
    try await runGreen {
      let one = try Socket(SocketAddress(parsing: kind).family, .datagram)
      let other = try Socket(SocketAddress(parsing: kind).family, .datagram)
      try one.bind(to: SocketAddress(parsing: kind))
      try other.bind(to: SocketAddress(parsing: kind))
      let reader = spawn { try other.receiveFrom() }
      try idle()
      try one.send(Array("ping".utf8), to: other.localAddress)
      let (bytes, sender) = try reader.get()
      #expect(bytes == Array("ping".utf8))
      try #expect(sender == one.localAddress)
      try one.send([], to: other.localAddress)
      try #expect(other.receiveFrom().bytes.isEmpty)
    }
  }

  @Test func unixDatagramsReachAbstractNamesAndPaths() async throws {
    try await runGreen {
      let path = temporaryPath()
      defer { removeFile(path) }
      for address in try [SocketAddress.unix(abstract: path), .unix(path: path)] {
        let server = try Socket(.unix, .datagram)
        try server.bind(to: address)
        let client = try Socket(.unix, .datagram)
        try client.bind(to: .unnamedUnix)  // the kernel picks an abstract name
        try client.send([1, 2], to: address)
        let (bytes, sender) = try server.receiveFrom()
        #expect(bytes == [1, 2])
        #expect(sender.isAbstract)
        try server.send([3], to: sender)
        try #expect(client.receiveFrom().bytes == [3])
      }
    }
  }

  @Test func aConnectedDatagramSocketHearsItsPeerOnly() async throws {
    try await runGreen {
      let sockets = try (0..<3).map { _ in
        let socket = try Socket(.ipv4, .datagram)
        try socket.bind(to: .loopbackIPv4(port: 0))
        return socket
      }
      try sockets[0].connect(to: sockets[1].localAddress)
      try sockets[2].send([9], to: sockets[0].localAddress)
      try sockets[1].send([1], to: sockets[0].localAddress)
      try #expect(sockets[0].receive(upTo: 10) == [1])
      try sockets[0].sendAll([5])
      try #expect(sockets[1].receive(upTo: 10) == [5])
      // An empty datagram is not the end of a stream.
      try sockets[1].send([], to: sockets[0].localAddress)
      try #expect(sockets[0].receive(upTo: 10) == [])
      socketError { _ = try sockets[0].receive(upTo: 10, timeout: .zero) }
    }
  }

  @Test func aRefusalNamesTheAddress() async throws {
    try await runGreen {
      let closed = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try closed.localAddress
      closed.close()
      try waitUntilRefused(at: address)
      let error = socketError { _ = try Socket.connect(to: address) }
      #expect(error?.errno == .connectionRefused)
      #expect(error?.operation == .connect)
      #expect(error?.address == address)
      #expect(error?.description == "connect \(address): Connection refused")
      #expect(error?.isTransient == true)
    }
  }

  @Test func anAddressInUseIsNamed() async throws {
    try await runGreen {
      let first = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try first.localAddress
      let error = socketError { _ = try Socket.listen(on: address) }
      #expect(error?.errno == .addressInUse)
      #expect(error?.description == "bind \(address): Address already in use")
      withExtendedLifetime(first) {}
    }
  }

  @Test func aMissingUnixSocketIsNamed() async throws {
    try await runGreen {
      let path = temporaryPath()
      let error = socketError { _ = try Socket.connect(to: .unix(path: path)) }
      #expect(error?.description.contains(path) == true)
      #expect(error?.errno == .noSuchFileOrDirectory)
    }
  }

  @Test func aConnectThatIsNotAnsweredTimesOut() async throws {
    try await runGreen {
      let hole = try BlackHole()
      let begin = ContinuousClock.now
      let error = socketError {
        _ = try Socket.connect(to: hole.address, timeout: .milliseconds(50))
      }
      #expect(error?.isTimeout == true)
      #expect(error?.address == hole.address)
      #expect(ContinuousClock.now - begin >= .milliseconds(50))
      // A socket's own timeout counts, too.
      let socket = try Socket(.ipv4)
      socket.timeout = .milliseconds(20)
      #expect(socketError { try socket.connect(to: hole.address) }?.isTimeout == true)
    }
  }

  @Test func aUnixConnectWaitsForRoomInTheBacklog() async throws {
    try await runGreen {
      let hole = try UnixBlackHole()
      #expect(
        socketError {
          _ = try Socket.connect(to: hole.address, timeout: .milliseconds(20))
        }?.isTimeout == true)
      let late = spawn { try Socket.connect(to: hole.address, timeout: .seconds(30)) }
      try idle()
      #expect(!late.isReady)
      _ = try hole.listener.accept()
      try #expect(late.get().isClosed == false)
    }
  }

  @Test(arguments: possible(["127.0.0.1:0", "[::1]:0", "unix:@"]))
  func connectThatOnlyLooksReachesAListenerOnThisMachine(over kind: String) async throws {
    try await runGreen {
      let place =
        kind == "unix:@"
        ? try SocketAddress.unix(abstract: temporaryPath()) : try .init(parsing: kind)
      let listener = try Socket.listen(on: place)
      for timeout in [Duration.zero, .seconds(-1)] {
        let client = try Socket.connect(to: listener.localAddress, timeout: timeout)
        let (server, _) = try listener.accept(timeout: .zero)
        try client.sendAll([1])
        try #expect(server.receive(upTo: 10, timeout: .seconds(10)) == [1])
      }
      #expect(socketError { _ = try listener.accept(timeout: .zero) }?.isTimeout == true)
    }
  }

  @Test func connectThatOnlyLooksWaitsForNobody() async throws {
    try await runGreenInVirtualTime { clock in
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let closed = try listener.localAddress
      listener.close()
      let refusal = socketError { _ = try Socket.connect(to: closed, timeout: .zero) }
      #expect(refusal?.errno == .connectionRefused)
      #expect(clock.elapsed == .zero)
    }
    try await runGreen {
      let hole = try BlackHole()
      let error = socketError { _ = try Socket.connect(to: hole.address, timeout: .zero) }
      #expect(error?.isTimeout == true && error?.address == hole.address)
    }
  }

  @Test func aConnectedSocketStaysWithItsPeer() async throws {
    try await runGreen {
      let listeners = try (0..<2).map { _ in try Socket.listen(on: .loopbackIPv4(port: 0)) }
      let addresses = try listeners.map { try $0.localAddress }
      let client = try Socket.connect(to: addresses[0])
      let error = socketError { try client.connect(to: addresses[1]) }
      #expect(error?.errno == .socketIsConnected)
      #expect(error?.address == addresses[1])
      try #expect(client.peerAddress == addresses[0])
      for listener in listeners { listener.close() }  // not before: nobody would listen
    }
  }

  @Test func errorsSayWhatWasBeingDone() async throws {
    try await runGreen {
      let socket = try Socket(.ipv4)
      let noPeer = socketError { _ = try socket.peerAddress }
      #expect(noPeer?.operation == .getPeerAddress)
      #expect(noPeer?.errno == .socketNotConnected)
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let nobody = socketError { _ = try listener.accept(timeout: .zero) }
      try #expect(nobody?.description == "accept \(listener.localAddress): Connection timed out")
      #expect(nobody?.reason == "Connection timed out")
      socket.close()
      #expect(socketError { _ = try socket.localAddress }?.operation == .getLocalAddress)
      #expect(socketError { _ = try socket.detach() }?.operation == .detach)
    }
  }

  @Test func acceptedSocketsAreOfTheListenersKind() async throws {
    try await runGreen {
      let listener = try Socket(.unix, .sequencedPacket)
      try listener.bind(to: .unnamedUnix)
      try listener.listen()
      let client = try Socket(.unix, .sequencedPacket)
      try client.connect(to: listener.localAddress)
      let (server, _) = try listener.accept()
      for message in [[1], [], [2, 3]] as [[UInt8]] {
        _ = try client.send(message)
        try #expect(server.receive(upTo: 10, timeout: .zero) == message)  // not the end of a stream
      }
    }
  }

  @Test func closingTheSocketEndsItsConnect() async throws {
    try await runGreen {
      let hole = try BlackHole()
      let unixHole = try UnixBlackHole()
      for address in [hole.address, unixHole.address] {
        let socket = try Socket(address.family)
        let connecting = spawn { try socket.connect(to: address) }
        try idle()
        #expect(!connecting.isReady)
        socket.close()
        #expect(socketError { try connecting.get(timeout: .seconds(10)) }?.isClosed == true)
      }
      withExtendedLifetime((hole, unixHole)) {}
    }
  }

  /// To connect is to write.
  @Test(arguments: [false, true])
  func whileOneConnectsAnotherIsRefused(overUnix: Bool) async throws {
    try await runGreen {
      Hub.current.onError = { _, _ in }
      let hole = overUnix ? nil : try BlackHole()
      let unixHole = overUnix ? try UnixBlackHole() : nil
      let address = (hole?.address ?? unixHole?.address)!
      let listener = (hole?.listener ?? unixHole?.listener)!
      let name = try SocketAddress.unix(abstract: temporaryPath())
      let other = try Socket.listen(on: overUnix ? name : .loopbackIPv4(port: 0))
      let socket = try Socket(address.family)
      let first = spawn { try socket.connect(to: address) }
      first.name = "first"
      try idle()
      for place in try [address, other.localAddress] {
        let error = #expect(throws: ConcurrentUse.self) { try socket.connect(to: place) }
        #expect(error?.description.contains("\"first\"") == true)
      }
      #expect(throws: ConcurrentUse.self) { try socket.sendAll([1]) }
      try idle()
      #expect(!first.isReady)
      while (try? listener.accept(timeout: .zero)) != nil {}
      try first.get(timeout: .seconds(30))
      try #expect(socket.peerAddress == address)
    }
  }

  /// The connection is there, and the kill comes in the same moment, sooner or later.
  @Test(arguments: 0..<5)
  func aConnectIsKilledWhenItHasSucceeded(turns: Int) async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try listener.localAddress
      var connected = 0
      for _ in 0..<50 {
        let victim = spawn {
          _ = try Socket.connect(to: address)
          connected += 1
          try sleep(for: .seconds(60))
        }
        for _ in 0..<turns { try Greenlet.yield() }
        try victim.kill()
        #expect(victim.error is GreenletExit)
      }
      if turns == 0 { #expect(connected == 0) }
      while let (socket, _) = try? listener.accept(timeout: .zero) {
        try #expect(socket.receive(upTo: 1, timeout: .seconds(30)) == nil)
      }
    }
  }

  @Test(arguments: [false, true])
  func theEndOfAConnectionOfPacketsIsSeen(byShutdown: Bool) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.sequencedPacket)
      for message in [[1], [], [2, 3], [4]] as [[UInt8]] { _ = try other.send(message) }
      let reader = spawn {
        var messages: [[UInt8]] = []
        while let message = try one.receive(upTo: 10) { messages.append(message) }
        return messages
      }
      try idle()
      #expect(!reader.isReady)
      _ = try other.send([5])
      if byShutdown { try other.shutdown(.write) } else { other.close() }
      try #expect(reader.get(timeout: .seconds(30)) == [[1], [], [2, 3], [4], [5]])
      for room in [10, 100_000] {
        try #expect(one.receive(upTo: room) == nil)
        try #expect(one.peek(upTo: room) == nil)
      }
    }
  }

  /// A datagram socket has no end.
  @Test func anEmptyDatagramIsNotTheEnd() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.datagram)
      for message in [[], [], [1]] as [[UInt8]] { _ = try other.send(message) }
      for message in [[], [], [1]] as [[UInt8]] { try #expect(one.receive(upTo: 10) == message) }
    }
  }

  #if os(Linux)
  @Test func anAddressOfAnUnknownFamilyIsNotMadeUp() async throws {
    try await runGreen {
      let netlink = try Socket(adopting: openNetlink())
      #expect(socketError { _ = try netlink.localAddress }?.errno == .addressFamilyNotSupported)
    }
  }
  #endif

  @Test func aConnectWithoutAHostIsRefused() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let port = try #require(try listener.localAddress.port)
      let error = #expect(throws: SocketAddressError.self) {
        try Socket.connect(host: "", port: port)
      }
      #expect(error?.description == "address ':\(port)': there is no host to connect to")
      #expect(socketError { _ = try listener.accept(timeout: .zero) }?.isTimeout == true)
    }
  }

  @Test func acceptTakesConnectionsInTheirOrder() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let clients = try (0..<5).map { _ in try Socket.connect(to: listener.localAddress) }
      for client in clients {
        let (socket, peer) = try listener.accept()
        try #expect(peer == client.localAddress)
        try #expect(socket.peerAddress == peer)
        try #expect(socket.localAddress == client.peerAddress)
      }
      #expect(socketError { _ = try listener.accept(timeout: .zero) }?.isTimeout == true)
    }
  }

  @Test func optionsAreSetAndRead() async throws {
    try await runGreen {
      let socket = try Socket(.ipv4)
      try socket.set(.noDelay, true)
      try #expect(socket.get(.noDelay))
      let local = try Socket(.unix)
      let error = socketError { try local.set(.noDelay, true) }
      #expect(error?.operation == .setOption)
      #expect(error?.description.contains("noDelay") == true)
      socket.close()
      #expect(socketError { _ = try socket.get(.noDelay) }?.isClosed == true)
    }
  }

  // MARK: Ending

  @Test func closeWakesReaderAndWriterWithADefiniteError() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try fill(one)
      let reader = spawn { try one.receive(upTo: 10) }
      let writer = spawn { try one.sendAll([1, 2, 3]) }
      try idle()
      #expect(!reader.isReady && !writer.isReady)
      one.close()
      #expect(one.isClosed && one.fileDescriptor == -1)
      let readError = socketError { _ = try reader.get() }
      let writeError = socketError { try writer.get() }
      #expect(readError?.isClosed == true && writeError?.isClosed == true)
      #expect(readError?.operation == .receive && writeError?.operation == .send)
      #expect(readError?.description.contains("closed by this program") == true)
      one.close()  // nothing happens
      withExtendedLifetime(other) {}
    }
  }

  @Test func aClosedSocketRefusesEverything() async throws {
    try await runGreen {
      let (one, _) = try Socket.pair()
      one.close()
      let calls: [() throws -> Void] = [
        { _ = try one.receive(upTo: 1) }, { _ = try one.peek(upTo: 1) },
        { _ = try one.receive(exactly: 1) }, { _ = try one.receiveFrom() },
        { _ = try one.receiveMessage(upTo: 1) }, { try one.sendAll([1]) },
        { try one.sendAll(pieces: [[1]]) }, { try one.sendMessage([1]) },
        { try one.sendFile(0, count: 1) }, { _ = try one.accept() },
        { try one.connect(to: .loopbackIPv4(port: 1)) }, { try one.listen() },
        { try one.bind(to: .loopbackIPv4(port: 0)) }, { try one.shutdown() },
        { _ = try one.detach() }, { _ = try one.duplicate() }, { _ = try one.localAddress },
        { _ = try one.waitReadable() }, { _ = try one.waitWritable() },
      ]
      for call in calls { #expect(socketError { try call() }?.isClosed == true) }
    }
  }

  @Test func theLastReferenceCloses() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      do {
        let copy = try one.duplicate()
        #expect(!copy.isClosed)
        one.close()
        #expect(socketError { _ = try other.receive(upTo: 1, timeout: .zero) }?.isTimeout == true)
      }
      try #expect(other.receive(upTo: 1) == nil)
    }
  }

  @Test func whoWaitsHoldsTheSocket() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      weak var watched: Socket?
      let reader: Greenlet<[UInt8]?>
      do {
        let mine = try one.duplicate()
        watched = mine
        one.close()
        reader = spawn { try mine.receive(upTo: 10) }
      }
      try idle()
      #expect(watched != nil)
      try other.sendAll([7])
      try #expect(reader.get() == [7])
      #expect(watched == nil)
      try #expect(other.receive(upTo: 1) == nil)
    }
  }

  @Test func shutdownWakesItsDirectionOnly() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try fill(one)
      let reader = spawn { try one.receive(upTo: 10) }
      let writer = spawn { try one.sendAll([1, 2, 3]) }
      try idle()
      try one.shutdown(.read)
      try #expect(reader.get() == nil)
      try idle()
      #expect(!writer.isReady)
      try one.shutdown(.write)
      #expect(socketError { try writer.get() }?.errno == .brokenPipe)
      withExtendedLifetime(other) {}
    }
  }

  @Test func aHalfCloseLeavesTheOtherHalf() async throws {
    try await runGreen {
      let (client, server) = try tcpPair()
      try client.sendAll("question")
      try client.shutdown(.write)
      try #expect(receiveAll(server) == Array("question".utf8))
      try server.sendAll("answer")
      server.close()
      try #expect(receiveAll(client) == Array("answer".utf8))
      #expect(socketError { try client.sendAll("more") }?.isPeerGone == true)
    }
  }

  @Test func detachGivesTheDescriptorAwayOpen() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let reader = spawn { try one.receive(upTo: 10) }
      try idle()
      let number = try one.detach()
      #expect(one.isClosed)
      #expect(socketError { _ = try reader.get() }?.isClosed == true)
      #expect(isOpen(number))
      let again = try Socket(adopting: number)
      try other.sendAll([1])
      try #expect(again.receive(upTo: 10) == [1])
      try again.sendAll([2])
      try #expect(other.receive(upTo: 10) == [2])
    }
  }

  @Test func aDuplicateOutlivesTheFirst() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      one.timeout = .seconds(7)
      let copy = try one.duplicate()
      #expect(copy.timeout == .seconds(7))
      #expect(copy.fileDescriptor != one.fileDescriptor)
      let reader = spawn { try copy.receive(upTo: 10) }
      try idle()
      one.close()
      try idle()
      #expect(!reader.isReady)
      try other.sendAll([1])
      try #expect(reader.get() == [1])
      copy.close()
      try #expect(other.receive(upTo: 1) == nil)
    }
  }

  @Test func adoptingWhatIsNoDescriptorFails() async throws {
    try await runGreen {
      for number in [1_000_000, -1] as [Int32] {
        let error = socketError { _ = try Socket(adopting: number) }
        #expect(error?.errno == .badFileDescriptor)
        #expect(error?.isClosed == false)  // there is no socket that could have been
        #expect(error?.description == "open: file descriptor \(number): Bad file descriptor")
      }
    }
  }

  @Test func peersOfAPairKnowNoAddress() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try #expect(one.localAddress.isUnnamed)
      try #expect(other.peerAddress.isUnnamed)
      let (datagram, peer) = try Socket.pair(.datagram)
      try datagram.sendAll([1])
      try datagram.sendAll([2, 3])
      try #expect(peer.receive(upTo: 10) == [1])
      try #expect(peer.receive(upTo: 10) == [2, 3])
    }
  }

  // MARK: Readiness

  @Test func waitReadableSeesDataAndEnds() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try #expect(!one.waitReadable(timeout: .zero))
      try #expect(!one.waitReadable(timeout: .milliseconds(5)))
      let waiter = spawn { try one.waitReadable() }
      try idle()
      try other.sendAll([1])
      try #expect(waiter.get())
      try #expect(one.waitReadable(timeout: .zero))
      _ = try one.receive(upTo: 1)
      try #expect(!one.waitReadable(timeout: .zero))
      other.close()
      try #expect(one.waitReadable())
    }
  }

  @Test func waitWritableSeesRoom() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try #expect(one.waitWritable(timeout: .zero))
      try fill(one)
      try #expect(!one.waitWritable(timeout: .milliseconds(5)))
      let waiter = spawn { try one.waitWritable() }
      try idle()
      #expect(!waiter.isReady)
      try drain(other)
      try #expect(waiter.get())
    }
  }

  @Test func closingEndsWaitReadableWithAnError() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let waiter = spawn { try one.waitReadable() }
      try idle()
      one.close()
      #expect(socketError { _ = try waiter.get() }?.isClosed == true)
      withExtendedLifetime(other) {}
    }
  }

  @Test func anyDescriptorCanBeWaitedFor() async throws {
    try await runGreen {
      let (reading, writing) = try pipeEnds()
      defer {
        closeRaw(reading)
        closeRaw(writing)
      }
      try #expect(!waitReadable(reading, timeout: .zero))
      try #expect(!waitReadable(reading, timeout: .milliseconds(5)))
      try #expect(waitWritable(writing))
      // Several may wait on one descriptor.
      let waiters = (0..<3).map { _ in spawn { try waitReadable(reading) } }
      try idle()
      try writeRaw(writing, [1])
      for waiter in waiters { try #expect(waiter.get()) }
      let error = socketError { _ = try waitReadable(1_000_000) }
      #expect(error?.errno == .badFileDescriptor && error?.isClosed == false)
      #expect(error?.description == "wait: file descriptor 1000000: Bad file descriptor")
      #expect(socketError { _ = try waitWritable(-1) }?.errno == .badFileDescriptor)
    }
  }

  @Test func anotherThreadIsRefused() async throws {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        nonisolated(unsafe) let socket = try Socket.pair().0
        _ = try ThreadPool.run { try socket.receive(upTo: 1) }
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("belongs to the hub of another thread"))
  }

  /// It could not wake who waits.
  @Test func anotherThreadMayNotCloseWhatIsWaitedOn() async throws {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try await runGreenInChild {
        let (one, other) = try Socket.pair()
        nonisolated(unsafe) let socket = one
        spawn { try socket.receive(upTo: 1) }
        try idle()
        try ThreadPool.run { socket.close() }
        withExtendedLifetime(other) {}
      }
    }
    let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(text.contains("belongs to the hub of another thread"))
  }

  @Test func connectionsAndLooksThatNeverWaitStarveNobody() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .unix(abstract: temporaryPath()), backlog: 1000)
      let address = try listener.localAddress
      var turns = 0
      let other = spawn {
        while true {
          turns += 1
          try Greenlet.yield()
        }
      }
      var clients: [Socket] = []
      for _ in 0..<300 { clients.append(try Socket.connect(to: address)) }
      #expect(turns > 0)
      turns = 0
      for _ in 0..<300 { try #expect(listener.waitReadable()) }
      #expect(turns > 0)
      try other.kill()
    }
  }

  @Test func aLoopCallbackCannotBlock() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      var thrown: (any Error)?
      let timer = Hub.current.eventLoop.timer(after: .milliseconds(1))
      timer.start {
        do { _ = try one.receive(upTo: 1) } catch { thrown = error }
      }
      try wait { thrown != nil }
      #expect(thrown is BlockingInHub)
      // And it has left nothing that would disturb others.
      try other.sendAll([1])
      try #expect(one.receive(upTo: 1) == [1])
    }
  }
}
