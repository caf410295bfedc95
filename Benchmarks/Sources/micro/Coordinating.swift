// Evergreen: what passing items on and taking permits costs.
// SPDX-License-Identifier: MIT

import Evergreen

/// One greenlet puts, another gets, through a channel. Per item.
func channel(_ n: Int) throws -> Report { try pass(n, through: Channel<Int>()) }

/// One greenlet puts, another gets, through a queue of 1,024. Per item.
func queue(_ n: Int) throws -> Report { try pass(n, through: Queue<Int>(capacity: 1_024)) }

private func pass(_ n: Int, through queue: Queue<Int>) throws -> Report {
  let measurement = Measurement()
  spawn {
    for number in 0..<n { try queue.put(number) }
    queue.shutDown()
  }
  var sum = 0
  for number in queue { sum &+= number }
  guard sum == n * (n - 1) / 2 else { fail("items were lost") }
  return measurement.report(per: n)
}

/// Two greenlets put into a channel each, a third gets from whichever is ready. Per item.
func selectTwo(_ n: Int) throws -> Report {
  let (odd, even) = (Channel<Int>(), Channel<Int>())
  let measurement = Measurement()
  for channel in [odd, even] {
    spawn { for number in 0..<(n + 1) / 2 { try channel.put(number) } }
  }
  var sum = 0
  let receive = { (number: Int) in sum &+= number }
  for _ in 0..<2 * ((n + 1) / 2) { try select(.get(from: odd, receive), .get(from: even, receive)) }
  return measurement.report(per: n)
}

/// A permit that is free is taken and given back. Per pair.
func semaphore(_ n: Int) throws -> Report {
  let semaphore = Semaphore(value: 1)
  let measurement = Measurement()
  for _ in 0..<n {
    try semaphore.acquire()
    semaphore.release()
  }
  return measurement.report(per: n)
}
