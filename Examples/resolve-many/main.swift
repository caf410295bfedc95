// Evergreen: looking up many names at once.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

struct ResolveMany: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resolve-many", abstract: "Prints the addresses of hosts, each as soon as known.",
    discussion: "What cannot be looked up is said on standard error; then the status is 1.")

  @Argument(help: "The names of the hosts; without any, they are read from standard input.")
  var names: [String] = []
  @Option(help: "How many names are looked up at a time.") var concurrency = 10
  @Option(help: "The longest look-up, in seconds.") var timeout = 5.0

  func validate() throws {
    guard (1...1000).contains(concurrency) else {
      throw ValidationError("--concurrency must be between 1 and 1000, not \(concurrency)")
    }
    guard (0.001...86_400).contains(timeout) else {
      throw ValidationError("--timeout must be between 0.001 and 86400 seconds, not \(timeout)")
    }
  }

  func run() throws {
    Hub.current.resolver = ThreadPoolResolver(pool: ThreadPool(maxThreads: concurrency))
    let pool = Pool(size: concurrency)
    var failures = 0
    func look(up name: String) { if !printAddresses(of: name) { failures += 1 } }
    if names.isEmpty {
      // Standard input may be a terminal: wait for it on a thread, so that the look-ups go on.
      while let name = try ThreadPool.run({ readLine() }) {
        if !name.isEmpty { try pool.spawn { look(up: name) } }
      }
    } else {
      for name in names { try pool.spawn { look(up: name) } }
    }
    try pool.join()
    if failures > 0 { Self.exit(withError: ExitCode.failure) }
  }

  /// Whether it has any.
  func printAddresses(of name: String) -> Bool {
    defer { fflush(nil) }  // for whoever reads it through a pipe
    do {
      let addresses = try SocketAddress.resolve(name, port: 0, timeout: .seconds(timeout))
      print(name, addresses.compactMap(\.host).joined(separator: " "))
      return true
    } catch {
      let text = "\(name): \(error)\n"
      write(STDERR_FILENO, text, text.utf8.count)
      return false
    }
  }
}

do { try ResolveMany.parse().run() } catch {
  // As `ResolveMany.main()`, but without the usage: one line says what is wrong.
  let code = ResolveMany.exitCode(for: error)
  let text = ResolveMany.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  ResolveMany.exit(withError: code)
}
