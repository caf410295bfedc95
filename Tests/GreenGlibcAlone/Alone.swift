// Evergreen: a program that has GreenGlibc and nothing that takes over libc's names.
// SPDX-License-Identifier: MIT
//
// Each line says one thing, which GreenGlibcTests compares. What waits for any child, and what locks
// for the whole process, is tried here too, where no other test is disturbed.

import EvergreenHub
import GreenGlibc

@main
enum Alone {
  static func main() throws {
    if CommandLine.arguments.count > 1 { return holdLock(of: CommandLine.arguments[1]) }
    for name in ["read", "poll", "usleep", "close", "sigaction"] {
      print(name, "is libc's:", isLibcs(name))
    }
    try pipes()
    try timing()
    try signals()
    try children()
    try locks()
  }

  /// Whether other libraries find libc's own function by this name.
  static func isLibcs(_ name: String) -> Bool {
    let libc = dlopen("libc.so.6", RTLD_LAZY)
    return dlsym(nil, name) == dlsym(libc, name)
  }

  /// What `call` answers, and whether others could run meanwhile.
  static func report<R>(_ name: String, _ call: () -> R) throws {
    var turns = 0
    let other = spawn {
      while true {
        turns += 1
        try Greenlet.yield()
      }
    }
    let result = call()
    print(name, result, turns > 0 ? "green" : "blocking")
    try other.kill()
  }

  static func pipes() throws {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { return }
    let (reading, writing) = (ends[0], ends[1])
    spawn { write(writing, "x", 1) }
    var byte: UInt8 = 0
    try report("read") { read(reading, &byte, 1) }
    let reader = spawn { () -> Int32 in
      read(reading, &byte, 1) == -1 ? errno : 0
    }
    try Greenlet.yield()
    close(reading)
    print("closed", try reader.get() == EBADF)
    close(writing)
  }

  static func timing() throws {
    try report("usleep") { usleep(5000) }
  }

  /// Nobody takes over the hub's calls, and still it learns of handlers.
  static func signals() throws {
    for flags in [0, SA_RESTART] {
      var action = sigaction()
      action.__sigaction_handler.sa_handler = { _ in }
      action.sa_flags = flags
      sigaction(SIGALRM, &action, nil)
      var soon = itimerval()
      soon.it_value.tv_usec = 20_000
      setitimer(__itimer_which_t(ITIMER_REAL.rawValue), &soon, nil)
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { return }
      let (reading, writing) = (ends[0], ends[1])
      // Its own call goes on: usleep(3) does so never.
      let late = spawn {
        for _ in 0..<100 { usleep(2000) }
        write(writing, "x", 1)
      }
      var byte: UInt8 = 0
      let count = read(reading, &byte, 1)
      print(flags == 0 ? "interrupted" : "going on", count == 1 || errno == EINTR, count)
      try late.join()
      close(reading)
      close(writing)
    }
  }

  static func children() throws {
    var status: Int32 = 0
    for code in [3, 4] {
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { return }
      let (reading, writing) = (ends[0], ends[1])
      let child = start("/bin/sh", "-c", "read line < /dev/fd/\(reading); exit \(code)")
      spawn { write(writing, "\n", 1) }
      try report("wait") { (code == 3 ? wait(&status) : wait3(&status, 0, nil)) == child }
      print("status", status >> 8)
      close(reading)
      close(writing)
    }
    print("no child", wait(&status) == -1 && errno == ECHILD)
  }

  /// lockf(3) and F_SETLKW know processes only, so another one has the lock first.
  static func locks() throws {
    for way in ["lockf", "F_SETLKW"] {
      var path = Array("/tmp/green-glibc-XXXXXX\0".utf8CString)
      let file = mkstemp(&path)
      let name = path.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
      let child = start(CommandLine.arguments[0], name)
      // It has the lock when it has written a byte.
      var status = stat()
      while fstat(file, &status) == 0, status.st_size == 0 { usleep(1000) }
      try report(way) {
        guard way != "lockf" else { return lockf(file, F_LOCK, 0) }
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        return fcntl(file, F_SETLKW, &lock)
      }
      print("ended", waitpid(child, nil, 0) == child)
      close(file)
      unlink(path)
    }
  }

  static func holdLock(of path: String) {
    let file = open(path, O_RDWR)
    lockf(file, F_LOCK, 0)
    write(file, "x", 1)
    usleep(50_000)
  }

  static func start(_ words: String...) -> pid_t {
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var child: pid_t = -1
    guard posix_spawn(&child, words[0], nil, nil, &arguments, environ) == 0 else { return -1 }
    return child
  }
}
