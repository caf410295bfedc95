// Evergreen: tests of control messages, with raw sendmsg and recvmsg
// SPDX-License-Identifier: MIT

import EventLoop
import EvergreenNet
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Serialized, because descriptors are looked at by their numbers after they were closed. Other
/// suites open descriptors meanwhile, so a leak is seen at the other end of a pipe instead: it
/// reaches its end only when the last writer is gone.
@Suite(.serialized) struct ControlMessageTests {
  final class Pair {
    let ends: [Int32]

    init(_ type: SocketType = .stream) throws {
      var ends: [Int32] = [-1, -1]
      _ = try checked { socketpair(AF_UNIX, type.rawValue, 0, &ends) }
      self.ends = ends
    }

    deinit { for end in ends { close(end) } }

    func send(_ messages: [ControlMessage]) throws(Errno) {
      try ControlMessage.withEncoded(messages) { (control) throws(Errno) in
        var byte: UInt8 = 0
        try withUnsafeMutablePointer(to: &byte) { (byte) throws(Errno) in
          var part = iovec(iov_base: byte, iov_len: 1)
          try withUnsafeMutablePointer(to: &part) { (part) throws(Errno) in
            var message = msghdr()
            message.msg_iov = part
            message.msg_iovlen = 1
            message.msg_control = control.baseAddress
            message.msg_controllen = numericCast(control.count)
            _ = try checked { sendmsg(ends[0], &message, 0) }
          }
        }
      }
    }

    func receive(room: Int) throws(Errno) -> ReceivedControl {
      try withUnsafeTemporaryAllocation(byteCount: room + 1, alignment: 8) {
        (buffer) throws(Errno) -> ReceivedControl in
        var byte: UInt8 = 0
        return try withUnsafeMutablePointer(to: &byte) { (byte) throws(Errno) -> ReceivedControl in
          var part = iovec(iov_base: byte, iov_len: 1)
          return try withUnsafeMutablePointer(to: &part) {
            (part) throws(Errno) -> ReceivedControl in
            var message = msghdr()
            message.msg_iov = part
            message.msg_iovlen = 1
            message.msg_control = buffer.baseAddress
            message.msg_controllen = numericCast(room)
            #if os(Linux)
            let flags = Int32(MSG_CMSG_CLOEXEC)
            #else
            let flags: Int32 = 0
            #endif
            _ = try checked { recvmsg(ends[1], &message, flags) }
            return ReceivedControl(
              UnsafeRawBufferPointer(rebasing: buffer[..<Int(message.msg_controllen)]),
              isTruncated: message.msg_flags & Int32(MSG_CTRUNC) != 0)
          }
        }
      }
    }
  }

  /// A pipe whose writing end is passed around.
  final class Pipe {
    let reader: Int32
    private(set) var writer: Int32

    init() throws {
      var ends: [Int32] = [-1, -1]
      #if os(Linux)
      // Not pipe(2): a child process of another test must not inherit the end that this one waits
      // for, and pipe2(2) is not imported.
      let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
      _ = try checked { socketpair(AF_UNIX, type, 0, &ends) }
      #else
      _ = try checked { pipe(&ends) }
      #endif
      (reader, writer) = (ends[0], ends[1])
      _ = fcntl(reader, F_SETFL, O_NONBLOCK)
    }

    deinit {
      close(reader)
      closeWriter()
    }

    func closeWriter() {
      if writer >= 0 { close(writer) }
      writer = -1
    }

    /// Whether nobody has the writing end any more.
    var isAbandoned: Bool {
      var byte: UInt8 = 0
      return read(reader, &byte, 1) == 0
    }
  }

  // MARK: Layout

  @Test func knowsTheLayout() {
    #if os(Linux) && (arch(x86_64) || arch(arm64))
    #expect([0, 1, 7, 8, 9].map(ControlMessage.aligned) == [0, 8, 8, 8, 16])
    #expect([0, 1, 4, 8, 12].map(ControlMessage.length) == [16, 17, 20, 24, 28])
    #expect([0, 1, 4, 8, 12].map { ControlMessage.space($0) } == [16, 24, 24, 24, 32])
    #endif
    #expect(ControlMessage.space(descriptors: 0) == 0)
    #expect(ControlMessage.space(descriptors: 3) == ControlMessage.space(12))
    #expect(
      ControlMessage.space(descriptors: 1, credentials: true)
        == ControlMessage.space(4) + ControlMessage.space(12))
    #expect(MemoryLayout<ProcessCredentials>.size == 12)
  }

  @Test func writesTheBytesThatCWould() {
    #if os(Linux) && (arch(x86_64) || arch(arm64))
    let bytes = ControlMessage.withEncoded([
      .descriptors([1, 2, 0x0102_0304]), .raw(level: 5, type: 6, bytes: [7]),
    ]) { Array($0) }
    #expect(
      bytes == [
        28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
        1, 0, 0, 0, 2, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0,
        17, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0,
        7, 0, 0, 0, 0, 0, 0, 0,
      ])
    #endif
  }

  static var lists: [[ControlMessage]] {
    var lists: [[ControlMessage]] = [
      [], [.descriptors([0])], [.descriptors([3, -1, .max]), .descriptors([4])],
      [.raw(level: 1, type: 99, bytes: [])],
      (0..<20).map { .raw(level: $0, type: -$0, bytes: Array(repeating: 7, count: Int($0))) },
    ]
    #if os(Linux)
    lists.append([.credentials(.current), .descriptors(Array(0..<253)), .credentials(.current)])
    #endif
    return lists
  }

  @Test(arguments: lists)
  func roundTrips(messages: [ControlMessage]) {
    let copy = ControlMessage.withEncoded(messages) {
      ControlMessage.decode(UnsafeRawBufferPointer($0))
    }
    #expect(copy == messages)
  }

  @Test func sendsNothingForNothing() {
    for messages in [[], [ControlMessage.descriptors([])]] {
      let (address, count) = ControlMessage.withEncoded(messages) { ($0.baseAddress, $0.count) }
      #expect(address == nil)
      #expect(count == 0)
    }
    let copy = ControlMessage.withEncoded([.descriptors([]), .descriptors([1])]) {
      ControlMessage.decode(UnsafeRawBufferPointer($0))
    }
    #expect(copy == [.descriptors([1])])
  }

  @Test func readsFromUnalignedMemory() {
    ControlMessage.withEncoded([.descriptors([1, 2])]) { encoded in
      let moved = [0] + Array(encoded)
      moved.withUnsafeBytes {
        let messages = ControlMessage.decode(UnsafeRawBufferPointer(rebasing: $0.dropFirst()))
        #expect(messages == [.descriptors([1, 2])])
      }
    }
  }

  @Test func survivesEveryCut() {
    ControlMessage.withEncoded([.descriptors([1, 2]), .raw(level: 9, type: 9, bytes: [1, 2, 3])]) {
      for count in 0...$0.count {
        let messages = ControlMessage.decode(UnsafeRawBufferPointer(rebasing: $0[..<count]))
        #expect(messages.count <= 2)
        if count >= ControlMessage.length(8) { #expect(messages.first == .descriptors([1, 2])) }
        if count == ControlMessage.length(4) { #expect(messages.first == .descriptors([1])) }
      }
    }
  }

  @Test(arguments: [0, 1, 15, 17, 1000, Int.max, Int.min, -1])
  func survivesWrongLengths(length: Int) {
    ControlMessage.withEncoded([.raw(level: 9, type: 9, bytes: [1, 2, 3, 4])]) {
      #if os(Linux)
      $0.storeBytes(of: length, as: Int.self)
      #else
      $0.storeBytes(of: UInt32(truncatingIfNeeded: length), as: UInt32.self)
      #endif
      #expect(ControlMessage.decode(UnsafeRawBufferPointer($0)).count <= 1)
    }
  }

  @Test func passesErrorsThrough() {
    for messages in [[], [ControlMessage.descriptors([1])]] {
      #expect(throws: Errno.invalidArgument) {
        try ControlMessage.withEncoded(messages) { (_) throws(Errno) in
          throw Errno.invalidArgument
        }
      }
    }
  }

  // MARK: Over sockets

  @Test(arguments: [SocketType.stream, .datagram, .sequencedPacket])
  func passesADescriptor(type: SocketType) throws {
    #if !os(Linux)
    if type == .sequencedPacket { return }
    #endif
    let (pair, pipe) = (try Pair(type), try Pipe())
    try pair.send([.descriptors([pipe.writer])])
    let control = try pair.receive(room: ControlMessage.space(descriptors: 1))
    #expect(!control.isTruncated)
    #expect(control.messages.isEmpty)
    #expect(control.descriptorCount == 1)
    let descriptor = try #require(control.takeDescriptor())
    #expect(control.descriptorCount == 0)
    #expect(control.takeDescriptor() == nil)
    #expect(control.takeDescriptors() == [])
    pipe.closeWriter()
    #if os(Linux)
    #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    #endif
    #expect(write(descriptor, "y", 1) == 1)
    var byte: UInt8 = 0
    #expect(read(pipe.reader, &byte, 1) == 1)
    #expect(byte == UInt8(ascii: "y"))
    #expect(!pipe.isAbandoned)
    close(descriptor)
    #expect(pipe.isAbandoned)
  }

  @Test func passesSeveralInOrder() throws {
    let pair = try Pair()
    let pipes = try (0..<5).map { _ in try Pipe() }
    try pair.send([.descriptors(pipes.map(\.writer))])
    let control = try pair.receive(room: ControlMessage.space(descriptors: 5))
    #expect(control.descriptorCount == 5)
    let first = try #require(control.takeDescriptor())
    let descriptors = [first] + control.takeDescriptors()
    #expect(descriptors.count == 5)
    #expect(Set(descriptors).count == 5)
    for (number, descriptor) in descriptors.enumerated() {
      var letter = UInt8(number)
      #expect(write(descriptor, &letter, 1) == 1)
      close(descriptor)
    }
    for (number, pipe) in pipes.enumerated() {
      var letter: UInt8 = 99
      #expect(read(pipe.reader, &letter, 1) == 1)
      #expect(letter == UInt8(number))
    }
  }

  @Test func passesTheMostAndNoMore() throws {
    let (pair, pipe) = (try Pair(), try Pipe())
    let most = Array(repeating: pipe.writer, count: ControlMessage.maximumDescriptors)
    try pair.send([.descriptors(most)])
    pipe.closeWriter()
    var control: ReceivedControl? = try pair.receive(
      room: ControlMessage.space(descriptors: most.count))
    #expect(control?.descriptorCount == most.count)
    #expect(control?.isTruncated == false)
    #expect(!pipe.isAbandoned)
    control = nil
    #expect(pipe.isAbandoned)

    #if os(Linux)
    let other = try Pipe()
    #expect(throws: Errno.invalidArgument) {
      try pair.send([.descriptors(Array(repeating: other.writer, count: most.count + 1))])
    }
    #endif
  }

  @Test func closesWhatIsNotTaken() throws {
    let pair = try Pair()
    let pipes = try (0..<3).map { _ in try Pipe() }
    try pair.send([.descriptors(pipes.map(\.writer))])
    for pipe in pipes { pipe.closeWriter() }
    var control: ReceivedControl? = try pair.receive(room: ControlMessage.space(descriptors: 3))
    let taken = try #require(control?.takeDescriptor())
    errno = 77
    control = nil
    #expect(errno == 77)
    #expect(pipes.map(\.isAbandoned) == [false, true, true])
    close(taken)
    #expect(pipes[0].isAbandoned)
  }

  @Test(arguments: 0...3)
  func leaksNothingWhenTruncated(fitting: Int) throws {
    let pair = try Pair()
    let pipes = try (0..<4).map { _ in try Pipe() }
    try pair.send([.descriptors(pipes.map(\.writer))])
    for pipe in pipes { pipe.closeWriter() }
    // Room without padding, lest one more fit into it.
    let room = fitting == 0 ? 0 : ControlMessage.length(fitting * 4)
    var control: ReceivedControl? = try pair.receive(room: room)
    #expect(control?.isTruncated == true)
    #expect(control?.descriptorCount == fitting)
    #expect(pipes.filter { !$0.isAbandoned }.count == fitting)
    control = nil
    #expect(pipes.allSatisfy { $0.isAbandoned })
  }

  @Test func aMessageWithoutControlDataHasNone() throws {
    let pair = try Pair()
    try pair.send([])
    let control = try pair.receive(room: 64)
    #expect(control.descriptorCount == 0)
    #expect(control.messages.isEmpty)
    #expect(!control.isTruncated)
  }

  @Test func refusesClosedDescriptors() throws {
    let pair = try Pair()
    #expect(throws: Errno.badFileDescriptor) { try pair.send([.descriptors([-1])]) }
  }

  #if os(Linux)
  @Test func passesCredentials() throws {
    let (pair, pipe) = (try Pair(), try Pipe())
    try SocketOption.passCredentials.set(true, on: pair.ends[1])
    let room = ControlMessage.space(descriptors: 1, credentials: true)

    try pair.send([])
    #expect(try pair.receive(room: room).credentials == .current)

    try pair.send([.credentials(.current), .descriptors([pipe.writer])])
    var control: ReceivedControl? = try pair.receive(room: room)
    #expect(control?.isTruncated == false)
    #expect(control?.credentials == .current)
    #expect(control?.messages == [.credentials(.current)])
    #expect(control?.descriptorCount == 1)
    pipe.closeWriter()
    control = nil
    #expect(pipe.isAbandoned)
  }

  @Test func credentialsTooLongForTheRoomAreRaw() throws {
    let pair = try Pair()
    try SocketOption.passCredentials.set(true, on: pair.ends[1])
    try pair.send([])
    let control = try pair.receive(room: ControlMessage.length(8))
    #expect(control.isTruncated)
    #expect(control.credentials == nil)
    guard case .raw(SOL_SOCKET, 2, let bytes) = control.messages.first else {
      Issue.record("\(control.messages)")
      return
    }
    #expect(bytes.count == 8)
  }

  @Test func carriesOtherControlData() throws {
    // The time a message came, which the kernel adds on request.
    let pair = try Pair(.datagram)
    let stamps = SocketOption<Bool>(level: SOL_SOCKET, name: SO_TIMESTAMP)
    try stamps.set(true, on: pair.ends[1])
    try pair.send([])
    let control = try pair.receive(room: 256)
    guard case .raw(SOL_SOCKET, SO_TIMESTAMP, let bytes) = control.messages.first else {
      Issue.record("\(control.messages)")
      return
    }
    #expect(bytes.count == MemoryLayout<timeval>.size)
  }
  #endif
}
