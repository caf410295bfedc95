// Evergreen: tests of messages with control data.
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Greenlets
import Testing

@Suite(.timeLimit(.minutes(5))) struct SocketMessageTests {
  @Test func aDescriptorTravelsWithAByte() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let (passed, far) = try Socket.pair()
      let reader = spawn { try other.receiveMessage(upTo: 10) }
      try idle()
      try one.sendMessage([1], control: [.descriptors([passed.fileDescriptor])])
      passed.close()
      let message = try reader.get()
      #expect(message.bytes == [1])
      #expect(!message.isTruncated && !message.control.isTruncated)
      #expect(message.control.descriptorCount == 1)
      let received = try Socket(adopting: #require(message.control.takeDescriptor()))
      try received.sendAll([5])
      try #expect(far.receive(upTo: 10) == [5])
    }
  }

  @Test func descriptorsThatNobodyTakesAreClosed() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let (passed, far) = try Socket.pair()
      try one.sendMessage([1], control: [.descriptors([passed.fileDescriptor])])
      passed.close()
      do {
        let message = try other.receiveMessage(upTo: 10)
        #expect(message.control.descriptorCount == 1)
        #expect(socketError { _ = try far.receive(upTo: 1, timeout: .zero) }?.isTimeout == true)
      }
      try #expect(far.receive(upTo: 1) == nil)
    }
  }

  @Test func credentialsComeWhenAskedFor() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair(.datagram)
      try other.set(.passCredentials, true)
      try one.sendMessage([1])
      let message = try other.receiveMessage(upTo: 10)
      let own = try #require(message.control.credentials)
      try #expect(own == one.get(.peerCredentials))
    }
  }

  @Test func aDatagramHasItsSenderAndMayBeCut() async throws {
    try await runGreen {
      let one = try Socket(.ipv4, .datagram)
      let other = try Socket(.ipv4, .datagram)
      for socket in [one, other] { try socket.bind(to: .loopbackIPv4(port: 0)) }
      try one.sendMessage([1, 2, 3], to: other.localAddress)
      let message = try other.receiveMessage(upTo: 2)
      #expect(message.bytes == [1, 2])
      #expect(message.isTruncated)
      try #expect(message.sender == one.localAddress)
    }
  }

  @Test func theEndOfAStreamIsEmpty() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      one.close()
      try #expect(other.receiveMessage(upTo: 10).bytes.isEmpty)
    }
  }

  @Test func aKilledReceiverLosesNoDescriptor() async throws {
    try await runGreen {
      let (one, other) = try Socket.pair()
      let (passed, far) = try Socket.pair()
      let victim = spawn { _ = try other.receiveMessage(upTo: 10) }
      try idle()
      try one.sendMessage([1], control: [.descriptors([passed.fileDescriptor])])
      passed.close()
      try victim.kill()
      #expect(victim.error is GreenletExit)
      let message = try other.receiveMessage(upTo: 10, timeout: .seconds(5))
      #expect(message.control.descriptorCount == 1)
      withExtendedLifetime(far) {}
    }
  }
}
