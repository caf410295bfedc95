// Evergreen: random programs under many seeds.
// SPDX-License-Identifier: MIT

import EvergreenSync
import EvergreenTesting
import Testing

/// `EVERGREEN_SEEDS=20000` looks further; `EVERGREEN_SEED=17` runs one and tells each step.
@Suite(.timeLimit(.minutes(5))) struct ModelTests {
  enum Kind: CaseIterable, Sendable {
    case semaphore, lock, condition, readWriteLock, event, result, barrier, lazy, pool, queue,
      channel, select, wait

    func make(_ random: inout SeededRandom) -> any Model {
      switch self {
      case .semaphore: SemaphoreModel(&random)
      case .lock: LockModel()
      case .condition: ConditionModel()
      case .readWriteLock: ReadWriteLockModel()
      case .event: EventModel()
      case .result: ResultModel()
      case .barrier: BarrierModel(&random)
      case .lazy: LazyModel()
      case .pool: PoolModel(&random)
      case .queue: QueueModel(&random)
      case .channel: ChannelModel(&random)
      case .select: SelectModel(&random)
      case .wait: WaitModel()
      }
    }
  }

  @Test(arguments: Kind.allCases)
  func keepsItsPromisesInAnyProgram(_ kind: Kind) async throws {
    try await forSeeds([.queue, .channel, .select].contains(kind) ? 600 : 200) { simulation in
      let model = kind.make(&simulation.random)
      try Program(simulation, model).run()
    }
  }

  @Test func allOfThemInOneProgram() async throws {
    try await forSeeds(300) { simulation in
      let parts = Kind.allCases.map { $0.make(&simulation.random) }
      try Program(simulation, Mixture(parts)).run()
    }
  }
}
