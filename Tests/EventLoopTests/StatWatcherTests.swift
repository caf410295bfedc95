// Evergreen: tests of file watchers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct StatWatcherTests {
  @Test func seesAFileComeGrowAndGo() throws {
    var template = Array("/tmp/evergreen-stat-XXXXXX".utf8CString)
    let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
    defer { rmdir(directory) }
    let path = directory + "/file"
    func fill(_ bytes: Int) {
      let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
      _ = [UInt8](repeating: 1, count: bytes).withUnsafeBytes { write(file, $0.baseAddress, bytes) }
      close(file)
    }
    try withLoop { loop in
      let watcher = loop.stat(path, interval: .milliseconds(100))
      var log: [String] = []
      watcher.start {
        switch (watcher.previous, watcher.current) {
        case (nil, let now?):
          log.append("came")
          #expect(now.mode & 0o777 == 0o600)
          if now.size == 0 { return }
          fill(200)
        case (let before?, let now?):
          // Creation and writing may be seen as one change or as two.
          if now.size == 200 {
            log.append("grew")
            #expect(before.inode == now.inode)
            unlink(path)
          } else if now.size == 100 {
            fill(200)
          }
        case (_?, nil):
          log.append("went")
          watcher.stop()
        case (nil, nil): Issue.record("nothing changed")
        }
      }
      #expect(watcher.current == nil)
      fill(100)
      loop.run()
      #expect(log == ["came", "grew", "went"])
    }
  }

  @Test func knowsAnExistingFile() throws {
    try withLoop { loop in
      let watcher = loop.stat("/etc/passwd")
      #expect(watcher.path == "/etc/passwd")
      watcher.start {}
      let now = try #require(watcher.current)
      #expect(now.size > 0 && now.user == 0 && now.linkCount >= 1)
      #expect(now.modified > .zero)
    }
  }
}
