// Evergreen: what it costs to cross to tasks and to other hubs, and back.
// SPDX-License-Identifier: MIT

import Evergreen

/// A greenlet waits for async code that returns at once, on Swift's pool. Per wait.
func awaitTask(_ n: Int) throws -> Report {
  let hub = Hub.current
  try hub.await {}
  let measurement = Measurement()
  for _ in 0..<n { try hub.await {} }
  return measurement.report(per: n)
}

/// The same with the task on the hub's own thread. Per wait.
func awaitTaskHere(_ n: Int) throws -> Report {
  let hub = Hub.current
  let executor = hub.executor
  try hub.await(on: executor) {}
  let measurement = Measurement()
  for _ in 0..<n { try hub.await(on: executor) {} }
  return measurement.report(per: n)
}

/// A greenlet has another hub run something, and waits for the result. Per round trip.
func callHub(_ n: Int) throws -> Report {
  let group = try HubGroup(hubs: 1)
  try group.run {}
  let measurement = Measurement()
  for _ in 0..<n { try group.run {} }
  let report = measurement.report(per: n)
  try group.stop()
  return report
}

/// A message to another hub's inbox and one back. Per round trip.
func pingHub(_ n: Int) throws -> Report {
  let group = try HubGroup(hubs: 1)
  let pongs = Inbox<Int>()
  let back = pongs.sender
  let there = try echoing(on: group, back)
  try there.send(0)
  _ = try pongs.get()
  let measurement = Measurement()
  for number in 0..<n {
    try there.send(number)
    _ = try pongs.get()
  }
  let report = measurement.report(per: n)
  there.shutDown()
  try group.stop()
  return report
}

private func echoing(on group: HubGroup, _ back: InboxSender<Int>) throws -> InboxSender<Int> {
  try group.run {
    let pings = Inbox<Int>()
    let sender = pings.sender
    spawn { for ping in pings { try back.send(ping) } }
    return sender
  }
}

/// Messages to another hub's inbox, 1,024 of which may be on the way. Per message.
func streamToHub(_ n: Int) throws -> Report {
  let group = try HubGroup(hubs: 1)
  let through = AsyncResult<Int>()
  let completer = through.completer
  let there = try group.run { () -> InboxSender<Int> in
    let numbers = Inbox<Int>(capacity: 1024)
    let sender = numbers.sender
    spawn { completer.set(numbers.reduce(0, &+)) }
    return sender
  }
  let measurement = Measurement()
  for number in 0..<n { try there.send(number) }
  there.shutDown()
  guard try through.get() == n * (n - 1) / 2 else { fail("messages were lost") }
  let report = measurement.report(per: n)
  try group.stop()
  return report
}
