// Evergreen: calls back when a file changes
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Calls back when what `lstat(2)` says of a path changes, whether the file exists or not.
///
/// libev asks the kernel to be told (inotify, on Linux and local file systems) and looks at
/// intervals where it cannot. Looking is a blocking call.
///
/// > gevent: `loop.stat(path, interval)`.
public final class StatWatcher: Watcher {
  /// What is known of a file.
  public struct Attributes: Hashable, Sendable {
    /// Device and inode: the identity of a file.
    public let device: UInt64
    /// Device and inode: the identity of a file.
    public let inode: UInt64
    /// Type and permissions, as in `st_mode`.
    public let mode: UInt32
    /// The number of names.
    public let linkCount: UInt64
    /// The owner.
    public let user: UInt32
    /// The owner's group.
    public let group: UInt32
    /// The length in bytes.
    public let size: Int64
    /// When the content last changed, since 1970 began.
    public let modified: Duration

    /// `nil` where libev says so of a missing file.
    init?(_ data: stat) {
      guard data.st_nlink != 0 else { return nil }
      device = UInt64(truncatingIfNeeded: data.st_dev)
      inode = UInt64(data.st_ino)
      mode = UInt32(data.st_mode)
      linkCount = UInt64(data.st_nlink)
      user = data.st_uid
      group = data.st_gid
      size = Int64(data.st_size)
      var nanoseconds: Int64 = 0
      let seconds = withUnsafePointer(to: data) { evg_stat_modified($0, &nanoseconds) }
      modified = .seconds(seconds) + .nanoseconds(nanoseconds)
    }
  }

  /// Which path; a relative one is relative to the process's directory.
  public let path: String

  /// How often to look; `.zero` for libev's choice, about five seconds.
  public let interval: Duration

  private let pathBytes: UnsafeMutablePointer<CChar>

  init(_ loop: Loop, _ path: String, interval: Duration) {
    require(!path.utf8.contains(0), "a path cannot contain a zero byte: \(path.debugDescription)")
    self.path = path
    self.interval = interval
    pathBytes = strdup(path)
    super.init(loop, ev_stat.self)
  }

  deinit {
    free(pathBytes)
  }

  /// Starts the watch; gives an active watcher another callback.
  public func start(_ callback: @escaping () throws -> Void) {
    activate(callback)
  }

  /// The file as last seen; `nil` if there was none, or before the first start.
  public var current: Attributes? { Attributes(file.pointee.attr) }

  /// The file as seen before the last change; `nil` if there was none.
  public var previous: Attributes? { Attributes(file.pointee.prev) }

  private var file: UnsafeMutablePointer<ev_stat> {
    storage.assumingMemoryBound(to: ev_stat.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    evg_stat_set(file, pathBytes, max(interval.inSeconds, 0))
    ev_stat_start(loop, file)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    ev_stat_stop(loop, file)
  }

  override var ownEvents: Int32 { Int32(EV_STAT) }

  override var subject: String { path }
}
