// Evergreen: what a test has left behind.
// SPDX-License-Identifier: MIT

import EvergreenHub

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Greenlets, stacks, timers, watches or descriptors that outlived a test.
public struct LeakReport: Error, Sendable, CustomStringConvertible {
  public let description: String

  static func check(_ remains: HubRemains?, descriptorsBefore: DescriptorCount?) throws {
    var leaks: [String] = []
    if let remains {
      if remains.contexts > 0 { leaks.append("\(remains.contexts) greenlets") }
      if remains.stacks > 0 { leaks.append("\(remains.stacks) stacks") }
      if remains.watches > 0 { leaks.append("\(remains.watches) timers and watches") }
    }
    if let before = descriptorsBefore, let now = DescriptorCount.ifReliable() {
      if now.count > before.count {
        leaks.append("\(now.count - before.count) descriptors (\(now.newcomers(since: before)))")
      }
    }
    if !leaks.isEmpty {
      throw LeakReport(description: "left behind: " + leaks.joined(separator: ", "))
    }
  }
}

/// The open descriptors of the process; only where no other test opens any meanwhile.
struct DescriptorCount {
  private let targets: [String: String]

  var count: Int { targets.count }

  /// `nil` unless `EVERGREEN_SERIAL_TESTS` says that tests run one by one.
  static func ifReliable() -> DescriptorCount? {
    guard getenv("EVERGREEN_SERIAL_TESTS") != nil else { return nil }
    #if os(Linux)
    let path = "/proc/self/fd"
    #else
    let path = "/dev/fd"
    #endif
    guard let directory = opendir(path) else { return nil }
    defer { closedir(directory) }
    let own = String(dirfd(directory))
    var targets: [String: String] = [:]
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name.hasPrefix(".") || name == own { continue }
      var buffer = [UInt8](repeating: 0, count: 256)
      let length = buffer.withUnsafeMutableBytes {
        readlink("\(path)/\(name)", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
      }
      let target = String(decoding: buffer.prefix(max(0, length)), as: UTF8.self)
      // libdispatch makes one for each clock when a task first sleeps, and keeps it. That of a loop
      // goes with the loop's epoll set, which counts.
      if target == "anon_inode:[timerfd]" { continue }
      targets[name] = target
    }
    return DescriptorCount(targets: targets)
  }

  func newcomers(since before: DescriptorCount) -> String {
    targets.filter { before.targets[$0.key] != $0.value }
      .map { "\($0.key) -> \($0.value)" }.sorted().joined(separator: ", ")
  }
}
