// Evergreen: what is patched, for whom, and what ends a patched call from outside.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import EvergreenMonkey
import EvergreenNet
import EvergreenTesting
import Glibc
import Greenlets
import Testing

@Suite("MonkeyPatch", .serialized)
struct MonkeyPatchTests {
  init() { MonkeyPatch.install(.all) }

  private func connection() -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    return (ends[0], ends[1])
  }

  // MARK: For whom

  @Test func theSymbolsOfThisProgramReachOtherLibraries() {
    #expect(MonkeyPatch.isEffective)
    #expect(MonkeyPatch.isPatched(.all))
    #expect(MonkeyPatch.isPatched([.dns, .time]))
  }

  @Test func onlyWhatIsInstalledIsPatched() async {
    await #expect(processExitsWith: .success) {
      _ = startThread { MonkeyPatchTests.onlyOnItsOwn() }
      while true { pause() }
    }
  }

  /// In a process where nothing else is patched.
  private static func onlyOnItsOwn() {
    precondition(MonkeyPatch.installed == [])
    precondition(MonkeyPatch.isPatched([]) && !MonkeyPatch.isPatched(.time))
    precondition(Hub.currentIfAny == nil)
    MonkeyPatch.install([.sockets, .select])
    precondition(Hub.currentIfAny == nil, "patching makes no hub")
    MonkeyPatch.install(.time)
    precondition(MonkeyPatch.installed == [.sockets, .select, .time])
    precondition(!MonkeyPatch.isPatched(.all))

    var order: [String] = []
    func race(_ name: String) {
      order = []
      let slow = spawn {
        order.append("begins")
        Glibc.usleep(20_000)
        order.append("ends")
      }
      let other = spawn { order.append(name) }
      try! slow.join()
      try! other.join()
    }
    race("patched")
    precondition(order == ["begins", "patched", "ends"])
    MonkeyPatch.uninstall(.time)
    precondition(MonkeyPatch.installed == [.sockets, .select])
    race("not patched")
    precondition(order == ["begins", "ends", "not patched"])
    exit(0)
  }

  @Test func originalCallsBlock() async throws {
    try await runGreen {
      let original = MonkeyPatch.original
      let blocked = try turnsOfOthers { #expect(original.usleep(20_000) == 0) }
      #expect(blocked == 0)
      let patched = try turnsOfOthers { #expect(Glibc.usleep(20_000) == 0) }
      #expect(patched > 0)
    }
  }

  @Test func aGreenletMayGoWithoutThePatch() async throws {
    struct Odd: Error {}
    try await runGreen {
      let blocked = try turnsOfOthers {
        MonkeyPatch.withoutPatching {
          _ = Glibc.usleep(10_000)
          MonkeyPatch.withoutPatching { _ = Glibc.usleep(10_000) }
          _ = Glibc.usleep(10_000)
        }
      }
      #expect(blocked == 0)
      #expect(throws: Odd.self) { try MonkeyPatch.withoutPatching { throw Odd() } }
      let afterwards = try turnsOfOthers { _ = Glibc.usleep(20_000) }
      #expect(afterwards > 0)
      // What it spawns is patched.
      let child = try turnsOfOthers {
        let child = MonkeyPatch.withoutPatching { spawn { _ = Glibc.usleep(20_000) } }
        try child.join()
      }
      #expect(child > 0)
    }
  }

  /// A handler may have interrupted anything: nothing may switch in it.
  @Test func handlersOfSignalsAreNotPatched() async throws {
    try await runGreen {
      var mask = sigset_t()
      sigemptyset(&mask)
      sigaddset(&mask, SIGUSR1)
      pthread_sigmask(SIG_UNBLOCK, &mask, nil)
      let before = signal(SIGUSR1) { _ in _ = Glibc.usleep(20_000) }
      defer { signal(SIGUSR1, before) }
      let blocked = try turnsOfOthers { raise(SIGUSR1) }
      #expect(blocked == 0)
      let afterwards = try turnsOfOthers { _ = Glibc.usleep(20_000) }
      #expect(afterwards > 0)
    }
  }

  @Test func timeIsTheHubs() async throws {
    try await runGreenInVirtualTime { clock in
      let sleeper = spawn { Glibc.sleep(3600) }
      try sleep(for: .seconds(3599))
      #expect(!sleeper.isReady)
      try sleep(for: .seconds(2))
      try #expect(sleeper.get() == 0)
    }
  }

  @Test func severalGreenletsMayWaitForOneDescriptor() async throws {
    try await runGreen {
      let (one, other) = connection()
      let readers = (0..<3).map { _ in
        spawn { () -> UInt8 in
          var byte: UInt8 = 0
          #expect(recv(one, &byte, 1, 0) == 1)
          return byte
        }
      }
      try Greenlet.yield()
      for byte in [1, 2, 3] as [UInt8] {
        var byte = byte
        #expect(send(other, &byte, 1, 0) == 1)
        try Greenlet.yield()
      }
      try #expect(Set(readers.map { try $0.get() }) == [1, 2, 3])
      close(one)
      close(other)
    }
  }

  /// Without an epoll of its own.
  @Test func selectOfOneDescriptorIsAPlainWait() async throws {
    try await runGreen {
      let (one, other) = connection()
      let selecting = spawn { () -> Int32 in
        var set = fd_set()
        withUnsafeMutableBytes(of: &set) { $0[Int(one) / 8] |= 1 << UInt8(one % 8) }
        return select(one + 1, &set, nil, nil, nil)
      }
      try Greenlet.yield()
      #expect(Hub.current.report().contains("reading descriptor \(one)"))
      #expect(send(other, "x", 1, 0) == 1)
      try #expect(selecting.get(timeout: .seconds(20)) == 1)
      close(one)
      close(other)
    }
  }

  /// As in libc, where several threads may be in it: the last one restores what was.
  @Test func severalCommandsAtOnce() async throws {
    try await runGreen {
      func blocksChildren() -> Bool {
        var mask = sigset_t()
        pthread_sigmask(SIG_BLOCK, nil, &mask)
        return sigismember(&mask, SIGCHLD) == 1
      }
      var children = sigset_t()
      sigemptyset(&children)
      sigaddset(&children, SIGCHLD)
      pthread_sigmask(SIG_UNBLOCK, &children, nil)
      let commands = ["sleep .3; exit 4", "sleep .1; exit 5"].map { (command: String) in
        spawn { Glibc.system(command) >> 8 }
      }
      try Greenlet.yield()
      #expect(blocksChildren())
      try #expect(commands[1].get() == 5)
      #expect(blocksChildren() && !commands[0].isReady)
      try #expect(commands[0].get() == 4)
      #expect(!blocksChildren())
      let killed = spawn { Glibc.system("sleep 20") }
      try Greenlet.yield()
      #expect(blocksChildren())
      try killed.kill()
      #expect(!blocksChildren())
    }
  }

  // MARK: Closing

  private func waitFor(_ descriptor: Int32) -> Greenlet<Int32> {
    spawn {
      var byte: UInt8 = 0
      errno = 0
      #expect(recv(descriptor, &byte, 1, 0) == -1)
      return errno
    }
  }

  @Test func closingWakesAllWhoWait() async throws {
    try await runGreen {
      let (one, other) = connection()
      let waiters = [waitFor(one), waitFor(one)]
      let poller = spawn { () -> Int32 in
        var polled = [
          pollfd(fd: one, events: Int16(POLLIN), revents: 0),
          pollfd(fd: other, events: Int16(POLLIN), revents: 0),
        ]
        #expect(poll(&polled, 2, -1) >= 1)
        return Int32(polled[0].revents)
      }
      try Greenlet.yield()
      #expect(close(one) == 0)
      for waiter in waiters { try #expect(waiter.get(timeout: .seconds(20)) == EBADF) }
      try #expect(poller.get(timeout: .seconds(20)) == POLLNVAL)
      #expect(close(one) == -1)
      close(other)
    }
  }

  @Test func whoeverGetsTheNumberNextIsNotDisturbed() async throws {
    try await runGreen {
      for _ in 0..<500 {
        let (one, other) = connection()
        let waiter = waitFor(one)
        try Greenlet.yield()
        close(one)
        let (next, peer) = connection()  // most likely with the same number
        var byte: UInt8 = 9
        #expect(send(peer, &byte, 1, 0) == 1)
        try #expect(waiter.get(timeout: .seconds(20)) == EBADF)
        #expect(recv(next, &byte, 1, Int32(MSG_DONTWAIT)) == 1)
        for end in [other, next, peer] { close(end) }
      }
    }
  }

  @Test func aNumberThatIsTakenOverIsClosed() async throws {
    try await runGreen {
      let (one, other) = connection()
      let (second, third) = connection()
      let waiter = waitFor(one)
      try Greenlet.yield()
      #expect(dup2(second, one) == one)
      try #expect(waiter.get(timeout: .seconds(20)) == EBADF)
      let again = waitFor(one)
      try Greenlet.yield()
      #expect(dup2(one, one) == one)
      try Greenlet.yield()
      #expect(!again.isReady, "which closes nothing")
      #expect(close(one) == 0)
      try #expect(again.get(timeout: .seconds(20)) == EBADF)
      for end in [other, second, third] { close(end) }
    }
  }

  // MARK: Kills and timeouts

  @Test func aTimeoutIsThrownWhenControlIsBack() async throws {
    struct Odd: Error {}
    try await runGreen {
      let (one, other) = connection()
      var byte: UInt8 = 0
      var codes: [Int32] = []
      func receive() {
        errno = 0
        #expect(recv(one, &byte, 1, 0) == -1)
        codes.append(errno)
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) {
          receive()
          receive()
        }
      }
      #expect(codes == [ETIMEDOUT, ETIMEDOUT])
      #expect(throws: Timeout.self, "whatever the body makes of it") {
        try withTimeout(.milliseconds(10)) {
          receive()
          throw Odd()
        }
      }
      #expect(throws: Odd.self) {
        try withTimeout(.milliseconds(10), throwing: Odd()) { receive() }
      }
      try #expect(
        withTimeout(.milliseconds(10), default: "late") {
          receive(); return "done"
        } == "late")
      // Over, and forgotten.
      #expect(send(other, &byte, 1, 0) == 1)
      #expect(recv(one, &byte, 1, 0) == 1)
      try #expect(withTimeout(.seconds(20)) { 7 } == 7)
      close(one)
      close(other)
    }
  }

  @Test func anOuterTimeoutPassesTheInnerBlock() async throws {
    try await runGreen {
      let (one, other) = connection()
      var byte: UInt8 = 0
      var isThrough = false
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) {
          try withTimeout(.seconds(20)) { #expect(recv(one, &byte, 1, 0) == -1) }
          isThrough = true
          try sleep(for: .seconds(20))
          Issue.record("a switch point throws what is due")
        }
      }
      #expect(isThrough)
      close(one)
      close(other)
    }
  }

  @Test func aSwitchPointThrowsWhatWasDueAndThenAllIsWell() async throws {
    try await runGreen {
      let (one, other) = connection()
      let worker = spawn { () -> Int in
        var byte: UInt8 = 0
        #expect(recv(one, &byte, 1, 0) == -1)
        do {
          try sleep(for: .seconds(20))
          Issue.record("it should have thrown")
        } catch is GreenletExit {}
        return recv(one, &byte, 1, 0)
      }
      try Greenlet.yield()
      try worker.kill(waiting: false)
      var byte: UInt8 = 1
      #expect(send(other, &byte, 1, 0) == 1)
      try #expect(worker.get(timeout: .seconds(20)) == 1)
      close(one)
      close(other)
    }
  }

  /// Its value is of no use: it does not know why its calls have failed.
  @Test func whoWasKilledInAForeignCallEndsWithTheKill() async throws {
    final class Result {
      nonisolated(unsafe) static var count = 0
      init() { Result.count += 1 }
      deinit { Result.count -= 1 }
    }
    struct Large { let one = Result(), more = (0, 1, 2, 3, 4, 5) }
    try await runGreen {
      let small = spawn { () -> Result in
        _ = Glibc.usleep(20_000_000)
        return Result()
      }
      let large = spawn { () -> Large in
        _ = Glibc.usleep(20_000_000)
        return Large()
      }
      try Greenlet.yield()
      for victim in [small, large] as [AnyGreenlet] {
        #expect(try victim.kill(timeout: .seconds(20)))
        #expect(victim.error is GreenletExit)
      }
      #expect(small.value == nil && large.value == nil)
      #expect(Result.count == 0)
      // A kill that has met no call does not take the result away.
      let quick = spawn { 7 }
      try quick.join()
      try quick.kill()
      #expect(quick.value == 7)
    }
  }

  @Test func aWaitInsideAGeneratorIsLeftToo() async throws {
    try await runGreen {
      let numbers = Generator<Int> { yield in
        for number in 0..<3 {
          _ = Glibc.usleep(1000)
          try yield(number)
        }
      }
      #expect(Array(numbers) == [0, 1, 2])
      let stuck = Generator<Int> { yield in
        _ = Glibc.usleep(20_000_000)
        try yield(1)
      }
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { _ = try stuck.nextOrThrow() }
      }
    }
  }

  // MARK: Names

  private final class TestResolver: Resolver {
    func addresses(
      of host: String, port: UInt16, family: SocketAddress.Family?
    ) throws -> [SocketAddress] {
      switch host {
      case "two.example":
        return [try .ipv4("192.0.2.1", port: port), try .ipv6("2001:db8::1", port: port)]
      case "slow.example":
        try sleep(for: .seconds(20))
        return []
      default: throw ResolverError.notFound(host)
      }
    }

    func name(of address: SocketAddress) throws -> (host: String, service: String) {
      ("a.example", "http")
    }
  }

  private func lookUp(_ name: String) -> (code: Int32, found: [String]) {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_CANONNAME
    var list: UnsafeMutablePointer<addrinfo>?
    let code = getaddrinfo(name, "80", &hints, &list)
    guard code == 0 else { return (code, []) }
    defer { freeaddrinfo(list) }
    let entries = sequence(first: list!) { $0.pointee.ai_next }
    return (
      0, entries.map { "\(SocketAddress($0.pointee.ai_addr, length: $0.pointee.ai_addrlen)!)" }
    )
  }

  @Test func aResolverOfTheHubsOwnIsAsked() async throws {
    try await runGreen {
      Hub.current.resolver = TestResolver()
      #expect(lookUp("two.example") == (0, ["192.0.2.1:80", "[2001:db8::1]:80"]))
      #expect(lookUp("127.0.0.1").found == ["127.0.0.1:80"])
      #expect(lookUp("none.example").code == EAI_NONAME)
      #expect(throws: Timeout.self) {
        try withTimeout(.milliseconds(10)) { _ = lookUp("slow.example") }
      }
    }
  }

  @Test func aLookUpIsAbandonedAndLeavesNothing() async throws {
    try await runGreen {
      for _ in 0..<20 {
        let asker = spawn { lookUp("localhost").code }
        try Greenlet.yield()
        try asker.kill()
        #expect(asker.isReady)
      }
      #expect(lookUp("localhost").code == 0)
    }
  }
}
