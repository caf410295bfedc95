// Evergreen: system calls that throw
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Makes a system call, again and again while a signal interrupts it, and throws what `errno`
/// says if it returns -1.
///
/// Not for `close(2)`, which must not be repeated.
package func checked<I: FixedWidthInteger>(_ call: () -> I) throws(Errno) -> I {
  while true {
    let result = call()
    if result != -1 { return result }
    let error = Errno(rawValue: errno)  // before anything else can overwrite it
    if error != .interrupted { throw error }
  }
}

/// Throws ``Errno/badFileDescriptor`` unless `fd` is an open descriptor.
///
/// Debian's libev has its assertions on: a descriptor that is negative or closed ends the process
/// when it is watched, so each is checked once before its first watch.
/// The C function is `fcntl(2)` with `F_GETFD`.
package func checkDescriptor(_ fd: Int32) throws(Errno) {
  guard fd >= 0 else { throw .badFileDescriptor }
  _ = try checked { fcntl(fd, F_GETFD) }
}
