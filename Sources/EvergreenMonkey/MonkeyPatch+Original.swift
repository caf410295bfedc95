// Evergreen: libc's own calls, whatever is patched.
// SPDX-License-Identifier: MIT

#if os(Linux)
public import Glibc

extension MonkeyPatch {
  /// libc's own functions: `MonkeyPatch.original.usleep(1000)` blocks the thread whatever is patched.
  ///
  /// What is missing here is called in ``withoutPatching(_:)``.
  ///
  /// > gevent: `monkey.get_original(module, name)`.
  public static var original: Original { Original() }

  /// See ``MonkeyPatch/original``. Each function is that of libc with the same name and arguments.
  public struct Original: Sendable {
    fileprivate init() {}

    public func read(_ fd: Int32, _ buffer: UnsafeMutableRawPointer?, _ size: Int) -> Int {
      MonkeyPatch.withoutPatching { Glibc.read(fd, buffer, size) }
    }

    public func write(_ fd: Int32, _ buffer: UnsafeRawPointer?, _ size: Int) -> Int {
      MonkeyPatch.withoutPatching { Glibc.write(fd, buffer, size) }
    }

    public func recv(
      _ fd: Int32, _ buffer: UnsafeMutableRawPointer?, _ size: Int, _ flags: Int32
    ) -> Int {
      MonkeyPatch.withoutPatching { Glibc.recv(fd, buffer, size, flags) }
    }

    public func send(
      _ fd: Int32, _ buffer: UnsafeRawPointer?, _ size: Int, _ flags: Int32
    ) -> Int {
      MonkeyPatch.withoutPatching { Glibc.send(fd, buffer, size, flags) }
    }

    public func connect(
      _ fd: Int32, _ address: UnsafePointer<sockaddr>?, _ length: socklen_t
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.connect(fd, address, length) }
    }

    public func accept(
      _ fd: Int32, _ address: UnsafeMutablePointer<sockaddr>?,
      _ length: UnsafeMutablePointer<socklen_t>?
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.accept(fd, address, length) }
    }

    public func poll(
      _ descriptors: UnsafeMutablePointer<pollfd>?, _ count: nfds_t, _ timeout: Int32
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.poll(descriptors, count, timeout) }
    }

    public func select(
      _ count: Int32, _ reading: UnsafeMutablePointer<fd_set>?,
      _ writing: UnsafeMutablePointer<fd_set>?, _ special: UnsafeMutablePointer<fd_set>?,
      _ timeout: UnsafeMutablePointer<timeval>?
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.select(count, reading, writing, special, timeout) }
    }

    public func sleep(_ seconds: UInt32) -> UInt32 {
      MonkeyPatch.withoutPatching { Glibc.sleep(seconds) }
    }

    public func usleep(_ microseconds: UInt32) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.usleep(microseconds) }
    }

    public func nanosleep(
      _ time: UnsafePointer<timespec>, _ rest: UnsafeMutablePointer<timespec>?
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.nanosleep(time, rest) }
    }

    public func getaddrinfo(
      _ node: UnsafePointer<CChar>?, _ service: UnsafePointer<CChar>?,
      _ hints: UnsafePointer<addrinfo>?,
      _ result: UnsafeMutablePointer<UnsafeMutablePointer<addrinfo>?>
    ) -> Int32 {
      MonkeyPatch.withoutPatching { Glibc.getaddrinfo(node, service, hints, result) }
    }

    public func waitpid(
      _ process: pid_t, _ status: UnsafeMutablePointer<Int32>?, _ options: Int32
    ) -> pid_t {
      MonkeyPatch.withoutPatching { Glibc.waitpid(process, status, options) }
    }
  }
}
#endif
