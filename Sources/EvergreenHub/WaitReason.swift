// Evergreen: what a parked greenlet waits for, said so cheaply that every park can say it.
// SPDX-License-Identifier: MIT

import CGreenlet
import CLibev

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

  /// - Parameters:
  ///   - text: It lives for ever.
  ///   - argument: Shown behind it.
  package init(cString text: UnsafePointer<CChar>, _ argument: Int64 = WaitReason.noArgument) {
    self.text = text
    self.argument = argument
  }

  init?(of context: UnsafeMutablePointer<evg_context>) {
    guard let text = context.pointee.wait_text else { return nil }
    self.text = text
    argument = context.pointee.wait_argument
  }

  /// The same for a wait for a descriptor watch, whose descriptor is shown. The watch can be found
  /// by it, in the child of a fork, without a place of its own.
  @inline(__always)
  func watching(_ io: UnsafeMutablePointer<evg_io>) -> WaitReason {
    WaitReason(cString: text, -Int64(Int(bitPattern: io)))
  }

  /// What is waited for, if it is a descriptor watch.
  var io: UnsafeMutablePointer<evg_io>? {
    argument < WaitReason.noArgument ? UnsafeMutablePointer(bitPattern: Int(-argument)) : nil
  }

  @usableFromInline package var description: String {
    let text = String(cString: text)
    if let io { return "\(text) \(io.pointee.watcher.fd)" }
    return argument == WaitReason.noArgument ? text : "\(text) \(argument)"
  }
}
