// Evergreen: tests of waiting for several descriptors at once.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// poll(2) by way of the hub, as C code will call it.
private func pollRaw(
  _ descriptors: [(fd: Int32, events: Int32)], timeout: Duration? = nil
) throws -> [Int32] {
  let all = UnsafeMutableBufferPointer<pollfd>.allocate(capacity: descriptors.count)
  defer { all.deallocate() }
  for (index, one) in descriptors.enumerated() {
    all.initializeElement(
      at: index, to: pollfd(fd: one.fd, events: Int16(one.events), revents: 0x7f))
  }
  let hub = Hub.current
  let count = try hub.poll(all, until: Deadline(after: timeout, on: hub))
  #expect(count == all.count { $0.revents != 0 })
  return all.map { Int32($0.revents) }
}

/// The ends of a pipe, closed with the object.
private final class Pipe {
  let reading: Int32
  private(set) var writing: Int32

  init() throws { (reading, writing) = try pipeEnds() }

  func write() throws { try writeRaw(writing, [1]) }

  func read() throws {
    var byte: UInt8 = 0
    _ = try checked { Glibc.read(reading, &byte, 1) }
  }

  func closeWriting() {
    if writing >= 0 { closeRaw(writing) }
    writing = -1
  }

  deinit {
    closeRaw(reading)
    closeWriting()
  }
}

#if os(Linux)
/// An eventfd(2), for which Swift's Glibc has no declaration.
private func eventCounter() -> Int32 {
  let make = unsafeBitCast(
    dlsym(nil, "eventfd"), to: (@convention(c) (UInt32, Int32) -> Int32).self)
  return make(0, 0)
}
#endif

@Suite(.timeLimit(.minutes(5))) struct PollTests {
  // MARK: Waiting

  @Test func answersWhatIsReadyInTheOrderOfTheRequests() async throws {
    try await runGreen {
      let pipes = try (0..<4).map { _ in try Pipe() }
      try pipes[3].write()
      try pipes[1].write()
      let answers = try poll(pipes.map { PollRequest($0.reading, .read) })
      #expect(answers.map(\.index) == [1, 3])
      #expect(answers.map(\.descriptor) == [pipes[1].reading, pipes[3].reading])
      #expect(answers.allSatisfy { $0.events == .read })
    }
  }

  @Test func waitsUntilOneIsReadyAndTheOthersRunMeanwhile() async throws {
    try await runGreen {
      let pipes = try (0..<4).map { _ in try Pipe() }
      defer { withExtendedLifetime(pipes) {} }  // which closes them
      let poller = spawn { try poll(pipes.map { PollRequest($0.reading, .read) }) }
      try idle()
      #expect(!poller.isReady)
      try pipes[2].write()
      let answers = try poller.get(timeout: .seconds(30))
      #expect(answers.map(\.index) == [2])
      #expect(answers.map(\.descriptor) == [pipes[2].reading])
      #expect(answers.map(\.events) == [.read])
      // Nothing was read.
      try pipes[2].read()
      try #expect(poll(pipes.map { PollRequest($0.reading, .read) }, timeout: .zero).isEmpty)
    }
  }

  @Test func aSocketIsReadableOrWritableOrBoth() async throws {
    try await runGreen {
      for (one, other) in [try tcpPair(), try Socket.pair()] {
        try #expect(poll([.init(one, [.read, .write])])[0].events == .write)
        try other.sendAll([1])
        try wait { try one.waitReadable(timeout: .zero) }
        try #expect(poll([.init(one, [.read, .write])])[0].events == [.read, .write])
        try fill(one)
        let writer = spawn { try poll([.init(one, .write)]) }
        try idle()
        #expect(!writer.isReady)
        try drain(other)
        // Loopback needs a moment for what was under way.
        while try !writer.join(timeout: .milliseconds(1)) { try drain(other) }
        try #expect(writer.get()[0].events == .write)
        other.close()
        try #expect(
          poll([.init(one, .read)], timeout: .seconds(30)).first?.events.contains(.read) == true)
      }
    }
  }

  @Test func aListenerAndADatagramSocketAreReadable() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let receiver = try Socket(.ipv4, .datagram)
      try receiver.bind(to: .loopbackIPv4(port: 0))
      let requests = [PollRequest(listener, .read), .init(receiver, .read)]
      var poller = spawn { try poll(requests) }
      try idle()
      let client = try Socket.connect(to: listener.localAddress)
      try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [0])
      _ = try listener.accept()
      poller = spawn { try poll(requests) }
      try idle()
      let sender = try Socket(.ipv4, .datagram)
      try sender.send([1], to: receiver.localAddress)
      try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [1])
      client.close()
    }
  }

  @Test func aConnectionThatFailsIsAnErrorAndAHangUp() async throws {
    try await runGreen {
      let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
      let address = try listener.localAddress
      listener.close()
      try waitUntilRefused(at: address)
      let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
      defer { closeRaw(number) }
      _ = address.withSockaddr { connect(number, $0, $1) }
      let events = try poll([.init(number, .write)], timeout: .seconds(30)).first?.events
      #expect(events == [.write, .error, .hangUp])
    }
  }

  @Test(arguments: [true, false]) func fifosTellOfTheirWriters(isAfterwards: Bool) async throws {
    try await runGreen {
      let path = temporaryPath()
      _ = try checked { mkfifo(path, 0o600) }
      defer { removeFile(path) }
      let reading = try checked { open(path, O_RDONLY | O_NONBLOCK) }
      defer { closeRaw(reading) }
      try #expect(poll([.init(reading, .read)], timeout: .milliseconds(5)).isEmpty)
      let poller = spawn { try poll([.init(reading, .read)]) }
      try idle()
      let writing = try checked { open(path, O_WRONLY | O_NONBLOCK) }
      if !isAfterwards { try writeRaw(writing, [1]) }
      if isAfterwards { closeRaw(writing) }
      let answers = try poller.get(timeout: .seconds(30))
      #expect(answers.first?.events == (isAfterwards ? .hangUp : .read))
      if !isAfterwards { closeRaw(writing) }
    }
  }

  @Test func aTerminalIsReadable() async throws {
    try await runGreen {
      var (master, terminal): (Int32, Int32) = (-1, -1)
      _ = try checked { openpty(&master, &terminal, nil, nil, nil) }
      defer { closeRaw(master) }
      let requests = [PollRequest(master, .read), .init(terminal, .read)]
      let poller = spawn { try poll(requests) }
      try idle()
      #expect(!poller.isReady)
      try writeRaw(master, Array("line\n".utf8))
      let answers = try poller.get(timeout: .seconds(30))
      #expect(answers.contains { $0.index == 1 && $0.events == .read })
      closeRaw(terminal)
      try #expect(
        poll([.init(master, [])], timeout: .seconds(30)).first?.events == .hangUp)
    }
  }

  #if os(Linux)
  @Test(arguments: [PollEvents.read, [.read, .priority]])
  func aCounterOfEventsIsReadable(_ events: PollEvents) async throws {
    try await runGreen {
      let counter = eventCounter()
      defer { closeRaw(counter) }
      try #expect(poll([.init(counter, [events, .write])]).first?.events == .write)
      let poller = spawn { try poll([.init(counter, events)]) }
      try idle()
      #expect(!poller.isReady)
      try writeRaw(counter, [1, 0, 0, 0, 0, 0, 0, 0])
      try #expect(poller.get(timeout: .seconds(30)).first?.events == .read)
    }
  }
  #endif

  // MARK: What the loop alone cannot tell

  @Test func anErrorIsAnsweredUnaskedAndDataThatNobodyWantsIsNot() async throws {
    try await runGreen {
      let pipe = try Pipe()
      try pipe.write()  // a loop that was asked for reading would be woken all the time
      let poller = spawn { try poll([.init(pipe.reading, [])]) }
      try idle()
      try #expect(!poller.join(timeout: .milliseconds(20)))
      pipe.closeWriting()
      try #expect(poller.get(timeout: .seconds(30)).first?.events == .hangUp)

      let (reading, writing) = try pipeEnds()
      defer { closeRaw(writing) }
      let other = spawn { try poll([.init(writing, [])]) }
      try idle()
      #expect(!other.isReady)
      closeRaw(reading)
      try #expect(other.get(timeout: .seconds(30)).first?.events == .error)
    }
  }

  @Test func urgentDataIsToldFromOther() async throws {
    try await runGreen {
      let (client, server) = try tcpPair()
      try client.sendAll([1])
      try #expect(server.waitReadable(timeout: .seconds(30)))
      let begin = clock()
      let poller = spawn { try poll([.init(server, .priority)]) }
      try #expect(!poller.join(timeout: .milliseconds(200)))
      #expect(Double(clock() - begin) / 1_000_000 < 0.15)  // it did not spin
      var byte: UInt8 = 2
      _ = try checked { send(client.fileDescriptor, &byte, 1, Int32(MSG_OOB)) }
      try #expect(poller.get(timeout: .seconds(30)).first?.events == .priority)
    }
  }

  #if os(Linux)
  @Test func theEndOfThePeersSendingIsToldFromData() async throws {
    try await runGreen {
      let (client, server) = try tcpPair()
      try client.sendAll([1])
      let poller = spawn { try poll([.init(server, .peerFinished)]) }
      try #expect(!poller.join(timeout: .milliseconds(20)))
      try client.shutdown(.write)
      try #expect(poller.get(timeout: .seconds(30)).first?.events == .peerFinished)
    }
  }
  #endif

  /// What libcurl asks for.
  @Test func readingByItsOtherNamesWorks() async throws {
    try await runGreen {
      let pipe = try Pipe()
      for events in [POLLRDNORM, POLLIN | POLLRDNORM, POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND] {
        let poller = spawn { try pollRaw([(pipe.reading, events)]) }
        try idle()
        #expect(!poller.isReady)
        try pipe.write()
        try #expect(poller.get(timeout: .seconds(30)) == [events & (POLLIN | POLLRDNORM)])
        try pipe.read()
      }
      try #expect(
        pollRaw([(pipe.writing, POLLWRNORM)], timeout: .seconds(30)) == [POLLWRNORM])
    }
  }

  // MARK: Odd requests

  @Test func filesAreAlwaysReady() async throws {
    try await runGreen {
      let file = try TemporaryFile([1])
      let pipe = try Pipe()
      let requests = [PollRequest(pipe.reading, .read), .init(file.descriptor, [.read, .write])]
      try #expect(poll(requests).map(\.index) == [1])
      try #expect(poll(requests)[0].events == [.read, .write])
      // One that is asked for what never happens does not keep the others from being told.
      let poller = spawn {
        try poll([.init(file.descriptor, .priority), .init(pipe.reading, [.read, .priority])])
      }
      try idle()
      #expect(!poller.isReady)
      try pipe.write()
      try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [1])
    }
  }

  @Test func theSameDescriptorMayBeAskedForSeveralTimes() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try fill(one)
      let requests = [PollRequest(one, .read), .init(one, .write), .init(one, .read)]
      var poller = spawn { try poll(requests) }
      try idle()
      #expect(!poller.isReady)
      try other.sendAll([1])
      try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [0, 2])
      _ = try one.receive(upTo: 1)
      poller = spawn { try poll(requests) }
      try idle()
      #expect(!poller.isReady)
      try drain(other)
      try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [1])
      // Also where the loop cannot watch it by itself.
      let number = one.fileDescriptor
      let raw = spawn {
        try pollRaw([(number, POLLPRI), (number, POLLRDNORM), (number, 0), (number, POLLPRI)])
      }
      try idle()
      #expect(!raw.isReady)
      try other.sendAll([1])
      try #expect(raw.get(timeout: .seconds(30)) == [0, POLLRDNORM, 0, 0])
    }
  }

  @Test func whatIsNotOpenIsAnsweredAtOnce() async throws {
    try await runGreen {
      let pipe = try Pipe()
      let (one, other) = try Socket.pair()
      one.close()
      let (reading, writing) = try pipeEnds()
      closeRaw(reading)
      closeRaw(writing)
      let answers = try poll([
        .init(pipe.reading, .read), .init(reading, .read), .init(one, .read), .init(-1, .read),
        .init(-7, []), .init(other, .write),
      ])
      #expect(answers.map(\.index) == [1, 2, 3, 4, 5])
      #expect(answers.map(\.descriptor) == [reading, -1, -1, -1, other.fileDescriptor])
      let expected = Array(repeating: PollEvents.invalid, count: 4) + [[.write, .hangUp]]
      #expect(answers.map(\.events) == expected)
      // poll(2) itself passes over negative ones.
      try #expect(pollRaw([(-1, POLLIN), (reading, POLLIN)]) == [0, POLLNVAL])
      try #expect(
        pollRaw([(-1, POLLIN), (pipe.reading, POLLIN)], timeout: .milliseconds(2)) == [0, 0])
      let poller = spawn { try pollRaw([(-1, POLLIN), (pipe.reading, POLLIN), (-5, POLLPRI)]) }
      try idle()
      try pipe.write()
      try #expect(poller.get(timeout: .seconds(30)) == [0, POLLIN, 0])
    }
  }

  @Test func withoutAnyDescriptorTimePasses() async throws {
    try await runGreenInVirtualTime { clock in
      try #expect(poll([], timeout: .seconds(60)).isEmpty)
      #expect(isAbout(clock.elapsed, .seconds(60)))
      try #expect(pollRaw([(-1, POLLIN)], timeout: .seconds(60)) == [0])
      #expect(isAbout(clock.elapsed, .seconds(120)))
      try #expect(poll([], timeout: .zero).isEmpty)
      #expect(throws: LoopExit.self) { try poll([]) }
    }
  }

  @Test func moreThanTheProcessMayHaveAreAnError() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = 100
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        do {
          _ = try poll(Array(repeating: PollRequest(0, .read), count: 101))
          try check(false)
        } catch let error as SocketError {
          try check(error.description == "wait: 101 descriptors: Invalid argument", "\(error)")
        }
      }
    }
  }

  @Test func aThousandDescriptors() async throws {
    try await runGreen {
      let pipes = try (0..<450).map { _ in try Pipe() }
      for events in [PollEvents.read, [.read, .priority]] {
        let once = pipes.map { PollRequest($0.reading, events) }
        let others = (0..<100).map {
          PollRequest($0 % 2 == 0 ? pipes[0].reading : pipes[0].writing, .priority)
        }
        let requests = once + once + others
        #expect(requests.count == 1000)
        for place in [0, 449, 225] {
          // A stack of the smallest size: none of it is needed.
          let poller = Greenlet(stackSize: 32 * 1024) { try poll(requests) }.start()
          try idle()
          #expect(!poller.isReady)
          try pipes[place].write()
          try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [place, 450 + place])
          try pipes[place].read()
        }
      }
    }
  }

  // MARK: How it ends

  static let kinds: [PollEvents] = [.read, .priority, [.read, .priority], []]

  @Test(arguments: kinds) func theTimeCoversTheWholeCall(_ events: PollEvents) async throws {
    try await runGreenInVirtualTime { clock in
      let pipe = try Pipe()
      try #expect(poll([.init(pipe.reading, events)], timeout: .zero).isEmpty)
      #expect(clock.elapsed == .zero)
      // Another one takes each time what was there: it is woken in vain.
      let thief = spawn {
        while true {
          try sleep(for: .seconds(1))
          try pipe.write()
          try pipe.read()
        }
      }
      try #expect(poll([.init(pipe.reading, events)], timeout: .seconds(10)).isEmpty)
      #expect(isAbout(clock.elapsed, .seconds(10)))
      try thief.kill()
    }
  }

  @Test func whatAnotherHasTakenIsWaitedForAgain() async throws {
    try await runGreen {
      let pipe = try Pipe()
      let other = try Pipe()
      for events in [PollEvents.read, [.read, .priority]] {
        let poller = spawn {
          try poll([.init(pipe.reading, events), .init(other.reading, events)])
        }
        try idle()
        // The one that takes it is ready before the one that is told of it.
        let thief = spawn { try pipe.read() }
        try pipe.write()
        try Hub.current.giveTurn()
        try idle()
        #expect(thief.isReady && !poller.isReady)
        try other.write()
        try #expect(poller.get(timeout: .seconds(30)).map(\.index) == [1])
        try other.read()
      }
    }
  }

  @Test(arguments: kinds) func leavesNothingBehindWhenItIsEnded(_ events: PollEvents) async throws {
    try await runGreen {
      let pipes = try (0..<3).map { _ in try Pipe() }
      let last = PollRequest(pipes[0].reading, .read)
      let requests = pipes.map { PollRequest($0.reading, events) } + [last]
      let victim = spawn { try poll(requests) }
      try idle()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(2)) { _ = try poll(requests) }
      }
      let dueToEnd = spawn {
        try Greenlet.current.kill(waiting: false)
        _ = try poll(requests)
        Issue.record("it went on")
      }
      try dueToEnd.join()
      #expect(Hub.current.loop.referenceCount == 0)
      #expect(throws: LoopExit.self) { try Event().wait() }
      try pipes[0].write()
      try #expect(poll(requests).last?.index == 3)
    }
  }

  @Test func whatIsReadyAtTheMomentOfTheTimeoutIsAnswered() async throws {
    try await runGreenInVirtualTime { clock in
      let pipe = try Pipe()
      let poller = spawn { try poll([.init(pipe.reading, .read)], timeout: .seconds(1)) }
      try idle()
      clock.advance(by: .seconds(2))
      try pipe.write()
      try #expect(poller.get().map(\.index) == [0])
    }
  }

  @Test(arguments: kinds) func closingASocketIsAnsweredAndTheOthersAreNot(
    _ events: PollEvents
  ) async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let number = one.fileDescriptor
      let requests = [PollRequest(other, events), .init(one, events), .init(number, [])]
      let poller = spawn { try poll(requests) }
      try idle()
      #expect(!poller.isReady)
      one.close()
      let answers = try poller.get(timeout: .seconds(30))
      #expect(answers.filter { $0.index > 0 }.map(\.events) == [.invalid, .invalid])
      #expect(answers.allSatisfy { $0.index == 0 || $0.descriptor == number })
    }
  }

  @Test func aNumberThatIsGivenAwayAgainIsNotTakenForTheOldOne() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let number = one.fileDescriptor
      let poller = spawn { try poll([.init(one, .read)]) }
      try idle()
      one.close()
      let (heir, peer) = try Socket.pair()
      #expect([heir.fileDescriptor, peer.fileDescriptor].contains(number))
      let begin = ContinuousClock.now
      try #expect(poller.get(timeout: .seconds(30)).map(\.events) == [.invalid])
      #expect(ContinuousClock.now - begin < .seconds(20))
      try heir.sendAll([1])
      try #expect(peer.receive(upTo: 1) == [1])
      other.close()
    }
  }

  @Test func aSocketThatOnlyARequestHoldsStaysOpen() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      var mine: Socket? = one
      let requests = [PollRequest(mine!, .read)]
      mine = nil
      let poller = spawn { try poll(requests) }
      try idle()
      try other.sendAll([1])
      try #expect(poller.get(timeout: .seconds(30)).map(\.events) == [.read])
    }
  }

  @Test func severalMayWaitForTheSame() async throws {
    try await runGreen {
      let pipe = try Pipe()
      let pollers = (0..<3).map { _ in spawn { try poll([.init(pipe.reading, .read)]) } }
      let reader = spawn { try waitReadable(pipe.reading) }
      try idle()
      try pipe.write()
      for poller in pollers { try #expect(poller.get(timeout: .seconds(30)).count == 1) }
      try #expect(reader.get(timeout: .seconds(30)))
    }
  }

  @Test func whoIsAlwaysAnsweredAtOnceLetsOthersRun() async throws {
    try await runGreen {
      let pipe = try Pipe()
      try pipe.write()
      var hasRun = false
      spawn { hasRun = true }
      var rounds = 0
      while !hasRun && rounds < 10_000 {
        _ = try poll([.init(pipe.reading, .read)], timeout: .zero)
        rounds += 1
      }
      #expect(hasRun)
    }
  }

  @Test func aCallbackOfTheLoopMayLookButNotWait() async throws {
    try await runGreen {
      let pipe = try Pipe()
      let done = Waiter<Void>()
      let timer = Hub.current.eventLoop.timer(after: .zero)
      timer.start {
        try #expect(poll([.init(pipe.reading, .read)], timeout: .zero).isEmpty)
        #expect(throws: BlockingInHub.self) { try poll([.init(pipe.reading, .read)]) }
        done.resume()
      }
      try done.get(timeout: .seconds(30))
    }
  }

  @Test func aReportSaysWhatIsWaitedFor() async throws {
    try await runGreen {
      let pipe = try Pipe()
      let one = spawn { try poll([.init(pipe.reading, .read)]) }
      let two = spawn { try poll([.init(pipe.reading, .read), .init(pipe.writing, [])]) }
      let none = spawn { try pollRaw([(-5, POLLIN)]) }
      try idle()
      let report = Hub.current.report()
      #expect(report.contains("polling descriptor \(pipe.reading)"))
      #expect(report.contains("polling, number of descriptors: 2"))
      #expect(report.contains("polling, number of descriptors: 1"))
      try none.kill()
      try one.kill()
      try two.kill()
    }
  }

  /// Where the kernel has nothing left to watch with, it is asked from time to time.
  @Test func findsOutWithoutDescriptorsToSpare() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let pipe = try Pipe()
        var fillers: [Int32] = []
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = 64
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        while case let number = dup(pipe.reading), number >= 0 { fillers.append(number) }
        for events in [PollEvents.priority, [.read, .priority]] {
          let answers = try poll([.init(pipe.reading, events)], timeout: .milliseconds(30))
          try check(answers.isEmpty)
        }
        let poller = spawn { try poll([.init(pipe.reading, [.read, .priority])]) }
        try idle()
        try check(!poller.isReady)
        try pipe.write()
        try check(poller.get(timeout: .seconds(30)).map(\.events) == [.read])
        for number in fillers { closeRaw(number) }
      }
    }
  }

  /// Each in a process of its own, for the variable is the process's.
  @Test(arguments: Backend.available.map(\.name)) func worksOn(backend: String) async {
    await #expect(processExitsWith: .success) { [backend] in
      setenv("EVERGREEN_BACKEND", backend, 1)
      try await runGreenInChild {
        try check(Hub.current.eventLoop.backend.name == backend)
        let pipe = try Pipe()
        let (one, other) = try Socket.pair()
        for events in [PollEvents.read, [.read, .priority]] {
          let requests = [
            PollRequest(pipe.reading, events), .init(one, events), .init(pipe.reading, []),
          ]
          try check(poll(requests, timeout: .milliseconds(5)).isEmpty)
          var poller = spawn { try poll(requests) }
          try idle()
          try pipe.write()
          try check(poller.get(timeout: .seconds(30)).map(\.index) == [0])
          try pipe.read()
          poller = spawn { try poll(requests) }
          try idle()
          try other.sendAll([1])
          try check(poller.get(timeout: .seconds(30)).map(\.index) == [1])
          _ = try one.receive(upTo: 1)
        }
        let requests = [PollRequest(pipe.reading, .priority), .init(one, .read)]
        let poller = spawn { try poll(requests) }
        try idle()
        one.close()
        try check(poller.get(timeout: .seconds(30)).map(\.events) == [.invalid])
        other.close()
      }
    }
  }

  /// close(2) by its number, which poll(2) and select(2) show to the loop.
  @Test(arguments: Backend.available.map(\.name)) func bearsThatADescriptorIsClosedBehindItsBack(
    backend: String
  ) async {
    await #expect(processExitsWith: .success) { [backend] in
      setenv("EVERGREEN_BACKEND", backend, 1)
      try await runGreenInChild {
        let other = try Pipe()
        for events in [PollEvents.read, .priority] {
          let (reading, writing) = try pipeEnds()
          let poller = spawn {
            try poll(
              [.init(reading, events), .init(other.reading, .read)], timeout: .seconds(30))
          }
          try idle()
          closeRaw(reading)
          try sleep(for: .milliseconds(5))
          let isFound = poller.isReady
          if !isFound { try other.write() }
          try check(poller.get().map(\.events).first == .invalid, "\(poller.value ?? [])")
          if !isFound { try other.read() }
          closeRaw(writing)
        }
      }
    }
  }

  @Test(arguments: Backend.available.map(\.name)) func theChildOfAForkIsFreeOfIt(
    backend: String
  ) async {
    await #expect(processExitsWith: .success) { [backend] in
      setenv("EVERGREEN_BACKEND", backend, 1)
      try await runGreenInChild {
        let pipe = try Pipe()
        let (one, other) = try Socket.pair()
        let poller = spawn {
          try poll([.init(pipe.reading, .read), .init(one, .priority), .init(one, .read)])
        }
        try idle()
        try inForkedChild {
          try check(poller.isReady)
          // Nothing keeps the loop from seeing that nothing is left to do.
          do {
            try Event().wait()
            try check(false)
          } catch is LoopExit {}
          try check(poll([.init(pipe.reading, .read)], timeout: .milliseconds(2)).isEmpty)
          let (mine, yours) = try Socket.pair()  // what is sent on the others the parent would see
          let next = spawn { try poll([.init(one, .read), .init(mine, [.read, .priority])]) }
          try idle()
          try yours.sendAll([1])
          try check(next.get(timeout: .seconds(30)).map(\.index) == [1])
        }
        try check(!poller.isReady)
        try pipe.write()
        try check(poller.get(timeout: .seconds(30)).map(\.index) == [0])
        one.close()
        other.close()
      }
    }
  }

  @Test func eventsDescribeThemselves() {
    #expect(PollEvents([.read, .hangUp]).description == "[read, hangUp]")
    #expect(PollEvents([]).description == "[]")
    #expect(PollEvents(rawValue: 0x4001).description == "[read, 0x4000]")
  }
}
