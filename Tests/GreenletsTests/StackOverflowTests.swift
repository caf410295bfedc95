// Evergreen: tests of stack overflows, which name their greenlet
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.timeLimit(.minutes(2))) struct StackOverflowTests {
  @inline(never)
  private static func recurse(_ depth: Int) -> Int {
    opaque(depth) < 0 ? 0 : opaque(recurse(depth + 1)) + 1
  }

  static func overflow() {
    _ = recurse(0)
    fail("did not overflow")
  }

  @Test func itNamesTheGreenlet() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      Hub.withHub { _ in
        spawn { try sleep(for: .seconds(1000)) }
        let greenlet = spawn {
          require(Greenlet.current.id == 3, "\(Greenlet.current.id)")
          StackOverflowTests.overflow()
        }
        _ = try? greenlet.get()
      }
    }
    let error = errorText(of: result)
    #expect(error.contains("evergreen: fatal: greenlet 3 overflowed its 256 KiB stack"))
    #expect(error.contains("larger stackSize"))
  }

  @Test func itGivesTheNameThatWasSet() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      Hub.withHub { _ in
        let greenlet = spawn(stackSize: 64 * 1024) { StackOverflowTests.overflow() }
        greenlet.name = "the deep one"
        _ = try? greenlet.get()
      }
    }
    #expect(
      errorText(of: result).contains("\"the deep one\" overflowed its 64 KiB stack"))
  }

  @Test func itNamesTheGreenletOfAnotherThread() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try Hub.withHub { _ in
        _ = try spawn { 1 }.get()
        try onThread {
          Hub.withHub { _ in
            let greenlet = spawn { StackOverflowTests.overflow() }
            greenlet.name = "far away"
            _ = try? greenlet.get()
          }
        }
      }
    }
    #expect(
      errorText(of: result).contains("\"far away\" overflowed its 256 KiB stack"))
  }

  @Test func itNamesARawGreenlet() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try onThread {
        try RawGreenlet(stackSize: 32 * 1024) { _ in
          StackOverflowTests.overflow()
          return nil
        }.switch()
      }
    }
    #expect(errorText(of: result).contains("greenlet 1 overflowed its 32 KiB stack"))
  }

  /// A large frame may step over a small guard into the neighbour.
  @Test func aLargeFrameDoesNotStepOverTheGuard() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      @inline(never) func large(_ depth: Int) -> Int {
        var room = (0, 0, 0, 0)
        return withUnsafeMutableBytes(of: &room) { bytes in
          bytes[0] = 1
          return withUnsafeTemporaryAllocation(byteCount: 1000, alignment: 16) {
            $0[0] = bytes[0]
            return opaque(large(depth + 1)) + Int($0[0])
          }
        }
      }
      try Hub.withHub { _ in
        for _ in 0..<4 { spawn { try sleep(for: .seconds(1000)) } }
        _ = try spawn { large(0) }.get()
      }
    }
    #expect(errorText(of: result).contains("overflowed its 256 KiB stack"))
  }

  @Test func otherFaultsAreNotCalledOverflows() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      Hub.withHub { _ in
        _ = try? spawn {
          opaque(UnsafeMutablePointer<Int>(bitPattern: opaque(64)))!.pointee = 1
        }.get()
      }
    }
    #expect(!errorText(of: result).contains("overflowed"))
  }

  @Test func aFaultSignalThatSomebodySendsIsNotSwallowed() async {
    await #expect(processExitsWith: .failure) {
      signal(SIGSEGV, SIG_DFL)  // not Swift's backtracer, which swallows what did not happen twice
      Hub.withHub { _ in
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGSEGV)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        raise(SIGSEGV)
        exit(0)
      }
    }
  }

  @Test func anOverflowOfAThreadWithoutGreenletsIsNotNamed() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      try Hub.withHub { _ in
        _ = try spawn { 1 }.get()
        try onThread { StackOverflowTests.overflow() }
      }
    }
    #expect(!errorText(of: result).contains("evergreen: fatal"))
  }

  // MARK: Guards of older kernels

  #if os(Linux)
  private static func noAccessMappings() -> Int {
    guard let file = fopen("/proc/self/maps", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 4096)
    var count = 0
    while fgets(&line, Int32(line.count), file) != nil {
      let text = String(
        decoding: line.map(UInt8.init(bitPattern:)).prefix { $0 != 0 }, as: UTF8.self)
      let range = text.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
      guard text.contains(" ---p "), range.count == 2 else { continue }
      if range[1] - range[0] == UInt(EVG_GUARD_SIZE) { count += 1 }
    }
    return count
  }

  private static func parkHundred() throws -> Int {
    try Hub.withHub { _ in
      let gate = Gate()
      let greenlets = (0..<100).map { _ in spawn { try gate.wait() } }
      try idle()
      let guards = noAccessMappings()
      gate.open()
      try joinAll(greenlets)
      require(greenlets.allSatisfy(\.isSuccessful), "all have run")
      return guards
    }
  }

  @Test func guardsOfTheFallbackAreMappings() async {
    await #expect(processExitsWith: .success) {
      setenv("EVERGREEN_GUARD", "mprotect", 1)
      let guards = try StackOverflowTests.parkHundred()
      require(guards >= 100, "\(guards)")
    }
  }

  @Test func guardsOfNewKernelsAreNone() async {
    await #expect(processExitsWith: .success) {
      let memory = mmap(nil, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | 0x20, -1, 0)
      if madvise(memory, 65536, 102) != 0 { exit(0) }  // an older kernel
      let guards = try StackOverflowTests.parkHundred()
      require(guards < 20, "\(guards)")
    }
  }

  @Test func anOverflowIsNamedWithTheFallbackToo() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      setenv("EVERGREEN_GUARD", "mprotect", 1)
      Hub.withHub { _ in
        let greenlet = spawn { StackOverflowTests.overflow() }
        greenlet.name = "guarded"
        _ = try? greenlet.get()
      }
    }
    #expect(errorText(of: result).contains("\"guarded\" overflowed its 256 KiB stack"))
  }
  #endif
}
