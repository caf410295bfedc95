// Evergreen: doing the same with each element of a sequence, in the greenlets of a group.
// SPDX-License-Identifier: MIT

import EvergreenBase
public import EvergreenHub
import Greenlets

extension AnyGroup {
  /// Runs `body` in a greenlet of the group, and waits for what it returns.
  ///
  /// A caller that is in the full pool itself runs it itself. If the caller is killed or timed out, so
  /// is the greenlet, and its end is waited for.
  ///
  /// - Parameters:
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - body: What is to be done.
  /// - Returns: What `body` returns.
  /// - Throws: What `body` throws; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `Group.apply(function, args)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func apply<Output>(
    file: StaticString = #fileID, line: UInt = #line, _ body: @escaping () throws -> Output
  ) throws -> Output {
    guard try takePlace() else { return try body() }
    let worker = Greenlet(file: file, line: line, body)
    worker.isSilent = true
    enroll(worker)
    worker.start()
    do {
      try worker.join(until: .never)
    } catch {
      worker.requestEnd(with: GreenletExit())
      try shielded { _ = try worker.join(until: .never) }
      throw error
    }
    return try worker.get()
  }

  /// Does the same with each element, each in a greenlet of the group, and waits for all.
  ///
  /// A pool takes from `inputs` only as it has places. When the first fails, or the caller is killed or
  /// timed out, the others are killed and their end is waited for: nothing is left behind.
  ///
  /// ```swift
  /// let sizes = try Pool(size: 8).map(urls) { try fetch($0).count }
  /// ```
  ///
  /// - Parameters:
  ///   - inputs: May wait, as a ``Queue`` does.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - transform: What is done with an element.
  /// - Returns: What `transform` has returned, in the order of `inputs`.
  /// - Throws: The error that came first in time; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  ///
  /// > gevent: `Group.map(function, iterable)`, which leaves the others running.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func map<Inputs: Sequence, Output>(
    _ inputs: Inputs, file: StaticString = #fileID, line: UInt = #line,
    _ transform: @escaping (Inputs.Element) throws -> Output
  ) throws -> [Output] {
    let input = Input(inputs.makeIterator())
    let core = MapCore<Output>(
      in: self, isOrdered: true, failsFast: true, limit: .max,
      origin: MapOrigin(file: file, line: line)
    ) {
      input.next().map { element in { try transform(element) } }
    }
    return try core.whole {
      var all: [Output] = []
      while let output = try $0.next() { all.append(output) }
      return all
    }
  }

  /// As ``map(_:file:line:_:)``, where nothing comes back.
  ///
  /// - Parameters:
  ///   - inputs: May wait, as a ``Queue`` does, and may be endless.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - body: What is done with an element.
  /// - Throws: The error that came first in time; what is thrown into the caller while it waits.
  ///
  /// > Switch point: Yes.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func forEach<Inputs: Sequence>(
    _ inputs: Inputs, file: StaticString = #fileID, line: UInt = #line,
    _ body: @escaping (Inputs.Element) throws -> Void
  ) throws {
    let input = Input(inputs.makeIterator())
    let core = MapCore<Void>(
      in: self, isOrdered: false, failsFast: true, limit: usualBuffer,
      origin: MapOrigin(file: file, line: line)
    ) {
      input.next().map { element in { try body(element) } }
    }
    try core.whole { while try $0.next() != nil {} }
  }

  /// Does the same with each element, each in a greenlet of the group, and gives the results one by one
  /// in the order of `inputs`.
  ///
  /// Work begins when the caller gives way, and runs ahead of who takes the results by `maxBuffered`
  /// elements.
  ///
  /// - Parameters:
  ///   - inputs: Taken from lazily, in a greenlet of its own; may wait, as a ``Queue`` does, and may be
  ///     endless.
  ///   - maxBuffered: How many elements may have been taken whose results have not been, 1 or more;
  ///     `nil` for twice the pool's size, and 128 where there is no limit.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - transform: What is done with an element.
  /// - Returns: The results.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Group.imap(function, iterable, maxsize=None)`, where `None` is no limit.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func imap<Inputs: Sequence, Output>(
    _ inputs: Inputs, maxBuffered: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ transform: @escaping (Inputs.Element) throws -> Output
  ) -> MappedResults<Output> {
    let input = Input(inputs.makeIterator())
    return mapped(
      isOrdered: true, maxBuffered, MapOrigin(file: file, line: line), input.next, transform)
  }

  /// The same with elements that a function gives, until it returns `nil` or throws; its error is
  /// thrown by `next()` after the results of those before.
  ///
  /// ```swift
  /// let answers = pool.imap(pulling: { try stream.readLine() }) { try answer($0) }
  /// ```
  ///
  /// - Parameters:
  ///   - next: Called in a greenlet of its own; may wait.
  ///   - maxBuffered: As for ``imap(_:maxBuffered:file:line:_:)``.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - transform: What is done with an element.
  /// - Returns: The results.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func imap<Element, Output>(
    pulling next: @escaping () throws -> Element?, maxBuffered: Int? = nil,
    file: StaticString = #fileID, line: UInt = #line,
    _ transform: @escaping (Element) throws -> Output
  ) -> MappedResults<Output> {
    mapped(isOrdered: true, maxBuffered, MapOrigin(file: file, line: line), next, transform)
  }

  /// As ``imap(_:maxBuffered:file:line:_:)``, but each result comes as soon as it is there.
  ///
  /// - Parameters:
  ///   - inputs: As there.
  ///   - maxBuffered: As there.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - transform: What is done with an element.
  /// - Returns: The results.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Group.imap_unordered(function, iterable, maxsize=None)`.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func imapUnordered<Inputs: Sequence, Output>(
    _ inputs: Inputs, maxBuffered: Int? = nil, file: StaticString = #fileID, line: UInt = #line,
    _ transform: @escaping (Inputs.Element) throws -> Output
  ) -> MappedResults<Output> {
    let input = Input(inputs.makeIterator())
    return mapped(
      isOrdered: false, maxBuffered, MapOrigin(file: file, line: line), input.next, transform)
  }

  /// As ``imap(pulling:maxBuffered:file:line:_:)``, but each result comes as soon as it is there.
  ///
  /// - Parameters:
  ///   - next: As there.
  ///   - maxBuffered: As there.
  ///   - file: Where it is called, for reports.
  ///   - line: Where it is called, for reports.
  ///   - transform: What is done with an element.
  /// - Returns: The results.
  ///
  /// > Switch point: No.
  @available(*, noasync, message: "greenlets run on a thread that has a hub, not in a task")
  public final func imapUnordered<Element, Output>(
    pulling next: @escaping () throws -> Element?, maxBuffered: Int? = nil,
    file: StaticString = #fileID, line: UInt = #line,
    _ transform: @escaping (Element) throws -> Output
  ) -> MappedResults<Output> {
    mapped(isOrdered: false, maxBuffered, MapOrigin(file: file, line: line), next, transform)
  }

  @available(*, unavailable, message: "spawn a greenlet that maps: spawn { try group.map(...) }")
  public final func mapAsync<Inputs: Sequence, Output>(
    _ inputs: Inputs, _ transform: @escaping (Inputs.Element) throws -> Output
  ) -> Greenlet<[Output]> { fatalError() }

  @available(*, unavailable, renamed: "spawn(_:)")
  public final func applyAsync<Output>(
    _ body: @escaping () throws -> Output
  ) -> Greenlet<Output> { fatalError() }

  private final func mapped<Element, Output>(
    isOrdered: Bool, _ limit: Int?, _ origin: MapOrigin,
    _ next: @escaping () throws -> Element?, _ transform: @escaping (Element) throws -> Output
  ) -> MappedResults<Output> {
    MappedResults(
      MapCore(
        in: self, isOrdered: isOrdered, failsFast: false, limit: limit ?? usualBuffer,
        origin: origin
      ) {
        try next().map { element in { try transform(element) } }
      })
  }
}
