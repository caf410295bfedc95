// Evergreen: the file that binding a Unix socket makes.
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The file of a Unix socket, to be removed by whoever has made it.
///
/// A successor may have put its own socket in the same place meanwhile; that one is left alone. The
/// child of a fork leaves it to its parent, who goes on to serve there.
struct SocketFile {
  private let path: String
  private let device: dev_t
  private let inode: ino_t
  private let process = getpid()

  /// What is there now; `nil` if `address` is no path, or nothing is there.
  init?(at address: SocketAddress) {
    guard let path = address.unixPath, let found = Self.look(path) else { return nil }
    self.path = path
    (device, inode) = found
  }

  /// Removes it, if it is there still.
  func remove() {
    guard process == getpid(), let found = Self.look(path), found == (device, inode) else { return }
    unlink(path)
  }

  private static func look(_ path: String) -> (dev_t, ino_t)? {
    var status = stat()
    return lstat(path, &status) == 0 ? (status.st_dev, status.st_ino) : nil
  }
}
