// Evergreen: arguments that make no sense, refused with a sentence, in release builds too.
// SPDX-License-Identifier: MIT
//
// `precondition` is mute there. The sentences are made out of line: they would enlarge the frames of
// calls that lie on the stacks of all who wait.

import EvergreenBase

/// Ends the program unless `count` is `least` or more.
@inline(__always)
func checkCount(
  _ count: Int, atLeast least: Int, _ verb: StaticString, _ noun: StaticString = "bytes"
) {
  if count < least { refuse(count, verb, noun) }
}

@inline(never)
private func refuse(_ count: Int, _ verb: StaticString, _ noun: StaticString) -> Never {
  fatal("cannot \(verb) \(count) \(noun)")
}

/// Ends the program if `limit` would let nothing run.
func checkLimit(_ limit: Int?, of owner: StaticString, _ noun: StaticString) {
  if let limit, limit < 1 { fatal("\(owner) cannot have at most \(limit) \(noun)") }
}
