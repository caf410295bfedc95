// Evergreen: attaching a thread, and the job in which the Swift runtime's words are looked for.
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenBase
import Synchronization

/// Makes the calling thread able to run greenlets. Cheap when it is already.
package func attachThread() {
  // A program that was not written for this has none of them, and must see no thread that looks.
  if evg_current() == nil { evg_attach(!evg_is_adopting() && runtimeWordsAreKnown) }
}

/// What the probe found, once per process; see `runtime_words.c`.
private let runtimeWordsAreKnown: Bool = {
  let error = evg_on_new_thread {
    guard evg_words_probe_begin() else { return }
    let executor = ProbeExecutor()
    Task(executorPreference: executor) {
      probeSucceeded.store(evg_words_probe_in_job(), ordering: .relaxed)
    }
    executor.runAll()
  }
  let found = probeSucceeded.load(ordering: .relaxed)
  #if os(Linux)
  if !found {
    let reason =
      error == 0
      ? "this Swift runtime keeps its thread state in an unknown way"
      : "no thread could be started to find the Swift runtime's thread state (error \(error))"
    warn(reason + ": task locals are shared by the greenlets of a thread")
  }
  #endif
  return found
}()

private let probeSucceeded = Atomic(false)

/// Runs its jobs on the thread that asks for it.
private final class ProbeExecutor: TaskExecutor {
  private let jobs = Guarded<[UnownedJob]>([])

  func enqueue(_ job: consuming ExecutorJob) {
    let unowned = UnownedJob(job)
    jobs.withLock { $0.append(unowned) }
  }

  func runAll() {
    while let job = jobs.withLock({ $0.popLast() }) {
      job.runSynchronously(on: asUnownedTaskExecutor())
    }
  }
}
