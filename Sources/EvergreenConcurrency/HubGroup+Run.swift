// Evergreen: work for other hubs, and its results.
// SPDX-License-Identifier: MIT

import EvergreenBase
import EvergreenHub
import Greenlets
import Synchronization

extension HubGroup {
  /// Runs `body` in a greenlet of one of the hubs, and goes on.
  ///
  /// It inherits the task locals that the caller sees. An error of it is reported there.
  ///
  /// Callable from any thread and from tasks.
  ///
  /// - Parameters:
  ///   - hub: Which; `nil` for the least busy one.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: May wait.
  /// - Returns: The number of the hub.
  /// - Throws: ``HubEnded`` if the group has been stopped.
  ///
  /// > Switch point: No.
  @discardableResult
  public func spawn(
    on hub: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping @Sendable () throws -> Void
  ) throws -> Int {
    let number = hub ?? leastBusy
    let isTaken = member(number).give(InheritedLocals()) {
      Greenlet(file: file, line: line, body)
    }
    if !isTaken { throw HubEnded() }
    return number
  }

  /// Runs `body` in a greenlet of one of the hubs, and waits for its result; other greenlets of the caller's
  /// hub run meanwhile.
  ///
  /// It inherits the task locals that the caller sees. A kill or a timeout of the caller kills it too, and
  /// does not wait for it.
  ///
  /// - Parameters:
  ///   - hub: Which; `nil` for the least busy one.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: May wait.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws; ``HubEnded`` if the group has been stopped, or is before `body` is
  ///   through; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func run<R>(
    on hub: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping @Sendable () throws -> sending R
  ) throws -> R {
    let here = Hub.current
    try here.checkForDueError()
    let member = member(hub ?? leastBusy)
    let call = RemoteCall<R>()
    here.externalWakers += 1
    do {
      let reply = Reply(call, to: here)
      _ = member.give(InheritedLocals()) { call.greenlet(file, line, body, reply, member) }
      // If the hub takes no work, the reply has gone unsaid by now, and says so.
    }
    do {
      _ = try here.wait(WaitReason("another hub"), until: .never, in: call)
    } catch {
      member.executor.core.door.post { call.cancel() }
      throw error
    }
    return try call.take()
  }

  /// The same for `async` code; cancelling the task kills the greenlet.
  ///
  /// - Parameters:
  ///   - hub: Which; `nil` for the least busy one.
  ///   - body: May wait.
  /// - Returns: What `body` returns.
  /// - Throws: As ``HubExecutor/run(_:)``.
  public func run<R>(
    on hub: Int? = nil, _ body: @escaping @Sendable () throws -> sending R
  ) async throws -> sending R {
    let member = member(hub ?? leastBusy)
    return try await member.executor.run {
      try member.enter()
      defer { member.leave() }
      return try body()
    }
  }
}

/// What the caller and the greenlet on the other hub share: `result` is written there, before the reply
/// is posted, and read here after it.
private final class RemoteCall<R>: WaitListOwner, @unchecked Sendable {
  // Unchecked: see above; the rest belongs to one hub each.
  var waiters = WaitList()  // the caller's
  var result: Result<R, any Error>?

  // The other hub's
  private var greenlet: AnyGreenlet?
  private var isCancelled = false

  func greenlet(
    _ file: StaticString, _ line: UInt, _ body: @escaping @Sendable () throws -> sending R,
    _ reply: Reply<R>, _ member: HubMember
  ) -> AnyGreenlet? {
    if isCancelled { return nil }
    let greenlet = Greenlet(file: file, line: line) { [self] in
      defer { self.greenlet = nil }
      do {
        reply.say(.success(try body()))
      } catch {
        let isEnd = error is GreenletExit && !isCancelled && member.isStopping
        reply.say(.failure(isEnd ? HubEnded() : error))
      }
    }
    self.greenlet = greenlet
    return greenlet
  }

  func cancel() {
    isCancelled = true
    _ = try? greenlet?.kill(waiting: false)
    greenlet = nil
  }

  func take() throws -> R {
    defer { result = nil }
    return try result.unsafelyUnwrapped.get()
  }
}

/// What wakes the caller, said or unsaid.
private final class Reply<R>: Sendable {
  private let call: RemoteCall<R>
  private let door: MailboxCore
  private let isSaid = Atomic(false)

  init(_ call: RemoteCall<R>, to hub: Hub) {
    self.call = call
    door = hub.backDoor
  }

  deinit { say(.failure(HubEnded())) }

  func say(_ result: Result<R, any Error>) {
    if isSaid.exchange(true, ordering: .acquiringAndReleasing) { return }
    call.result = result
    door.post { [call] in
      Hub.current.externalWakers -= 1
      call.waiters.signalFirst()
    }
  }
}
