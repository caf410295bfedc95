// Evergreen: what the tests of the patch share.
// SPDX-License-Identifier: MIT

import EvergreenHub

/// How often another greenlet had a turn while `body` ran.
func turnsOfOthers(during body: () throws -> Void) throws -> Int {
  var turns = 0
  // It begins as soon as `body` lets anyone run, however short the wait; then it comes back.
  let other = spawn {
    while true {
      turns += 1
      try sleep(for: .milliseconds(1))
    }
  }
  try body()
  let during = turns
  try other.kill()
  return during
}
