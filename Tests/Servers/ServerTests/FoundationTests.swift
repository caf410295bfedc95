// Evergreen: Foundation's synchronous calls.
// SPDX-License-Identifier: MIT

import Evergreen
import Foundation
import Glibc
import Testing

/// How many greenlets wait for a descriptor that they read, by the hub's own count.
private func readers() -> Int {
  Hub.current.report().split(separator: "\n")
    .count { $0.contains("reading descriptor") }
}

extension Servers {
  @Suite struct FoundationTests {
    @Test(.timeLimit(.minutes(2)))
    func fiftySleepAtOnce() async throws {
      try await runPatched {
        var (asleep, most) = (0, 0)
        let time = try ContinuousClock().measure {
          let sleepers = (0..<50).map { _ in
            spawn {
              asleep += 1
              most = max(most, asleep)
              Thread.sleep(forTimeInterval: 1)
              asleep -= 1
            }
          }
          try joinAll(sleepers, raisingErrors: true)
        }
        #expect(most == 50)
        #expect(time >= .seconds(1))
        #expect(time < .seconds(5))
      }
    }

    /// `Thread.sleep` looks at the clock again and again: only its own time ends it.
    @Test(.timeLimit(.minutes(2)))
    func aTimeoutIsThrownAtTheEndOfASleep() async throws {
      try await runPatched {
        var before = timespec()
        var after = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before)
        let time = ContinuousClock().measure {
          #expect(throws: Timeout.self) {
            try withTimeout(.milliseconds(200)) { Thread.sleep(forTimeInterval: 2) }
          }
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after)
        #expect(time >= .seconds(2))
        #expect(time < .seconds(5))
        #expect(after.tv_sec - before.tv_sec < 2)  // it does not spin meanwhile
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func fiftyReadHandlesOfFIFOs() async throws {
      try await runPatched {
        let directory = NSTemporaryDirectory() + "evergreen-\(getpid())"
        mkdir(directory, 0o700)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        // Both ends at once: the opening of a FIFO that nobody writes to blocks the thread.
        let writers = (0..<50).map { number in
          let path = "\(directory)/\(number)"
          #expect(mkfifo(path, 0o600) == 0)
          return open(path, O_RDWR | O_CLOEXEC)
        }
        let readersOfFiles = (0..<50).map { number in
          spawn {
            let url = URL(fileURLWithPath: "\(directory)/\(number)")
            let handle = try FileHandle(forReadingFrom: url)
            defer { try? handle.close() }
            return String(decoding: try handle.readToEnd() ?? Data(), as: UTF8.self)
          }
        }
        try until("fifty readers") { readers() == 50 }
        for (number, writer) in writers.enumerated() {
          let text = "content \(number)"
          #expect(write(writer, text, text.utf8.count) == text.utf8.count)
          close(writer)
        }
        let contents = try readersOfFiles.map { try $0.get(timeout: limit) }
        #expect(contents == (0..<50).map { "content \($0)" })
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func fiftyReadHandlesOfPipes() async throws {
      try await runPatched {
        let pipes = (0..<50).map { _ in Pipe() }
        let greenlets = pipes.map { pipe in
          spawn { try pipe.fileHandleForReading.readToEnd() ?? Data() }
        }
        try until("fifty readers") { readers() == 50 }
        // More than a pipe holds, so the writers wait too.
        let texts = (0..<50).map { Data(String(repeating: "\($0),", count: 50_000).utf8) }
        let writers = (0..<50).map { number in
          spawn {
            try pipes[number].fileHandleForWriting.write(contentsOf: texts[number])
            try pipes[number].fileHandleForWriting.close()
          }
        }
        try joinAll(writers, raisingErrors: true)
        #expect(try greenlets.map { try $0.get(timeout: limit) } == texts)
        for pipe in pipes { try pipe.fileHandleForReading.close() }
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func aTimeoutEndsAReadOfAHandle() async throws {
      try await runPatched {
        let pipe = Pipe()
        defer {
          try? pipe.fileHandleForReading.close()
          try? pipe.fileHandleForWriting.close()
        }
        let time = ContinuousClock().measure {
          #expect(throws: Timeout.self) {
            try withTimeout(.milliseconds(300)) { _ = try pipe.fileHandleForReading.readToEnd() }
          }
        }
        #expect(time < .seconds(3))
        // It is as good as before.
        try pipe.fileHandleForWriting.write(contentsOf: Data("later".utf8))
        #expect(try pipe.fileHandleForReading.read(upToCount: 5) == Data("later".utf8))
      }
    }

    @Test(.timeLimit(.minutes(2)))
    func othersRunWhileOneWaitsForAProcess() async throws {
      // The run loop, in which Foundation waits, keeps descriptors until its thread has ended.
      let counting = getenv("EVERGREEN_SERIAL_TESTS").map { String(cString: $0) }
      unsetenv("EVERGREEN_SERIAL_TESTS")
      defer { if let counting { setenv("EVERGREEN_SERIAL_TESTS", counting, 1) } }
      try await runPatched {
        var ticks = 0
        let ticker = spawn {
          while true {
            try sleep(for: .milliseconds(10))
            ticks += 1
          }
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "sleep 1; exit 7"]
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 7)
        #expect(ticks > 10)
        try ticker.kill()
      }
    }
  }
}
