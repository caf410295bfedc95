// Evergreen: greenlets whose work needs the results of others.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub
public import Greenlets

/// Values by key, each made by a greenlet from the values of other keys, or posted from outside.
///
/// ```swift
/// let build = DAGPool<String, Product>()
/// try build.spawn("app", after: ["core", "ui"]) { try link($0["core"]!, $0["ui"]!) }
/// try build.spawn("ui", after: ["core"]) { try compileUI(with: $0["core"]!) }
/// try build.spawn("core") { _ in try compileCore() }
/// let app = try build.value(of: "app")
/// ```
///
/// The order of spawning does not matter. What fails takes down all that needs it, with
/// ``PropagateError``. Keys that need each other are refused; where a key is waited for that nobody has
/// posted and nobody works on, the ``LoopExit`` of the standstill names it. Belongs to the hub on which
/// it was made.
///
/// > eventlet: `DAGPool`.
public final class DAGPool<Key: Hashable, Value> {
  private let hub = Hub.current
  private var nodes: [Key: Node] = [:]
  private var order: [Key] = []  // in which they got their values

  /// Those who wait for whatever comes next.
  private let followers = Node()

  private final class Node: WaitListOwner {
    var waiters = WaitList()
    var result: Result<Value, any Error>?
    var greenlet: Greenlet<Void>?
    var needs: [Key] = []
  }

  /// - Parameter values: Posted from the beginning.
  public init(_ values: [Key: Value] = [:]) {
    for (key, value) in values { settle(key, .success(value)) }
  }

  private func node(_ key: Key) -> Node {
    if let node = nodes[key] { return node }
    let node = Node()
    nodes[key] = node
    return node
  }

  private func settle(_ key: Key, _ result: Result<Value, any Error>) {
    let node = node(key)
    if node.result == nil { order.append(key) }
    node.result = result
    node.greenlet = nil
    node.needs = []
    node.waiters.signalAll()
    followers.waiters.signalAll()
  }

  // MARK: Working

  /// Spawns the greenlet that makes the value of a key, once those that it needs are there.
  ///
  /// - Parameters:
  ///   - key: What it makes.
  ///   - needs: What it needs.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: Gets the values of `needs`. Its error is given to whoever waits for the key, and reported.
  /// - Returns: The greenlet.
  /// - Throws: ``Collision`` if the key has a value or a greenlet; ``DAGCycle`` if what it needs needs
  ///   the key.
  ///
  /// > Switch point: No.
  ///
  /// > eventlet: `DAGPool.spawn(key, depends, function)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  public func spawn(
    _ key: Key, after needs: [Key] = [], file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping ([Key: Value]) throws -> Value
  ) throws -> AnyGreenlet {
    hub.checkIsCurrent("a DAGPool")
    let node = node(key)
    if node.result != nil || node.greenlet != nil { throw Collision(key: "\(key)") }
    if let path = path(from: needs, to: key) {
      throw DAGCycle(keys: ([key] + path).map { "\($0)" })
    }
    node.needs = needs
    let greenlet = Greenlet<Void>(file: file, line: line) { [self] in
      let value = try body(try values(of: needs))
      if node.result == nil { settle(key, .success(value)) }
    }
    let wanted = needs.isEmpty ? "" : " after \(needs.map { "\($0)" }.joined(separator: ", "))"
    greenlet.name = "DAG \(key)\(wanted)"
    node.greenlet = greenlet
    _ = greenlet.rawLink { [unowned greenlet] in
      guard node.greenlet === greenlet else { return }
      let error = greenlet.error ?? GreenletExit()
      if error is PropagateError { greenlet.isSilent = true }
      self.settle(key, .failure(error))
    }
    return greenlet.start()
  }

  /// By what a key, if it needs `needs`, comes to need itself.
  private func path(from needs: [Key], to key: Key) -> [Key]? {
    var seen: Set<Key> = []
    func search(_ keys: [Key]) -> [Key]? {
      for one in keys {
        if one == key { return [one] }
        guard seen.insert(one).inserted, let node = nodes[one] else { continue }
        if let rest = search(node.needs) { return [one] + rest }
      }
      return nil
    }
    return search(needs)
  }

  /// Gives a key its value, from outside.
  ///
  /// A greenlet that works on the key goes on, but its value is not wanted any more.
  ///
  /// - Parameters:
  ///   - value: The value.
  ///   - key: Whose it is.
  ///   - replacing: Whether a value that the key has, or an error, gives way to this one.
  /// - Throws: ``Collision`` if the key has a value or a greenlet, unless `replacing`.
  ///
  /// > Switch point: No.
  ///
  /// > eventlet: `DAGPool.post(key, value, replace=False)`.
  public func post(_ value: Value, for key: Key, replacing: Bool = false) throws {
    hub.checkIsCurrent("a DAGPool")
    if !replacing, let node = nodes[key], node.result != nil || node.greenlet != nil {
      throw Collision(key: "\(key)")
    }
    settle(key, .success(value))
  }

  /// Ends the greenlet that works on a key; who waits for the key gets a ``PropagateError``.
  ///
  /// - Parameters:
  ///   - key: Nothing happens if nobody works on it.
  ///   - error: What is thrown into it.
  ///
  /// > Switch point: No.
  ///
  /// > eventlet: `DAGPool.kill(key)`.
  public func kill(_ key: Key, with error: any Error = GreenletExit()) {
    hub.checkIsCurrent("a DAGPool")
    nodes[key]?.greenlet?.requestEnd(with: error)
  }

  // MARK: Results

  /// The value of a key, if it has one.
  public subscript(key: Key) -> Value? { try? nodes[key]?.result?.get() }

  /// The keys that have got a value or an error, in the order of time.
  public var settledKeys: [Key] { order }
  /// The keys on which greenlets work, or wait to.
  public var runningKeys: [Key] { nodes.filter { $0.value.greenlet != nil }.map(\.key) }
  /// The keys that greenlets wait for, and which have neither value nor greenlet.
  public var missingKeys: [Key] {
    let wanted = Set(nodes.values.flatMap(\.needs))
    return wanted.filter { nodes[$0].map { $0.result == nil && $0.greenlet == nil } ?? true }
  }

  /// Waits for the value of a key.
  ///
  /// - Throws: ``PropagateError`` if it failed; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes, unless it is there.
  ///
  /// > eventlet: `DAGPool.get(key)`, `DAGPool[key]`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func value(of key: Key) throws -> Value {
    hub.checkIsCurrent("a DAGPool")
    let node = node(key)
    while true {
      if let result = node.result {
        do { return try result.get() } catch {
          throw PropagateError(key: "\(key)", error: error)
        }
      }
      try wait(for: [key], in: node)
    }
  }

  private func wait(for keys: some Sequence<Key>, in list: some WaitListOwner) throws {
    do {
      _ = try hub.wait(WaitReason("a value of a DAGPool"), until: .never, in: list)
    } catch let exit as LoopExit {
      let missing = Set(missingKeys).union(keys.filter { nodes[$0]?.greenlet == nil })
      if missing.isEmpty { throw exit }
      throw exit.explained(
        by: "the DAGPool waits for \(missing.map { "\($0)" }.sorted().joined(separator: ", ")), "
          + "which nobody has posted and nobody works on")
    }
  }

  /// Waits for the values of keys.
  ///
  /// - Parameter keys: `nil` for all that have a value or a greenlet at the time of the call.
  /// - Returns: Their values.
  /// - Throws: ``PropagateError`` at the first of `keys` that failed; what is thrown into the caller.
  ///
  /// > Switch point: Yes, unless they are there.
  ///
  /// > eventlet: `DAGPool.wait(keys)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func values(of keys: [Key]? = nil) throws -> [Key: Value] {
    var values: [Key: Value] = [:]
    for key in keys ?? order + runningKeys { values[key] = try value(of: key) }
    return values
  }

  /// Calls `body` with the keys and their values, as they come.
  ///
  /// - Parameters:
  ///   - keys: `nil` for all that have a value or a greenlet at the time of the call.
  ///   - body: What is done with them.
  /// - Throws: ``PropagateError`` when one has failed; what `body` throws; what is thrown into the caller.
  ///
  /// > Switch point: Yes, unless they are there.
  ///
  /// > eventlet: `DAGPool.wait_each(keys)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public func forEach(of keys: [Key]? = nil, _ body: (Key, Value) throws -> Void) throws {
    var pending = Set(keys ?? order + runningKeys)
    var looked = 0
    while !pending.isEmpty {
      while looked < order.count {
        let key = order[looked]
        looked += 1
        if pending.remove(key) != nil { try body(key, try value(of: key)) }
      }
      if !pending.isEmpty { try wait(for: pending, in: followers) }
    }
  }
}

/// What a value of a ``DAGPool`` needs has failed.
///
/// > eventlet: `PropagateError`.
public struct PropagateError: Error, CustomStringConvertible {
  /// Whose value it was.
  public let key: String
  /// Why; a `PropagateError` itself if that failed for what it needs.
  public let error: any Error

  /// What failed first.
  public var root: any Error { (error as? PropagateError)?.root ?? error }

  public var description: String { "\(key) failed: \(error)" }
}

/// A key of a ``DAGPool`` has a value or a greenlet already.
///
/// > eventlet: `Collision`.
public struct Collision: Error, Hashable, Sendable, CustomStringConvertible {
  /// Which.
  public let key: String

  package init(key: String) { self.key = key }

  public var description: String { "the DAGPool has a value or a greenlet for \(key) already" }
}

/// Keys of a ``DAGPool`` need each other, so none of them could ever get a value.
public struct DAGCycle: Error, Hashable, Sendable, CustomStringConvertible {
  /// Each needs the next one; the last is the first.
  public let keys: [String]

  package init(keys: [String]) { self.keys = keys }

  public var description: String { "the DAGPool has a cycle: \(keys.joined(separator: " needs "))" }
}
