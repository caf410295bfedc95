// Evergreen: waits until a descriptor can be read or written
// SPDX-License-Identifier: MIT

import CLibev
import EvergreenBase

/// Calls back, again and again, while a descriptor can be read or written without blocking.
///
/// ```swift
/// let watcher = try loop.io(socket, .read)
/// try watcher.start { readWhatIsThere() }
/// ```
///
/// Stop it before the descriptor is closed. A descriptor that was closed under an active watcher
/// never fires again; where the loop notices, it stops the watcher and reports
/// ``Errno/badFileDescriptor`` to ``Loop/onError``. (With ``Backend/epoll``, libev ends the process in
/// the rare case that it finds its set in disorder and makes it anew.)
///
/// > gevent: `loop.io(fd, events)`.
public final class IOWatcher: Watcher {
  /// What can be waited for.
  public struct Events: OptionSet, Hashable, Sendable {
    /// libev's bits.
    public let rawValue: Int32

    /// The set with libev's bits.
    public init(rawValue: Int32) {
      self.rawValue = rawValue
    }

    /// There is something to read, a connection to accept, the end of the stream or an error.
    public static let read = Events(rawValue: 1)

    /// There is room to write, a connection was made, or an error.
    public static let write = Events(rawValue: 2)
  }

  /// Which descriptor.
  ///
  /// - Precondition: Set only while the watcher is inactive.
  public var descriptor: Int32 {
    willSet { requireInactive() }
  }

  /// What to wait for; with several, either.
  ///
  /// - Precondition: Set only while the watcher is inactive.
  public var events: Events {
    willSet { requireInactive() }
  }

  /// In the callback: which of ``events`` happened.
  public private(set) var ready: Events = []

  init(_ loop: Loop, _ descriptor: Int32, _ events: Events) throws(Errno) {
    self.descriptor = descriptor
    self.events = events
    super.init(loop, ev_io.self)
    try checkDescriptor(descriptor)
  }

  /// Starts the watch; gives an active watcher another callback.
  ///
  /// - Parameter callback: Called in each pass that finds the descriptor ready; see ``ready``.
  /// - Throws: ``Errno/badFileDescriptor`` if the descriptor has been closed.
  public func start(_ callback: @escaping () throws -> Void) throws(Errno) {
    try checkDescriptor(descriptor)
    activate(callback)
  }

  /// Has the callback called in the next pass, as if `events` had happened. An inactive watcher
  /// ignores it.
  public func feed(_ events: Events) {
    feedRaw(events.rawValue)
  }

  private func requireInactive() {
    require(!isActive, "an active IOWatcher was given another aim; stop it first")
  }

  private var io: UnsafeMutablePointer<ev_io> {
    storage.assumingMemoryBound(to: ev_io.self)
  }

  override func startRaw(_ loop: OpaquePointer) {
    // Set anew each time: the number may stand for another file than at the last start.
    evg_io_set(io, descriptor, events.rawValue & (evg_read | evg_write))
    ev_io_start(loop, io)
    core.noteWatch(of: descriptor, begins: true)
  }

  override func stopRaw(_ loop: OpaquePointer) {
    core.noteWatch(of: descriptor, begins: false)
    ev_io_stop(loop, io)
  }

  override func willCall(_ received: Int32) -> Bool {
    ready = Events(rawValue: received).intersection([.read, .write])
    guard received & evg_error != 0 else { return true }
    // libev found it closed and has stopped the watcher.
    core.onError(Errno.badFileDescriptor, self)
    return false
  }

  override var ownEvents: Int32 { events.rawValue }

  override var subject: String { "descriptor \(descriptor)" }
}
