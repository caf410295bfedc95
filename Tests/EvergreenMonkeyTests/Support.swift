// Evergreen: what the tests of the patch share.
// SPDX-License-Identifier: MIT

import EvergreenHub

/// How often another greenlet had a turn while `body` ran.
func turnsOfOthers(during body: () throws -> Void) throws -> Int {
  var turns = 0
  let other = spawn {
    while true {
      try sleep(for: .milliseconds(1))
      turns += 1
    }
  }
  try sleep(for: .milliseconds(2))
  let before = turns
  try body()
  let during = turns - before
  try other.kill()
  return during
}
