// Evergreen: tests of descriptor watchers
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.serialized) struct IOWatcherTests {
  @Test(arguments: Backend.available)
  func readsWhenThereIsSomething(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let pair = Pair()
      let watcher = try loop.io(pair.reading, .read)
      var seen: [IOWatcher.Events] = []
      try watcher.start {
        seen.append(watcher.ready)
        pair.take()
        if seen.count == 3 { watcher.stop() }
      }
      loop.run(.noWait)
      #expect(seen.isEmpty)
      for _ in 0..<3 { pair.put() }
      loop.run()
      #expect(seen == [.read, .read, .read])
    }
  }

  @Test(arguments: Backend.available)
  func writesWhenThereIsRoom(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let pair = Pair()
      let watcher = try loop.io(pair.writing, .write)
      var ready: IOWatcher.Events = []
      try watcher.start {
        ready = watcher.ready
        watcher.stop()
      }
      loop.run()
      #expect(ready == .write)
    }
  }

  @Test(arguments: Backend.available)
  func endOfStreamIsReadable(on backend: Backend) throws {
    try withLoop(backend) { loop in
      var ends: [Int32] = [-1, -1]
      try #require(pipe(&ends) == 0)
      let watcher = try loop.io(ends[0], .read)
      try watcher.start { watcher.stop() }
      close(ends[1])
      #expect(loop.run() == false)
      close(ends[0])
    }
  }

  @Test(arguments: Backend.available)
  func oneDescriptorHasReaderAndWriter(on backend: Backend) throws {
    try withLoop(backend) { loop in
      var ends: [Int32] = [-1, -1]
      #if canImport(Glibc)
      try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
      #else
      try #require(socketpair(AF_UNIX, SOCK_STREAM, 0, &ends) == 0)
      #endif
      defer { for end in ends { close(end) } }
      let reader = try loop.io(ends[0], .read)
      let writer = try loop.io(ends[0], .write)
      let both = try loop.io(ends[0], [.read, .write])
      var log: Set<String> = []
      try reader.start {
        log.insert("read")
        reader.stop()
      }
      try writer.start {
        log.insert("write")
        writer.stop()
      }
      try both.start {
        log.insert("both \(both.ready.rawValue)")
        if both.ready == [.read, .write] { both.stop() }
      }
      loop.run(.noWait)
      #expect(log == ["write", "both 2"])
      var byte: UInt8 = 1
      write(ends[1], &byte, 1)
      loop.run()
      #expect(log == ["write", "both 2", "read", "both 3"])
    }
  }

  @Test func invalidDescriptorsAreErrorsWhereTheyAreMade() throws {
    try withLoop { loop in
      #expect(throws: Errno.badFileDescriptor) { try loop.io(-1, .read) }
      #expect(throws: Errno.badFileDescriptor) { try loop.io(1 << 20, .write) }
      #expect(loop.activeCount == 0)
    }
  }

  @Test func closedDescriptorIsAnErrorAtTheStart() throws {
    try withLoop { loop in
      let copy = Pair().readingDuplicate(from: 720)
      let watcher = try loop.io(copy, .read)
      close(copy)
      #expect(throws: Errno.badFileDescriptor) { try watcher.start {} }
      #expect(!watcher.isActive)
      #expect(loop.run() == false)
    }
  }

  @Test(arguments: Backend.available)
  func descriptorClosedBeforeThePollIsReported(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let copy = Pair().readingDuplicate(from: 740)
      let watchers = [try loop.io(copy, .read), try loop.io(copy, .read)]
      var errors: [String] = []
      loop.onError = { error, watcher in
        #expect(error as? Errno == .badFileDescriptor)
        errors.append("\(watcher)")
      }
      for watcher in watchers { try watcher.start { Issue.record("fired") } }
      close(copy)
      #expect(loop.run() == false)
      #expect(errors == Array(repeating: "IOWatcher(descriptor \(copy))", count: 2))
      #expect(watchers.allSatisfy { !$0.isActive })
    }
  }

  #if os(Linux)
  @Test func stoppingOneOfTwoOnAClosedDescriptorIsSafe() throws {
    try withLoop(.epoll) { loop in
      let copy = Pair().readingDuplicate(from: 760)
      let (first, second) = (try loop.io(copy, .read), try loop.io(copy, .write))
      var errors = 0
      loop.onError = { _, _ in errors += 1 }
      try first.start {}
      try second.start {}
      loop.run(.noWait)
      close(copy)
      // libev would change the registration now, and fail an assertion.
      second.stop()
      loop.run(.noWait)
      #expect(errors == 1)
      #expect(!first.isActive)
    }
  }
  #endif

  @Test(arguments: Backend.available)
  func numberUsedAgainIsWatchedAgain(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let old = Pair()
      let number = old.readingDuplicate(from: 780)
      let watcher = try loop.io(number, .read)
      try watcher.start {}
      loop.run(.noWait)
      watcher.stop()
      // No pass in between: libev has not noticed yet.
      let new = Pair()
      #expect(dup2(new.reading, number) == number)
      defer { close(number) }
      var calls = 0
      try watcher.start {
        calls += 1
        watcher.stop()
      }
      new.put()
      loop.run()
      #expect(calls == 1)
    }
  }

  @Test(arguments: Backend.available)
  func forgettingADescriptorEndsItsWatches(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let pair = Pair()
      let number = pair.readingDuplicate(from: 790)
      var errors: [String] = []
      loop.onError = { error, watcher in errors.append("\(error) \(watcher)") }
      let watchers = try (0..<3).map { _ in try loop.io(number, .read) }
      var calls = 0
      for watcher in watchers { try watcher.start { calls += 1 } }
      loop.run(.noWait)
      loop.forget(descriptor: number)
      close(number)
      loop.run(.noWait)
      loop.run(.noWait)
      #expect(errors.count == 3)
      #expect(errors.allSatisfy { $0.hasPrefix("\(Errno.badFileDescriptor) ") })
      #expect(!watchers.contains { $0.isActive })
      pair.put()
      loop.run(.noWait)
      #expect(calls == 0)
      #expect(loop.activeCount == 0)
    }
  }

  #if os(Linux)
  @Test func whoIsToldOfAClosedDescriptorMayStopTheOtherWatches() throws {
    try withLoop(.epoll) { loop in
      let pair = Pair()
      let number = pair.readingDuplicate(from: 795)
      let watchers = try (0..<3).map { _ in try loop.io(number, .read) }
      var reports = 0
      loop.onError = { _, _ in
        reports += 1
        watchers[0].stop()
        watchers[1].stop()
      }
      for watcher in watchers { try watcher.start {} }
      close(number)
      loop.run(.noWait)
      loop.run(.noWait)
      #expect(reports == 1 || reports == 2)
      #expect(!watchers.contains { $0.isActive })
    }
  }
  #endif

  @Test func inactiveWatcherMayBeRetargeted() throws {
    try withLoop { loop in
      let (first, second) = (Pair(), Pair())
      let watcher = try loop.io(first.reading, .read)
      try watcher.start { watcher.stop() }
      first.put()
      loop.run()
      watcher.descriptor = second.writing
      watcher.events = .write
      var ready: IOWatcher.Events = []
      try watcher.start {
        ready = watcher.ready
        watcher.stop()
      }
      loop.run()
      #expect(ready == .write)
      watcher.descriptor = -1
      #expect(throws: Errno.badFileDescriptor) { try watcher.start {} }
    }
  }

  @Test func activeWatcherMayNotBeRetargeted() async {
    await #expect(processExitsWith: .failure) {
      let loop = try Loop()
      let watcher = try loop.io(0, .read)
      try watcher.start {}
      watcher.events = .write
      exit(0)
    }
    await #expect(processExitsWith: .failure) {
      let loop = try Loop()
      let watcher = try loop.io(0, .read)
      try watcher.start {}
      watcher.descriptor = 1
      exit(0)
    }
  }

  @Test func feedingSaysWhatHappened() throws {
    try withLoop { loop in
      let pair = Pair()
      let watcher = try loop.io(pair.reading, .read)
      var seen: [IOWatcher.Events] = []
      try watcher.start { seen.append(watcher.ready) }
      watcher.feed(.write)
      loop.run(.noWait)
      watcher.feed()
      loop.run(.noWait)
      watcher.feed(.read)
      watcher.feed(.write)
      loop.run(.noWait)
      #expect(seen == [.write, .read, [.read, .write]])
    }
  }

  @Test(arguments: Backend.available)
  func regularFileIsAlwaysReady(on backend: Backend) throws {
    try withLoop(backend) { loop in
      let file = open("/etc/passwd", O_RDONLY)
      try #require(file >= 0)
      defer { close(file) }
      let watcher = try loop.io(file, .read)
      try watcher.start { watcher.stop() }
      #expect(loop.run() == false)
    }
  }
}
