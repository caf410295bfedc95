// Evergreen: programs whose threads are greenlets, by `evergreen run --threads`.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Foundation
import Glibc
import Testing

@Suite(.enabled(if: !Sanitizer.any), .timeLimit(.minutes(4)))
struct GreenThreadTests {
  private func isGreen(_ words: [String], input: String? = nil) throws -> Outcome {
    try outcome(options: ["--threads"], underRunnerOf: words, input: input)
  }

  /// What threads know, share and have apart, they have as greenlets, too.
  @Test(arguments: [
    "pthreads", "last-thread", "fork", "fork-at-first", "fork-among-threads", "many-threads",
    "signals", "mask", "files", "close-all", "first-waits", "nobody",
  ])
  func programsNoticeNothing(part: String) async throws {
    try await runGreen {
      let plain = try outcome(of: [plainProgram, part])
      let green = try isGreen([plainProgram, part])
      #expect(!plain.output.contains("wrong"))
      #expect(green == plain)
    }
  }

  @Test func aThousandThreadsAreOne() async throws {
    try await runGreen {
      let plain = try outcome(of: [plainProgram, "crowd"])
      #expect(plain.outputLines.first == "threads of the process: 1001")
      let green = try isGreen([plainProgram, "crowd"])
      #expect(green.outputLines.first == "threads of the process: 1")
      #expect(green.ending == plain.ending)
    }
  }

  @Test func aThreadForEachConnectionServesThemAtOnce() async throws {
    try await runGreen {
      let server = try Running([runner, "run", "--threads", "--", plainProgram, "serve"])
      defer { server.destroy() }
      let line = try server.line(0)
      let address = try SocketAddress(parsing: String(line.dropFirst("listening on ".count)))
      // All are connected, and then all are answered.
      let sockets = try (0..<50).map { _ in
        try Socket.connect(to: address, timeout: .seconds(30))
      }
      for round in 0..<3 {
        for (number, socket) in sockets.enumerated() {
          try socket.sendAll("client \(number), round \(round)")
        }
        for (number, socket) in sockets.enumerated().reversed() {
          socket.timeout = .seconds(30)
          let answer = try socket.receive(upTo: 64)
          #expect(answer == Array("client \(number), round \(round)".utf8))
        }
      }
      let status = try String(contentsOfFile: "/proc/\(server.process)/status", encoding: .utf8)
      #expect(status.contains("Threads:\t1\n"))
      for socket in sockets { socket.close() }
      server.closeInput()
      let end = try server.finish()
      #expect(end.ending == .exit(0))
    }
  }

  @Test(.enabled(if: isInstalled("/usr/bin/python3")))
  func pythonsThreadsAreGreen() async throws {
    let script = """
      import queue, threading, time
      from concurrent.futures import ThreadPoolExecutor

      begin = time.monotonic()
      with ThreadPoolExecutor(50) as pool:
          print(sum(pool.map(lambda n: time.sleep(0.2) or n, range(200))))
      # One after the other they sleep for 40 seconds.
      print(time.monotonic() - begin < 20)

      numbers, found = queue.Queue(3), []
      def produce():
          for number in range(100): numbers.put(number)
          for _ in range(4): numbers.put(None)
      def consume():
          while (number := numbers.get()) is not None: found.append(number)
      threads = [threading.Thread(target=f) for f in [produce] + [consume] * 4]
      for thread in threads: thread.start()
      for thread in threads: thread.join()
      print(sorted(found) == list(range(100)))

      lock, local, count, barrier = threading.RLock(), threading.local(), 0, threading.Barrier(4)
      def add(name):
          global count
          local.name = name
          barrier.wait()
          for _ in range(20):
              with lock, lock:
                  before = count
                  time.sleep(0.0001)
                  count = before + 1
          assert local.name == name
      threads = [threading.Thread(target=add, args=(name,)) for name in range(4)]
      for thread in threads: thread.start()
      for thread in threads: thread.join()
      print(count)
      """
    try await runGreen {
      let words = ["/usr/bin/python3", "-c", script]
      let plain = try outcome(of: words)
      #expect(plain.output == "19900\nTrue\nTrue\n80\n")
      let green = try isGreen(words)
      #expect(green == plain)
    }
  }

  @Test func programsWithThreadLocalsAreRefused() async throws {
    try await runGreen {
      let program = directory + "/thread-local-program"
      let plain = try outcome(underRunnerOf: [program])
      #expect(plain.ending == .exit(0))
      let refused = try isGreen([program])
      #expect(refused.ending == .exit(2))
      #expect(refused.errors.contains("\(program) has variables of its own for each thread"))
    }
  }

  /// The program's children have threads of their own.
  @Test func childrenAreLeftAlone() async throws {
    try await runGreen {
      let words = ["/bin/sh", "-c", "\(plainProgram) crowd; true"]
      let green = try isGreen(words)
      #expect(green.outputLines.first == "threads of the process: 1001")
    }
  }
}
