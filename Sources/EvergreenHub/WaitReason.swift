// Evergreen: what a parked greenlet waits for, said so cheaply that every park can say it.
// SPDX-License-Identifier: MIT

import CGreenlet

/// A text that lives for ever and perhaps a number: "sleep", "readable descriptor 7".
@usableFromInline
package struct WaitReason: CustomStringConvertible {
  @usableFromInline let text: UnsafePointer<CChar>
  @usableFromInline let argument: Int64

  @inlinable static var noArgument: Int64 { -1 }  // EVG_NO_ARGUMENT

  /// - Parameters:
  ///   - text: A literal in ASCII.
  ///   - argument: Shown behind it.
  @inlinable
  @inline(__always)
  package init(_ text: StaticString, _ argument: Int64 = WaitReason.noArgument) {
    self.text = UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
    self.argument = argument
  }

  init?(of context: UnsafeMutablePointer<evg_context>) {
    guard let text = context.pointee.wait_text else { return nil }
    self.text = text
    argument = context.pointee.wait_argument
  }

  @usableFromInline package var description: String {
    let text = String(cString: text)
    return argument == WaitReason.noArgument ? text : "\(text) \(argument)"
  }
}
