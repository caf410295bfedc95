// Evergreen: what `#expect` finds, and in which run.
// SPDX-License-Identifier: MIT

import EvergreenBase

#if canImport(Testing)
import Testing

/// Runs `body`; issues that it records say `comment`, too.
///
/// - Returns: Whether there were none, as far as that can be known.
func notingIssues(
  _ comment: String, _ body: @escaping @Sendable () async throws -> Void
) async throws -> Bool {
  guard let test = Test.current else {
    try await body()
    return true
  }
  let isGood = Guarded(true)
  let trait = IssueHandlingTrait.compactMapIssues { issue in
    var issue = issue
    issue.comments.append(Comment(rawValue: comment))
    isGood.withLock { $0 = false }
    return issue
  }
  try await trait.provideScope(for: test, testCase: Test.Case.current, performing: body)
  return isGood.withLock { $0 }
}
#else
func notingIssues(
  _ comment: String, _ body: @escaping @Sendable () async throws -> Void
) async throws -> Bool {
  try await body()
  return true
}
#endif
