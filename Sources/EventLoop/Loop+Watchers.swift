// Evergreen: how watchers are made
// SPDX-License-Identifier: MIT

// All are inactive until their `start` is called.
extension Loop {
  /// A watcher for a descriptor that can be read or written.
  ///
  /// - Throws: ``Errno/badFileDescriptor`` if `descriptor` is not open.
  public func io(_ descriptor: Int32, _ events: IOWatcher.Events) throws(Errno) -> IOWatcher {
    try IOWatcher(self, descriptor, events)
  }

  /// A watcher for time that passes.
  ///
  /// - Parameters:
  ///   - after: From the start to the first call; zero and less mean the next pass.
  ///   - repeating: From one call to the next; `.zero` for a single call.
  /// - Returns: The inactive watcher.
  public func timer(after: Duration, repeating: Duration = .zero) -> TimerWatcher {
    TimerWatcher(self, after: after, repeating: repeating)
  }

  /// A watcher for a time of day; see ``PeriodicWatcher``.
  ///
  /// - Parameter time: Since 1970 began. A time in the past means the next pass.
  /// - Returns: The inactive watcher.
  public func periodic(at time: Duration) -> PeriodicWatcher {
    PeriodicWatcher(self, offset: time, interval: .zero, reschedule: nil)
  }

  /// A watcher for times of day at equal distances; see ``PeriodicWatcher``.
  ///
  /// - Parameters:
  ///   - interval: The distance, not negative. Below 1/8192 of a second it is that.
  ///   - offset: The phase; `.zero` for full hours where `interval` is an hour.
  /// - Returns: The inactive watcher.
  public func periodic(every interval: Duration, offset: Duration = .zero) -> PeriodicWatcher {
    PeriodicWatcher(self, offset: offset, interval: interval, reschedule: nil)
  }

  /// A watcher for times of day that are reckoned one by one; see ``PeriodicWatcher``.
  ///
  /// - Parameter next: Is given the present and answers the time of the next call. Must not start
  ///   or stop watchers. A time in the past counts as the present.
  /// - Returns: The inactive watcher.
  public func periodic(next: @escaping (Duration) -> Duration) -> PeriodicWatcher {
    PeriodicWatcher(self, offset: .zero, interval: .zero, reschedule: next)
  }

  /// A watcher for a signal.
  ///
  /// - Throws: `invalidSignal` for `SIGKILL`, `SIGSTOP` and what is no signal.
  public func signal(_ signal: Int32) throws(LoopError) -> SignalWatcher {
    try SignalWatcher(self, signal)
  }

  /// A watcher for a child process.
  ///
  /// - Parameters:
  ///   - processID: Which; 0 for any child.
  ///   - tracing: Whether stops and continuations are reported too.
  /// - Returns: The inactive watcher.
  /// - Throws: `needsDefaultLoop` unless this loop was made by ``makeDefault(backend:)``.
  public func child(_ processID: Int32, tracing: Bool = false) throws(LoopError) -> ChildWatcher {
    try ChildWatcher(self, processID, tracing: tracing)
  }

  /// A watcher for a path.
  ///
  /// - Parameters:
  ///   - path: Need not exist.
  ///   - interval: How often to look; `.zero` for libev's choice, about five seconds.
  /// - Returns: The inactive watcher.
  public func stat(_ path: String, interval: Duration = .zero) -> StatWatcher {
    StatWatcher(self, path, interval: interval)
  }

  /// A watcher for passes in which nothing else happens.
  public func idle() -> IdleWatcher { IdleWatcher(self) }

  /// A watcher for the moment before each poll.
  public func prepare() -> PrepareWatcher { PrepareWatcher(self) }

  /// A watcher for the moment after each poll.
  public func check() -> CheckWatcher { CheckWatcher(self) }

  /// A watcher for forks of the process, called in the child.
  public func fork() -> ForkWatcher { ForkWatcher(self) }

  /// A watcher for other threads.
  public func async() -> AsyncWatcher { AsyncWatcher(self) }
}
