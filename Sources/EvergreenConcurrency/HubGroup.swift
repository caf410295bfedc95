// Evergreen: a hub for each core.
// SPDX-License-Identifier: MIT
//
// Each hub has a thread, whose main greenlet does nothing but wait for the end. Work comes as letters of
// its mailbox. How busy a hub is, is counted where work is given: work that is on its way counts too, or
// all that is given at once would go to the same one.

import CConcurrency
import CGreenlet
import EvergreenBase
import EventLoop
public import EvergreenHub
import EvergreenSync
import Greenlets
import Synchronization

/// Hubs with a thread each, and work for them.
///
/// ```swift
/// let group = try HubGroup()
/// let parts = (0..<group.count).map { number in spawn { try group.run(on: number) { try count(number) } } }
/// let total = try parts.map { try $0.get() }.reduce(0, +)
/// try group.stop()
/// ```
///
/// What goes to a hub and comes back is Sendable or `sending`, for it changes threads; the closures are
/// `@Sendable`. Greenlets that they spawn stay on that hub. Dropping the group stops it at once.
///
/// > gevent: has none; there one starts processes.
public final class HubGroup: Sendable {
  let members: [HubMember]
  private let turn = Atomic(0)

  /// How many hubs there are; they are numbered from 0.
  public var count: Int { members.count }

  /// Starts the threads.
  ///
  /// - Parameters:
  ///   - hubs: How many, 1 or more; `nil` for as many as there are cores that this process may use.
  ///   - name: What the threads are called, with a number behind it.
  ///   - onError: Called, on its hub, with each error that ends a greenlet there, ``GreenletExit`` apart;
  ///     prints it by default. May block.
  /// - Throws: ``ThreadUnavailable``.
  public init(
    hubs: Int? = nil, name: String = "hub",
    onError: (@Sendable (_ hub: Int, _ greenlet: AnyGreenlet, _ error: any Error) -> Void)? = nil
  ) throws {
    let count = hubs ?? HubGroup.coreCount
    require(count > 0, "a group cannot have \(count) hubs")
    var members: [HubMember] = []
    do {
      for number in 0..<count {
        members.append(try HubMember(number, name: "\(name)-\(number)", onError))
      }
    } catch {
      for member in members { member.stop(timeout: .zero, nil) }
      throw error
    }
    self.members = members
  }

  deinit { for member in members { member.stop(timeout: .zero, nil) } }

  /// Cores that this process may use.
  public static var coreCount: Int { max(1, Int(evg_core_count())) }

  /// The number that the calling thread's hub has in its group; `nil` if it is in none.
  public static var currentNumber: Int? {
    (Hub.currentIfAny?.attachments[ObjectIdentifier(HubMember.self)] as? HubMember)?.number
  }

  /// How many greenlets that were given to a hub have not ended; those that they spawn do not count.
  public func load(of hub: Int) -> Int { member(hub).load }

  /// The hub with the fewest; of equal ones each in turn.
  public var leastBusy: Int {
    let first = turn.add(1, ordering: .relaxed).newValue & .max
    let order = (0..<count).map { ($0 + first) % count }
    return order.min { members[$0].load < members[$1].load }!
  }

  /// A hub's door for `async` code, tasks and actors.
  public func executor(of hub: Int) -> HubExecutor { member(hub).executor }

  /// A hub's door for closures.
  public func mailbox(of hub: Int) -> Mailbox { member(hub).executor.mailbox }

  func member(_ number: Int) -> HubMember {
    require(members.indices.contains(number), "a group of \(count) hubs has no hub \(number)")
    return members[number]
  }

  /// Stops gracefully: takes no more work, lets what was given end, then kills what is left, on all hubs
  /// at the same time. Greenlets have a second to clean up after they were killed.
  ///
  /// May be called again, also meanwhile, with less time.
  ///
  /// - Parameter timeout: How long they may take to end by themselves; `nil` for ever, `.zero` kills at
  ///   once.
  /// - Throws: What is thrown into the caller while it waits; the group stops all the same.
  /// - Precondition: The caller is not on one of the group's hubs.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func stop(timeout: Duration? = .seconds(1)) throws {
    require(
      !members.contains { $0.executor.isCurrent },
      "a group of hubs is stopped from one of its own hubs, which would wait for itself")
    let ends = members.map { member in
      let end = AsyncResult<Void>()
      member.stop(timeout: timeout, end.completer)
      return end
    }
    for end in ends { try end.get() }
  }
}

/// A hub of a group, as others see it.
final class HubMember: @unchecked Sendable {
  // Unchecked: what stands under `// The hub's` is touched on its thread alone; the executor is set before
  // anybody has the member.

  private struct State {
    var isStopping = false
    var isEnded = false
    var ends: [Completer<Void>] = []
  }

  let number: Int
  let name: String
  private let state = Guarded(State())
  private let count = Atomic(0)
  private let onError: (@Sendable (Int, AnyGreenlet, any Error) -> Void)?
  private(set) var executor: HubExecutor!
  private let start = ThreadSignal()

  // The hub's
  private var news: Event?
  /// When it must end; `nil` while nobody has said so.
  private var deadline: Deadline?

  init(
    _ number: Int, name: String, _ onError: (@Sendable (Int, AnyGreenlet, any Error) -> Void)?
  ) throws {
    self.number = number
    self.name = name
    self.onError = onError
    let seen = start.generation
    let me = Unmanaged.passRetained(self).toOpaque()
    let error = evg_start_thread(
      { Unmanaged<HubMember>.fromOpaque($0!).takeRetainedValue().work() }, me, 0)
    if error != 0 {
      Unmanaged<HubMember>.fromOpaque(me).release()
      throw ThreadUnavailable(errno: Errno(rawValue: error))
    }
    while !start.wait(since: seen, atMost: .seconds(60)) {}
  }

  var load: Int { count.load(ordering: .relaxed) }

  // MARK: The thread

  private func work() {
    evg_name_thread(name)
    Hub.withHub { hub in
      hub.onError = { [number, name, onError] greenlet, error in
        if let onError { return onError(number, greenlet, error) }
        warn("\(greenlet) of \(name) failed: \(error)")
      }
      let news = Event()
      self.news = news
      hub.attachments[ObjectIdentifier(HubMember.self)] = self
      executor = hub.executor
      start.wakeOne()
      waitForEnd(news, on: hub)
      self.news = nil
    }
    let ends = state.withLock { state in
      state.isEnded = true
      defer { state.ends = [] }
      return state.ends
    }
    for end in ends { end.set() }
  }

  private func waitForEnd(_ news: Event, on hub: Hub) {
    while true {
      if let deadline, load == 0 || deadline.remaining(on: hub) == .zero { return }
      news.clear()
      _ = try? news.wait(timeout: deadline?.remaining(on: hub))
    }
  }

  // MARK: From any thread

  /// - Parameters:
  ///   - timeout: For what runs there.
  ///   - end: Is told when the thread has no hub any more.
  func stop(timeout: Duration?, _ end: Completer<Void>?) {
    let isEnded = state.withLock { state in
      state.isStopping = true
      if let end, !state.isEnded { state.ends.append(end) }
      return state.isEnded
    }
    if isEnded {
      end?.set()
      return
    }
    executor.core.door.post { [self] in
      let earlier = Deadline(after: timeout, on: Hub.current)
      if deadline.map({ earlier.nanoseconds < $0.nanoseconds }) ?? true { deadline = earlier }
      news?.set()
    }
  }

  /// Makes a greenlet on the hub.
  ///
  /// - Parameters:
  ///   - locals: What it inherits.
  ///   - make: Makes it, not started; called on the hub.
  /// - Returns: Whether the hub takes work.
  func give(_ locals: InheritedLocals?, _ make: @escaping @Sendable () -> AnyGreenlet?) -> Bool {
    if state.withLock({ $0.isStopping }) { return false }
    count.add(1, ordering: .relaxed)
    let isHeard = executor.core.door.post { [self] in
      guard let greenlet = make() else { return leave() }
      _ = greenlet.rawLink { [self] in leave() }
      greenlet.start(inheriting: locals)
    }
    if !isHeard { count.subtract(1, ordering: .relaxed) }
    return isHeard
  }

  /// Something runs on the hub that was not given by ``give(_:_:)``.
  func enter() throws {
    if isStopping { throw HubEnded() }
    count.add(1, ordering: .relaxed)
  }

  func leave() {
    let isLast = count.subtract(1, ordering: .relaxed).newValue == 0
    if isLast, deadline != nil { news?.set() }
  }

  var isStopping: Bool { state.withLock { $0.isStopping } }
}
