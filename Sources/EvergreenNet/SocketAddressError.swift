// Evergreen: why a text is no socket address
// SPDX-License-Identifier: MIT

/// A text that is no address, with the reason.
///
/// Its description is a whole sentence: `address 'foo:99999': the port 99999 is not between 0 and
/// 65535`. Programs ask ``reason``; the sentence is for people and may change.
public struct SocketAddressError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong, as something to compare with.
  public struct Reason: Hashable, Sendable, CustomStringConvertible {
    /// The name of this reason, as in `"badPort"`.
    public let description: String

    private init(_ name: String) {
      description = name
    }

    /// The text has no `:port` at its end.
    public static let missingPort = Reason("missingPort")
    /// The port is not written in digits, or is larger than 65535.
    public static let badPort = Reason("badPort")
    /// The host is neither a numeric address nor, where names are allowed, a possible name.
    public static let badHost = Reason("badHost")
    /// The host is a name, and only numeric addresses are read here: see ``HostAndPort``.
    public static let needsResolver = Reason("needsResolver")
    /// The part behind `%` is no network interface of this machine, nor a number.
    public static let badScope = Reason("badScope")
    /// The path or abstract name of a Unix socket is empty, too long or not representable.
    public static let badPath = Reason("badPath")
  }

  /// The text that was refused.
  public let text: String
  /// What is wrong with it.
  public let reason: Reason
  /// What is wrong with it, in words.
  public let explanation: String

  init(_ text: some StringProtocol, _ reason: Reason, _ explanation: String) {
    self.text = String(text)
    self.reason = reason
    self.explanation = explanation
  }

  /// The same complaint about the longer text that the refused one was found in.
  func about(_ text: some StringProtocol) -> SocketAddressError {
    SocketAddressError(text, reason, explanation)
  }

  /// The sentence: which text, and what is wrong with it.
  public var description: String {
    "address '\(text)': \(explanation)"
  }
}
