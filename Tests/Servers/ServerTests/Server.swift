// Evergreen: servers of others, as child processes of the tests.
// SPDX-License-Identifier: MIT
//
// Each has a directory and a port of its own, on the loopback, and listens when `start` returns. The
// kernel kills it when the thread of its test ends, so that a crash leaves nobody behind.

import Evergreen
import Glibc

/// How long anything may take that ought to happen at once: machines may be busy.
let limit = Duration.seconds(40)

struct ServerError: Error, CustomStringConvertible {
  let description: String
}

class Server {
  let name: String
  /// Where it keeps its files.
  let directory: String
  private(set) var port: UInt16 = 0
  private var claim: Int32 = -1
  private var process: pid_t = 0
  private var log: String { "\(directory)/log" }

  // `name` is for its directory and for errors; as `user` it runs if the tests run as root, which
  // some servers refuse.
  init(_ name: String, user: String? = nil) throws {
    self.name = name
    self.user = user
    directory = "\(workDirectory)/\(name)"
    if mkdir(directory, 0o755) == 0, geteuid() == 0, let user, let entry = getpwnam(user) {
      chown(directory, entry.pointee.pw_uid, entry.pointee.pw_gid)
    }
  }

  private let user: String?

  // MARK: What each says for itself

  /// Makes the files that it begins with; they may be there already.
  func prepare() throws {}
  /// The program and its arguments, so that it stays in the foreground.
  func command() -> [String] { preconditionFailure("which program?") }
  /// Whether it answers yet.
  func answers() -> Bool { accepts(at: port) }
  /// Tells it to end in its own way.
  var stopSignal: Int32 { SIGTERM }
  /// Removes what it leaves behind elsewhere.
  func cleanUp() {}

  // MARK: Its life

  func start() throws {
    try prepare()
    for _ in 1...3 {  // somebody else may have taken the port meanwhile
      (port, claim) = try claimPort()
      process = try launch(command(), as: user, log: log)
      let end = ContinuousClock.now + limit
      while ContinuousClock.now < end, !hasEnded() {
        if answers() { return }
        try sleep(for: .milliseconds(20))
      }
      stop()
    }
    throw ServerError(description: "\(name) does not start: \(text(of: log, last: 600))")
  }

  /// Ends it without a word.
  func die() { end(by: SIGKILL) }

  func stop() { end(by: stopSignal) }

  private func end(by signal: Int32) {
    guard process > 0 else { return }
    kill(-process, signal)
    let end = ContinuousClock.now + .seconds(10)
    while !hasEnded() {
      if ContinuousClock.now > end { kill(-process, SIGKILL) }
      usleep(2000)
    }
    cleanUp()
    close(claim)
  }

  private func hasEnded() -> Bool {
    guard process > 0, waitpid(process, nil, WNOHANG) == process else { return process == 0 }
    kill(-process, SIGKILL)  // whom it has left behind
    process = 0
    return true
  }

  /// Runs a program of the server's, and waits for its end.
  func run(_ words: [String]) throws {
    let tool = try launch(words, as: user, log: log)
    var status: Int32 = 0
    guard waitpid(tool, &status, 0) == tool, status == 0 else {
      throw ServerError(description: "\(words[0]): \(status): \(text(of: log, last: 600))")
    }
  }

  func write(_ text: String, to file: String) throws -> String {
    let path = "\(directory)/\(file)"
    guard let stream = fopen(path, "w") else { throw ServerError(description: path) }
    fputs(text, stream)
    fclose(stream)
    return path
  }
}

/// Runs a server while `body` does.
func withServer<R>(_ server: Server, _ body: (Server) throws -> R) throws -> R {
  try server.start()
  defer { server.stop() }
  return try body(server)
}

/// Where a program is; also those that are for administrators, or have a version.
func find(_ program: String) -> String? {
  var paths =
    glob("/usr/lib/postgresql/*/bin/\(program)").sorted().reversed()
    + ["/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"].map { $0 + program }
  if let path = getenv("PATH") {
    paths += String(cString: path).split(separator: ":").map { "\($0)/\(program)" }
  }
  return paths.first { access($0, X_OK) == 0 }
}

// MARK: Small things

/// A directory for all that the servers write, removed when the tests end.
let workDirectory: String = {
  var path = Array("/tmp/evergreen-servers-XXXXXX".utf8CString)
  precondition(mkdtemp(&path) != nil, "cannot make a directory in /tmp")
  let directory = path.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  chmod(directory, 0o755)
  atexit {
    guard let remover = try? launch(["/bin/rm", "-rf", workDirectory], log: "/dev/null") else {
      return
    }
    waitpid(remover, nil, 0)
  }
  return directory
}()

/// A free port, and a descriptor that keeps it from other tests that run on this machine: between the
/// look and the server's start they would find it free too, and one's answers would come from the other's.
private func claimPort() throws -> (port: UInt16, claim: Int32) {
  while true {
    let socket = try Socket(.ipv4, .stream)
    defer { socket.close() }
    try socket.bind(to: .loopbackIPv4(port: 0))
    let port = try socket.localAddress.port!
    let claim = try Socket(.unix, .stream)
    do { try claim.bind(to: .unix(abstract: "evergreen-port-\(port)")) } catch { continue }
    return (port, try claim.detach())
  }
}

/// Whether somebody listens there.
func accepts(at port: UInt16) -> Bool {
  guard let socket = try? Socket.connect(to: .loopbackIPv4(port: port), timeout: .seconds(1)) else {
    return false
  }
  socket.close()
  return true
}

private func glob(_ pattern: String) -> [String] {
  var found = glob_t()
  defer { globfree(&found) }
  guard Glibc.glob(pattern, 0, nil, &found) == 0 else { return [] }
  return (0..<Int(found.gl_pathc)).map { String(cString: found.gl_pathv[$0]!) }
}

func text(of path: String, last count: Int) -> String {
  guard let stream = fopen(path, "r") else { return "no \(path)" }
  defer { fclose(stream) }
  var text: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 64 * 1024)
  while case let read = fread(&buffer, 1, buffer.count, stream), read > 0 {
    text += buffer.prefix(read)
  }
  return String(decoding: text.suffix(count), as: UTF8.self)
}

/// Starts a program, in a group of its own. The kernel kills it when the calling thread ends.
func launch(
  _ words: [String], as user: String? = nil, log: String, errors: String? = nil
) throws -> pid_t {
  var keeper = ["/usr/bin/setpriv", "--pdeathsig", "KILL"]
  if geteuid() == 0, let user {
    keeper += ["--reuid", user, "--regid", user, "--clear-groups"]
  }
  let words = keeper + ["--"] + words

  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o666)
  if let errors {
    posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_APPEND, 0o666)
  } else {
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
  }
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  let signals = UnsafeMutablePointer<sigset_t>.allocate(capacity: 1)
  defer { signals.deallocate() }
  sigemptyset(signals)
  posix_spawnattr_setsigmask(&attributes, signals)
  for signal in [SIGTERM, SIGINT, SIGQUIT, SIGPIPE] { sigaddset(signals, signal) }
  posix_spawnattr_setsigdefault(&attributes, signals)
  posix_spawnattr_setpgroup(&attributes, 0)
  posix_spawnattr_setflags(
    &attributes,
    Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

  var process = pid_t()
  let copies: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
  defer { for copy in copies { free(copy) } }
  let error = posix_spawn(&process, copies[0]!, &actions, &attributes, copies, environ)
  guard error == 0 else { throw ServerError(description: "\(words[0]): \(Errno(rawValue: error))") }
  return process
}

/// Where the tests were built, and other programs beside them.
let programDirectory: String = {
  var path = [UInt8](repeating: 0, count: Int(PATH_MAX))
  let count = path.withUnsafeMutableBytes {
    readlink("/proc/self/exe", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
  }
  let text = String(decoding: path.prefix(max(0, count)), as: UTF8.self)
  return String(text[...(text.lastIndex(of: "/") ?? text.startIndex)])
}()
