// Evergreen: tests of the rule that a short read means that the kernel has nothing left.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct SocketDrainTests {
  @Test func aShortReadIsRememberedAndAFullOneIsNot() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1, 2, 3, 4])
      _ = try one.receive(upTo: 2)
      #expect(!one.descriptor.isDrained)
      _ = try one.receive(upTo: 10)
      #expect(one.descriptor.isDrained)
      try other.sendAll([5])
      _ = try one.receive(upTo: 1)
      #expect(!one.descriptor.isDrained)
    }
  }

  @Test(arguments: [true, false])
  func whatArrivesBetweenIsSeen(overTCP: Bool) async throws {
    try await runGreen {
      let (one, other) = overTCP ? try tcpPair() : try Socket.pair()
      for number in 0..<500 {
        let byte = UInt8(truncatingIfNeeded: number)
        try other.sendAll([byte])  // before the read
        try #expect(one.receive(upTo: 100) == [byte])
        if number % 3 == 0 {
          let reader = spawn { try one.receive(upTo: 100) }
          try Greenlet.yield()
          try other.sendAll([byte])  // while it waits
          try #expect(reader.get() == [byte])
        }
      }
    }
  }

  @Test func theEndAfterAShortReadIsSeen() async throws {
    try await runGreen {
      for isAbrupt in [false, true] {
        let (one, other) = try tcpPair()
        try other.sendAll([1])
        try #expect(one.receive(upTo: 10) == [1])
        if isAbrupt {
          try other.set(.linger, .zero)
          other.close()
          #expect(socketError { _ = try one.receive(upTo: 10) }?.errno == .connectionReset)
        } else {
          other.close()
          for _ in 0..<3 { try #expect(one.receive(upTo: 10) == nil) }
        }
      }
    }
  }

  @Test func dataAndTheEndTogetherAreBothSeen() async throws {
    try await runGreen {
      let (one, other) = try tcpPair()
      try other.sendAll([1])
      other.close()
      try wait { try one.waitReadable(timeout: .zero) }
      try #expect(one.receive(upTo: 10) == [1])
      try #expect(one.receive(upTo: 10) == nil)
    }
  }

  @Test func shuttingDownAfterAShortReadIsSeen() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1])
      _ = try one.receive(upTo: 10)
      try one.shutdown(.read)
      try #expect(one.receive(upTo: 10, timeout: .seconds(10)) == nil)
    }
  }

  @Test func peekAndReceiveTakeTurns() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1])
      _ = try one.receive(upTo: 10)
      // Nothing to be had, whichever way.
      #expect(socketError { _ = try one.peek(upTo: 1, timeout: .zero) }?.isTimeout == true)
      try other.sendAll([2, 3])
      try #expect(one.peek(upTo: 10, timeout: .zero) == [2, 3])
      try #expect(one.receive(upTo: 1) == [2])
      try #expect(one.receive(upTo: 1) == [3])
    }
  }

  @Test func messagesAndReceiveTakeTurns() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1])
      _ = try one.receive(upTo: 10)
      try other.sendMessage([2])
      try #expect(one.receiveMessage(upTo: 10).bytes == [2])
      try other.sendMessage([3, 4])
      try #expect(one.receiveMessage(upTo: 1).bytes == [3])
      try #expect(one.receive(upTo: 10) == [4])
    }
  }

  @Test func aDuplicateMayEmptyTheKernelInstead() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let copy = try one.duplicate()
      try other.sendAll([1])
      _ = try one.receive(upTo: 10)
      try other.sendAll([2])
      try #expect(copy.receive(upTo: 10) == [2])
      let reader = spawn { try one.receive(upTo: 10) }
      try idle()
      try other.sendAll([3])
      try #expect(reader.get() == [3])
    }
  }

  @Test func whatADatagramSocketReadsShortDrainsNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.datagram)
      try other.sendAll([1])
      try other.sendAll([2])
      try #expect(one.receive(upTo: 10) == [1])
      #expect(!one.descriptor.isDrained)
      try #expect(one.receive(upTo: 10, timeout: .zero) == [2])
    }
  }

  @Test func anEmptyBufferDrainsNothing() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      try other.sendAll([1])
      var nothing: [UInt8] = []
      _ = try nothing.withUnsafeMutableBytes { try one.receive(into: $0) }
      try #expect(one.receive(upTo: 10) == [1])
    }
  }
}
