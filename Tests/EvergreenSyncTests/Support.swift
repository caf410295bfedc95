// Evergreen: what suites of this target share.
// SPDX-License-Identifier: MIT

import Testing

/// Checks that a test's child process was ended with a sentence.
func expectSentence(
  _ sentence: String, in result: ExitTest.Result?,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
  #expect(text.contains(sentence), "\(text.prefix(2000))", sourceLocation: sourceLocation)
}

/// How a wait may be ended that has brought nothing.
enum WaitEnd: CaseIterable, Sendable { case kill, timeout, enclosingTimeout }
