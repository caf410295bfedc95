// Evergreen: `evergreen run`, which runs a program with libc's blocking calls patched.
// SPDX-License-Identifier: MIT
//
// It becomes the program, by exec: the process, its terminal, signals and status are the program's. All
// that it does is to look whether the patch can work there, and to have the dynamic linker load it.

#if os(Linux)
import Glibc

do {
  switch try Command(parsing: Array(CommandLine.arguments.dropFirst())) {
  case .help:
    print(Command.helpText)
  case .usage:
    say(Command.helpText)
    exit(2)
  case .run(let settings, let program, let arguments):
    try run(program, arguments, settings)
  }
} catch {
  say("evergreen: \(error.text)")
  exit(error.status)
}

func say(_ line: String) {
  let bytes = Array((line + "\n").utf8)
  _ = write(STDERR_FILENO, bytes, bytes.count)
}

/// Does not return if all is well.
func run(_ name: String, _ arguments: [String], _ settings: Settings) throws(Refusal) {
  let program = try Program(named: name)
  let library = try Preload.library()
  for warning in try program.check(settings) { say("evergreen: \(warning)") }
  Preload.prepare(library, settings)
  var words = ([name] + arguments).map { strdup($0) }
  words.append(nil)
  execv(program.path, words)
  let error = errno
  throw Refusal(
    "\(name) cannot be executed: \(String(cString: strerror(error)))",
    status: error == ENOENT ? 127 : 126)
}
#else
print("evergreen runs programs on Linux with glibc alone")
#endif
