// Evergreen: a million greenlets
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenSync
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// In release builds, where there is room: 8 GiB of free memory, or `EVERGREEN_BIG_TESTS=1`.
@Suite("A million greenlets", .enabled(if: hasRoom), .timeLimit(.minutes(5)), .serialized)
struct ManyGreenletsTests {
  @Test func parkedAtOnceAreAllWokenAndJoined() async throws {
    let count = 1_000_000
    let woken = try await runGreen {
      let event = Event()
      let woken = Box(0)
      let all = (0..<count).map { _ in
        spawn {
          try event.wait()
          woken.value += 1
        }
      }
      try Greenlet.yield()
      try Greenlet.yield()
      #expect(woken.value == 0)
      event.set()
      try #expect(joinAll(all).count == count)
      #expect(!all.contains { !$0.isSuccessful })
      return woken.value
    }
    #expect(woken == count)
  }

  @Test func parkedAtOnceAreAllKilled() async throws {
    let count = 100_000
    let cleaned = try await runGreen {
      let cleaned = Box(0)
      let all = (0..<count).map { number in
        spawn {
          defer { cleaned.value += 1 }
          try sleep(for: .seconds(3600 + number % 7))
        }
      }
      try Greenlet.yield()
      try killAll(all)
      return cleaned.value
    }
    #expect(cleaned == count)
  }
}

private let hasRoom: Bool = {
  #if DEBUG
  return false
  #else
  if let wish = getenv("EVERGREEN_BIG_TESTS") { return wish.pointee == CChar(49) }
  return availableMemory >= 8 << 30
  #endif
}()

/// In bytes; 0 where it is not told.
private var availableMemory: Int {
  guard let file = fopen("/proc/meminfo", "r") else { return 0 }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  while fgets(&line, Int32(line.count), file) != nil {
    let words = line.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }.split(
      whereSeparator: \.isWhitespace)
    if words.first == "MemAvailable:", words.count > 1 { return (Int(words[1]) ?? 0) * 1024 }
  }
  return 0
}
