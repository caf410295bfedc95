// Evergreen: an executor that owns a thread.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase

/// Runs tasks on one thread, which ends with it.
final class OneThreadExecutor: TaskExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var isStopped = false
  }
  private let state = Guarded(State())
  private let signal = ThreadSignal()

  init() {
    let me = Unmanaged.passRetained(self).toOpaque()
    let error = evg_start_thread(
      { Unmanaged<OneThreadExecutor>.fromOpaque($0!).takeRetainedValue().run() }, me, 1 << 20)
    precondition(error == 0, "cannot start a thread: error \(error)")
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let unowned = UnownedJob(job)
    state.withLock { $0.jobs.append(unowned) }
    signal.wakeOne()
  }

  func stop() {
    state.withLock { $0.isStopped = true }
    signal.wakeOne()
  }

  private func run() {
    while true {
      let seen = signal.generation
      let (jobs, isStopped) = state.withLock { state in
        defer { state.jobs = [] }
        return (state.jobs, state.isStopped)
      }
      for job in jobs { job.runSynchronously(on: asUnownedTaskExecutor()) }
      if jobs.isEmpty {
        if isStopped { return }
        _ = signal.wait(since: seen, atMost: .seconds(3600))
      }
    }
  }
}
