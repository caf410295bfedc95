// Evergreen: programs that cannot be run patched, and command lines that make no sense.
// SPDX-License-Identifier: MIT

import EvergreenTesting
import Foundation
import Glibc
import Testing

@Suite(.enabled(if: !Sanitizer.any), .timeLimit(.minutes(2)))
struct RefusalTests {
  /// What the tool says when it is to run this.
  private func answer(to program: String) async throws -> Outcome {
    try await runGreen { try outcome(underRunnerOf: [program]) }
  }

  private func expect(
    _ outcome: Outcome, _ status: Int32, _ words: String...,
    at location: SourceLocation = #_sourceLocation
  ) {
    #expect(outcome.ending == .exit(status), "\(outcome.errors)", sourceLocation: location)
    #expect(outcome.output == "", sourceLocation: location)
    #expect(outcome.errors.hasPrefix("evergreen: "), sourceLocation: location)
    #expect(outcome.errors.count { $0 == "\n" } == 1, "\(outcome.errors)", sourceLocation: location)
    for word in words {
      #expect(outcome.errors.contains(word), "\(outcome.errors)", sourceLocation: location)
    }
  }

  @Test func programsThatAreNotThere() async throws {
    expect(try await answer(to: "no-such-program"), 127, "no-such-program", "in PATH")
    expect(try await answer(to: "/no/such/program"), 127, "/no/such/program", "No such file")
    expect(try await answer(to: ""), 127, "in PATH")
    expect(try await answer(to: "/tmp"), 126, "/tmp", "directory")
    expect(try await answer(to: "/etc/passwd"), 126, "/etc/passwd", "Permission denied")
  }

  @Test func filesThatAreNoPrograms() async throws {
    try await withFile(Array("only text\n".utf8)) {
      expect(try await answer(to: $0), 126, "neither ELF nor a script")
    }
    try await withFile(Array("#!/no/such/interpreter -x\n".utf8)) {
      expect(try await answer(to: $0), 126, "/no/such/interpreter", "No such file")
    }
    try await withFile(Array("#! \n".utf8)) { expect(try await answer(to: $0), 126, "names no") }
  }

  @Test func programsWithoutADynamicLinker() async throws {
    // PT_INTERP is 3, PT_NULL is 0.
    let program = try changed { bytes in
      let table = Int(bytes[32]), size = Int(bytes[54])
      for index in 0..<Int(bytes[56]) where bytes[table + index * size] == 3 {
        bytes[table + index * size] = 0
      }
    }
    try await withFile(program) { path in
      expect(try await answer(to: path), 2, path, "linked statically", "link it dynamically")
      try await withFile(Array("#!\(path)\n".utf8)) { script in
        expect(try await answer(to: script), 2, script, "interpreted by \(path)", "statically")
      }
    }
  }

  @Test func programsForOtherMachines() async throws {
    try await withFile(try changed { $0[18] = 8 }) {  // MIPS
      expect(try await answer(to: $0), 2, "another architecture")
    }
    try await withFile(try changed { $0[4] = 1 }) {  // 32 bits
      expect(try await answer(to: $0), 2, "another architecture")
    }
  }

  @Test func programsWithAnotherLibc() async throws {
    let linker = Array("/lib".utf8)
    let program = try changed { bytes in
      let place = try #require(bytes.firstRange(of: linker)).lowerBound
      bytes.replaceSubrange(place..<place + 20, with: Array("/lib/ld-musl-x.so.1\0".utf8))
    }
    try await withFile(program) { expect(try await answer(to: $0), 2, "musl", "glibc") }
  }

  @Test(.enabled(if: getuid() == 0, "only root may make such files"))
  func programsWithRightsOfTheirOwn() async throws {
    try await withFile(try changed { _ in }) { path in
      #expect(chown(path, 1, 0) == 0 && chmod(path, 0o4755) == 0)
      expect(try await answer(to: path), 2, "set-user-id", "preloads nothing")
      #expect(chown(path, 0, 1) == 0 && chmod(path, 0o2755) == 0)
      expect(try await answer(to: path), 2, "set-group-id")
      // One's own rights are no more than one has.
      #expect(chown(path, 0, 0) == 0 && chmod(path, 0o6755) == 0)
      let run = try await runGreen { try outcome(underRunnerOf: [path, "first-free"]) }
      #expect(run.ending == .exit(0))
    }
  }

  @Test func programsInGoAreWarnedOf() async throws {
    let section = Array(".note.gnu.build-id\0".utf8)
    let program = try changed { bytes in
      let place = try #require(bytes.firstRange(of: section)).lowerBound
      bytes.replaceSubrange(place..<place + 17, with: Array(".note.go.buildid\0".utf8))
    }
    try await withFile(program) { path in
      let run = try await runGreen { try outcome(underRunnerOf: [path, "first-free"]) }
      #expect(run.ending == .exit(0))
      #expect(run.errors.contains("written in Go"))
      #expect(run.output.hasSuffix("done\n"))
    }
  }

  @Test func commandLinesThatMakeNoSense() async throws {
    func answer(to words: String...) async throws -> Outcome {
      try await runGreen { try outcome(of: [runner] + words) }
    }
    expect(try await answer(to: "walk"), 2, "no command 'walk'", "--help")
    expect(try await answer(to: "run", "--fast", "true"), 2, "no option '--fast'")
    expect(try await answer(to: "run"), 2, "no program to run")
    expect(try await answer(to: "run", "--report", "--"), 2, "no program to run")
    expect(try await answer(to: "run", "--only"), 2, "--only sockets,dns")
    expect(try await answer(to: "run", "--only", "sockets,fish", "true"), 2, "'fish'", "process")
    expect(try await answer(to: "run", "--no-fish", "true"), 2, "'fish'")
    let usage = try await answer()
    #expect(usage.ending == .exit(2) && usage.output == "" && usage.errors.contains("USAGE"))
    for words in [["--help"], ["run", "-h"]] {
      let help = try await runGreen { try outcome(of: [runner] + words) }
      #expect(help.ending == .exit(0) && help.errors == "" && help.output.contains("USAGE"))
    }
  }

  @Test func aToolWithoutItsLibrary() async throws {
    let tool = try #require(FileManager.default.contents(atPath: runner))
    try await withFile([UInt8](tool)) { copy in
      let run = try await runGreen { try outcome(of: [copy, "run", "true"]) }
      expect(run, 2, "libEvergreenPreload.so is missing", "swift build")
    }
  }

  // MARK: Files

  private func changed(_ change: (inout [UInt8]) throws -> Void) throws -> [UInt8] {
    var bytes = [UInt8](try #require(FileManager.default.contents(atPath: plainProgram)))
    try change(&bytes)
    return bytes
  }

  private func withFile(_ bytes: [UInt8], _ body: (String) async throws -> Void) async throws {
    var name = Array("/tmp/evergreen-runner-XXXXXX".utf8CString)
    let file = mkstemp(&name)
    let path = String(decoding: name.dropLast().map { UInt8($0) }, as: UTF8.self)
    defer { unlink(path) }
    try #require(file >= 0 && write(file, bytes, bytes.count) == bytes.count)
    #expect(fchmod(file, 0o755) == 0 && close(file) == 0)
    try await body(path)
  }
}
