// Evergreen: the program that is to run, and whether the patch reaches it.
// SPDX-License-Identifier: MIT

#if os(Linux)
import Glibc

struct Program {
  /// As it was asked for.
  let name: String
  let path: String

  /// Finds a program as `execvp(3)` does.
  ///
  /// - Throws: A refusal with a shell's status: 127 if there is none, 126 if it cannot be executed.
  init(named name: String) throws(Refusal) {
    self.name = name
    if name.contains("/") {
      path = name
      if let problem = Program.obstacle(at: name) { throw Program.refusal(of: name, problem) }
      return
    }
    let directories = getenv("PATH").map { String(cString: $0) } ?? "/bin:/usr/bin"
    var found: String?
    var denied = false
    for directory in directories.split(separator: ":", omittingEmptySubsequences: false) {
      let candidate = directory.isEmpty ? "./\(name)" : "\(directory)/\(name)"
      let problem = name.isEmpty ? ENOENT : Program.obstacle(at: candidate)
      if problem == EACCES { denied = true }
      if problem != nil { continue }
      found = candidate
      break
    }
    guard let found else {
      throw denied
        ? Program.refusal(of: name, EACCES)
        : Refusal("\(name): there is no such program in PATH", status: 127)
    }
    path = found
  }

  /// Why the file cannot be executed: an errno.
  private static func obstacle(at path: String) -> Int32? {
    var status = stat()
    if stat(path, &status) != 0 { return errno }
    if status.st_mode & S_IFMT == S_IFDIR { return EISDIR }
    return access(path, X_OK) == 0 ? nil : errno
  }

  private static func refusal(of name: String, _ error: Int32) -> Refusal {
    let reason = String(cString: strerror(error))
    let isMissing = error == ENOENT || error == ENOTDIR
    return Refusal("\(name) cannot be executed: \(reason)", status: isMissing ? 127 : 126)
  }

  // MARK: Whether it can be patched

  /// Looks at the program, and where it is a script at what interprets it.
  ///
  /// - Returns: What the user had better know.
  func check(_ settings: Settings) throws(Refusal) -> [String] {
    var path = path
    // The kernel follows so many.
    for _ in 0..<5 {
      let file = try Bytes(of: path, name)
      let who = path == self.path ? name : "\(name) is interpreted by \(path), which"
      guard file.text(at: 0, count: 2) == "#!" else {
        try checkPrivileges(of: path, who)
        return try Executable(file, who).check(settings)
      }
      path = try interpreter(in: file)
    }
    return []
  }

  private func interpreter(in script: Bytes) throws(Refusal) -> String {
    let line = script.text(at: 2, count: 255).prefix { $0 != "\n" && $0 != "\0" }
    let words = line.split { $0 == " " || $0 == "\t" || $0 == "\r" }
    guard let first = words.first else {
      throw Refusal("\(name) is a script that names no interpreter behind #!", status: 126)
    }
    let interpreter = String(first)
    if let problem = Program.obstacle(at: interpreter) {
      throw Refusal(
        "\(name): its interpreter \(interpreter) cannot be executed: "
          + String(cString: strerror(problem)), status: 126)
    }
    return interpreter
  }

  /// The dynamic linker preloads nothing into a program that has rights its user has not.
  private func checkPrivileges(of path: String, _ who: String) throws(Refusal) {
    var status = stat()
    guard stat(path, &status) == 0 else { return }
    let givesUser = status.st_mode & S_ISUID != 0 && status.st_uid != getuid()
    let givesGroup =
      status.st_mode & S_ISGID != 0 && status.st_mode & S_IXGRP != 0 && status.st_gid != getgid()
    let givesRights = Program.hasCapabilities(path)
    guard givesUser || givesGroup || givesRights else { return }
    let what =
      givesRights ? "has file capabilities" : givesUser ? "is set-user-id" : "is set-group-id"
    throw Refusal(
      "\(who) \(what), so the dynamic linker preloads nothing into it: run a copy without that")
  }

  private static func hasCapabilities(_ path: String) -> Bool {
    // Swift's Glibc has no <sys/xattr.h>.
    typealias Look =
      @convention(c) (
        UnsafePointer<CChar>, UnsafePointer<CChar>, UnsafeMutableRawPointer?, Int
      ) -> Int
    guard let look = dlsym(nil, "getxattr") else { return false }
    return unsafeBitCast(look, to: Look.self)(path, "security.capability", nil, 0) > 0
  }
}
#endif
