// Evergreen: sentences for standard error, and the end of a program that broke a rule.
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Writes one line to standard error in a single `write(2)`.
package func warn(_ message: String) {
  writeError("evergreen: \(message)\n")
}

package func writeError(_ text: String) {
  var text = text
  text.withUTF8 { bytes in
    var rest = UnsafeRawBufferPointer(bytes)
    while !rest.isEmpty {
      let written = write(STDERR_FILENO, rest.baseAddress, rest.count)
      if written < 0 && errno == EINTR { continue }
      guard written > 0 else { return }
      rest = UnsafeRawBufferPointer(rebasing: rest[written...])
    }
  }
}

/// Ends the program with a sentence unless a rule was kept, in release builds too, where
/// `precondition` is mute.
@inlinable
@inline(__always)
package func require(
  _ isKept: Bool, _ message: @autoclosure () -> String, file: StaticString = #fileID,
  line: UInt = #line
) {
  if !isKept { fatal(message(), file: file, line: line) }
}

/// Ends the program with a sentence, in release builds too, where `preconditionFailure` is mute.
@usableFromInline
package func fatal(
  _ message: String, file: StaticString = #fileID, line: UInt = #line
) -> Never {
  fatalError("evergreen: " + message, file: file, line: line)
}
