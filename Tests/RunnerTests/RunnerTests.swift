// Evergreen: unmodified programs under `evergreen run`.
// SPDX-License-Identifier: MIT
//
// Not under the sanitizers: their runtime must come before all other libraries of a process, so a library
// that was built with one cannot be preloaded into a program that was not.

import EvergreenHub
import EvergreenNet
import EvergreenTesting
import Glibc
import Testing

@Suite(.enabled(if: !Sanitizer.any), .timeLimit(.minutes(4)))
struct RunnerTests {
  /// What the program checks by itself, it says with "wrong".
  @Test(arguments: [
    "descriptors", "close-all", "first-free", "first-waits", "no-descriptors", "files", "signals",
    "mask", "threads", "many-threads", "last-thread", "cancel", "fork", "fork-at-first",
    "fork-among-threads", "nobody",
  ])
  func programsNoticeNothing(part: String) async throws {
    try await runGreen {
      let plain = try outcome(of: [plainProgram, part])
      let patched = try outcome(underRunnerOf: [plainProgram, part])
      #expect(!plain.output.contains("wrong"))
      #expect(patched == plain)
    }
  }

  @Test func threadsServeAtTheSameTime() async throws {
    let run = try await runGreen {
      let server = try Running([runner, "run", "--report", "--", plainProgram, "serve"])
      defer { server.destroy() }
      let line = try server.line(0)
      let address = try SocketAddress(parsing: String(line.dropFirst("listening on ".count)))
      let clients = (0..<40).map { number in
        spawn {
          let socket = try Socket.connect(to: address, timeout: .seconds(30))
          defer { socket.close() }
          socket.timeout = .seconds(30)
          for round in 0..<5 {
            try socket.sendAll("client \(number), round \(round)")
            try Greenlet.yield()  // so that all are there at once
            #expect(try socket.receive(upTo: 64) == Array("client \(number), round \(round)".utf8))
          }
        }
      }
      for client in clients { try client.get(timeout: .seconds(40)) }
      server.closeInput()
      return try server.finish()
    }
    #expect(run.ending == .exit(0))
    #expect(run.errors.contains("plain-program has waited for"))
    #expect(run.errors.contains("  read "))
    #expect(run.errors.contains("serve_one (plain-program+0x"))
  }

  @Test(arguments: [SIGINT, SIGTERM, SIGKILL, SIGSEGV, SIGABRT, SIGQUIT])
  func signalsEndProgramsAsEver(signal: Int32) async throws {
    try await runGreen {
      // Not the plain program: SwiftPM links Swift's runtime into it, which handles faults.
      let script = "echo waiting; exec sleep 600"
      let program = try Running([runner, "run", "--", "sh", "-c", script])
      defer { program.destroy() }
      #expect(try program.line(0) == "waiting")
      kill(program.process, signal)  // it is the program: nobody stands between
      #expect(try program.finish() == Outcome(output: "waiting\n", ending: .signal(signal)))
    }
  }

  @Test func shellsNoticeNothing() async throws {
    let script = """
      echo to output; echo to errors >&2; read line; echo "read $line"
      sleep 0.01 & wait $!; echo "waited $?"
      (exit 7); echo "status $?"; ls /proc/self/fd | wc -l
      echo piped | cat | cat; kill -TERM $$
      """
    try await runGreen {
      let plain = try outcome(of: ["sh", "-c", script], input: "a line\n")
      let patched = try outcome(underRunnerOf: ["sh", "-c", script], input: "a line\n")
      #expect(plain.ending == .signal(SIGTERM))
      #expect(plain.outputLines.contains("read a line"))
      #expect(patched == plain)
    }
  }

  @Test func theProgramTakesTheToolsPlace() async throws {
    try await runGreen {
      let shell = try Running([runner, "run", "--", "sh", "-c", "echo $$"])
      defer { shell.destroy() }
      #expect(try shell.line(0) == "\(shell.process)")
    }
  }

  /// Sanitizers insist on being first.
  @Test func otherPreloadsStayFirst() async throws {
    try await runGreen {
      let shell = ["sh", "-c", "echo $LD_PRELOAD"]
      let library = directory + "/libEvergreenPreload.so\n"
      let alone = try outcome(underRunnerOf: shell, environment: ["LD_PRELOAD": ""])
      #expect(alone.output == library)
      let both = try outcome(underRunnerOf: shell, environment: ["LD_PRELOAD": "libm.so.6"])
      #expect(both.output == "libm.so.6:" + library)
      let twice = try outcome(
        underRunnerOf: [runner, "run"] + shell, environment: ["LD_PRELOAD": ""])
      #expect(twice.output == library)
    }
  }

  // MARK: Reports

  @Test func reportsWhatHasWaited() async throws {
    try await runGreen {
      let run = try outcome(options: ["--report"], underRunnerOf: [plainProgram, "threads"])
      #expect(run.ending == .exit(0))
      let lines = run.errors.split(separator: "\n")
      #expect(lines.first?.hasPrefix("evergreen: plain-program has waited for") == true)
      // A line for each thread, the longest first.
      let sleeps = lines.filter { $0.contains(" nanosleep ") }
      #expect(sleeps.count == 40)
      #expect(sleeps.allSatisfy { $0.contains("plain-program+0x") })
      let totals = sleeps.compactMap { Double($0.split(separator: " ")[1]) }
      #expect(totals == totals.sorted(by: >))
      // Of 100 and more, of which some goes into the making of the hub.
      #expect(totals.allSatisfy { $0 >= 50 })
    }
  }

  /// Children have the setting too.
  @Test func reportsTheProgramAlone() async throws {
    try await runGreen {
      let words = ["find", "/", "-maxdepth", "0", "-exec", plainProgram, "first-free", ";"]
      let run = try outcome(options: ["--report"], underRunnerOf: words)
      #expect(run.ending == .exit(0) && run.output.hasSuffix("done\n"))
      let lines = run.errors.split(separator: "\n")
      #expect(lines.count { $0.contains("has waited for") } == 1)
      #expect(lines.first?.hasPrefix("evergreen: find has waited for") == true)
      #expect(lines.contains { $0.contains(" waitpid ") || $0.contains(" wait4 ") })
    }
  }

  @Test func reportsWhatTheProgramBecomes() async throws {
    try await runGreen {
      let run = try outcome(
        options: ["--report"], underRunnerOf: ["nice", plainProgram, "threads"])
      #expect(run.ending == .exit(0))
      #expect(run.errors.hasPrefix("evergreen: plain-program has waited for"))
    }
  }

  @Test func patchesTheFamiliesThatItIsTold() async throws {
    try await runGreen {
      for options in [["--only", "sockets,dns"], ["--only=files"], ["--no-time", "--no-dns"]] {
        let words = [runner, "run", "--report"] + options + [plainProgram, "threads"]
        let run = try outcome(of: words)
        #expect(run.ending == .exit(0))
        #expect(run.errors.contains("in no patched call"), "\(options): \(run.errors)")
      }
    }
  }
}
