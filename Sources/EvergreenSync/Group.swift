// Evergreen: a set of greenlets without a limit.
// SPDX-License-Identifier: MIT

public import EvergreenHub

/// A set of greenlets that are waited for and ended together.
///
/// ```swift
/// let group = Group()
/// for peer in peers { group.spawn { try greet(peer) } }
/// try group.join(timeout: .seconds(5))
/// try group.kill()
/// ```
///
/// Members leave by themselves when they end; whoever wants their results keeps what `spawn` returns,
/// or maps. A block that must not end before its greenlets is ``withGroup(timeout:_:)``.
///
/// > gevent: `gevent.pool.Group`, whose `apply_async` is ``spawn(stackSize:file:line:_:)``, and whose
/// > `map_async` and callbacks are `spawn` around `map`.
public final class Group: AnyGroup {
  public override init() {}

  /// Spawns a greenlet in the group.
  ///
  /// - Parameters:
  ///   - stackSize: As for the function `spawn`.
  ///   - file: Where it is spawned, for reports.
  ///   - line: Where it is spawned, for reports.
  ///   - body: What it runs.
  /// - Returns: The greenlet, which has not run yet.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Group.spawn(function)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  @discardableResult
  @inlinable
  public func spawn<Success>(
    stackSize: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping () throws -> Success
  ) -> Greenlet<Success> {
    let greenlet = Greenlet(stackSize: stackSize, file: file, line: line, body)
    enroll(greenlet)
    return greenlet.start()
  }

  /// Takes in a greenlet, started or not. One that has ended leaves at once.
  ///
  /// > gevent: `Group.add(greenlet)`.
  public func add(_ greenlet: AnyGreenlet) { enroll(greenlet) }
}
