// Evergreen: tests of sockets and look-ups in forked children.
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

@Suite(.timeLimit(.minutes(2))) struct ForkTests {
  @Test(arguments: Backend.available.map(\.name)) func socketsWork(on backend: String) async {
    await #expect(processExitsWith: .success) { [backend] in
      setenv("EVERGREEN_BACKEND", backend, 1)
      try await runGreenInChild {
        let (one, other) = try Socket.pair()
        let reader = spawn { try other.receive(upTo: 10) }
        try idle()
        try spawn {
          try inForkedChild {
            // Those that were made here, and those that were there already.
            let (mine, yours) = try Socket.pair()
            let echo = spawn {
              while let bytes = try yours.receive(upTo: 100) { try yours.sendAll(bytes) }
            }
            for round in 0..<20 {
              try mine.sendAll([UInt8(round), 1, 2])
              try check(mine.receive(exactly: 3) == [UInt8(round), 1, 2])
            }
            mine.close()
            try echo.get()
            let listener = try Socket.listen(on: .loopbackIPv4(port: 0))
            let client = spawn { try Socket.connect(to: listener.localAddress) }
            let (accepted, _) = try listener.accept()
            try client.get().sendAll([9])
            try check(accepted.receive(upTo: 1) == [9])
            // The reader that stayed in the parent is in nobody's way.
            do {
              _ = try other.receive(upTo: 10, timeout: .milliseconds(5))
              try check(false)
            } catch let error as SocketError {
              try check(error.errno == .timedOut, "\(error)")
            }
            try other.sendAll([5])
            other.close()
            one.close()
          }
        }.get()
        // The child's sockets were copies: here all is as it was.
        try check(one.receive(upTo: 1) == [5])
        try check(!reader.isReady)
        try one.sendAll([6])
        try check(reader.get() == [6])
        one.close()
        other.close()
      }
    }
  }

  /// A watch that was left behind would fire in each pass, or keep the child from its end.
  @Test func watchesOfTheOthersAreStopped() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let (one, other) = try Socket.pair()
        let readers = [
          spawn { try other.receive(upTo: 10, timeout: .seconds(3600)) },
          spawn { try waitReadable(one.fileDescriptor, timeout: .seconds(3600)) ? [] : nil },
        ]
        try idle()
        try spawn {
          try inForkedChild {
            do {
              try Event().wait()
            } catch is LoopExit {
              return
            }
          }
        }.get()
        try killAll(readers)
        one.close()
        other.close()
      }
    }
  }

  @Test func aServerGoesOnWhereItWasMadeAndMayBeStartedInTheChild() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let server = try StreamServer("127.0.0.1:0") { socket, _ in
          try socket.sendAll(Array("\(getpid())".utf8))
        }
        func ask() throws -> String {
          let socket = try Socket.connect(to: server.address, timeout: .seconds(30))
          defer { socket.close() }
          var answer: [UInt8] = []
          while let bytes = try socket.receive(upTo: 100) { answer += bytes }
          return String(decoding: answer, as: UTF8.self)
        }
        try server.start()
        try check(ask() == "\(getpid())")
        let parent = "\(getpid())"
        try inForkedChild {
          try check(!server.isAccepting)
          try check(ask() == parent)
          try server.start()
          // Both accept, whoever is quicker.
          let end = ContinuousClock.now + .seconds(50)
          while try ask() != "\(getpid())" { try check(ContinuousClock.now < end) }
          try server.stop()
        }
        try check(ask() == parent)
        try server.stop()
      }
    }
  }

  /// It is the parent's, who goes on to serve there.
  @Test func theChildLeavesTheSocketsPath() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        let paths = (0..<2).map { _ in temporaryPath() }
        let stream = try StreamServer("unix:\(paths[0])") { socket, _ in
          try socket.sendAll("hello")
        }
        let datagram = try DatagramServer("unix:\(paths[1])") { _, _, _ in }
        try stream.start()
        try datagram.start()
        try inForkedChild {
          try stream.stop()
          try datagram.stop()
          try check(paths.allSatisfy(exists))
        }
        let client = try Socket.connect(to: stream.address)
        try check(client.receive(exactly: 5) == Array("hello".utf8))
        try stream.stop()
        try datagram.stop()
        try check(!paths.contains(where: exists))
      }
    }
  }

  @Test(.disabled(if: Sanitizer.thread, "it ends a forked child that starts a thread"))
  func namesAreLookedUp() async {
    await #expect(processExitsWith: .success) {
      try await runGreenInChild {
        func lookUp() throws {
          let found = try SocketAddress.resolve("localhost", port: 80, timeout: .seconds(30))
          try check(!found.isEmpty && found.allSatisfy { $0.isLoopback })
        }
        try lookUp()  // the parent's pool has threads now
        let others = (0..<4).map { _ in spawn { try lookUp() } }
        try spawn { try inForkedChild(lookUp) }.get()
        try inForkedChild(lookUp)
        for other in others { try other.get() }
      }
    }
  }
}
