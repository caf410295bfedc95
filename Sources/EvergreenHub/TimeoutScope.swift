// Evergreen: the timeout of a block.
// SPDX-License-Identifier: MIT
//
// The timer lies in a record that the hub lends, so that a block costs no allocation. `stop` gives it
// back, and keeps the timeout that has fired, if one has, to be told from those of other blocks.
//
// A block ends before its greenlet does, which need not be held therefore. Not so in a raw
// greenlet: a generator whose body waits in the block may outlive the greenlet that entered it, and
// the hub too. That record holds both.

import CGreenlet
import CLibev
import Greenlets

/// What `withTimeout` keeps while its body runs.
@usableFromInline
struct TimeoutScope: ~Copyable {
  private let record: UnsafeMutablePointer<TimeoutRecord>
  private let hub: Unmanaged<Hub>
  private var fired: Timeout?
  /// The timeout, if calls of foreign code have failed because of it and it has not been thrown.
  @usableFromInline private(set) var struck: Timeout?

  /// Starts the timeout.
  ///
  /// - Throws: ``BlockingInHub`` on the hub's own stack.
  @usableFromInline
  init(_ duration: Duration) throws {
    hub = Hub.unmanagedCurrent
    let context = evg_current().unsafelyUnwrapped
    guard let owner = context.pointee.owner else { throw BlockingInHub() }
    let record = hub._withUnsafeGuaranteedRef { $0.takeTimeoutRecord() }
    record.pointee.greenlet = .fromOpaque(owner)
    record.pointee.duration = duration
    if evg_is_unusual(context) { record.prepare(for: context, of: hub) }
    let deadline = hub._withUnsafeGuaranteedRef { $0.deadline(after: duration) }
    if !deadline.isNever {
      hub._withUnsafeGuaranteedRef { $0.start(record.timer, at: deadline) }
    }
    self.record = record
  }

  /// Ends the timeout. One that has fired but has not been thrown is taken back, or is `struck`.
  @usableFromInline
  mutating func stop() {
    hub._withUnsafeGuaranteedRef { $0.stop(record.timer) }
    if record.pointee.needsCare { return stopWithCare() }
    hub._withUnsafeGuaranteedRef { $0.giveBack(record) }
  }

  @inline(never)
  private mutating func stopWithCare() {
    record.pointee.needsCare = false
    record.pointee.shields = 0
    if let timeout = record.pointee.fired {
      fired = timeout
      timeout.isOver = true
      record.pointee.fired = nil
      record.pointee.greenlet._withUnsafeGuaranteedRef { greenlet in
        if greenlet.extras?.due.hasStruck(timeout) == true { struck = timeout }
        greenlet.takeBack(timeout)
      }
    }
    hub._withUnsafeGuaranteedRef { $0.giveBack(record) }
    if record.pointee.isKeeping { record.letGo(hub) }
  }

  /// Whether an error is this block's timeout.
  @usableFromInline
  func isOwn(_ error: any Error) -> Bool {
    guard let fired, let timeout = error as? Timeout else { return false }
    return timeout === fired
  }
}

struct TimeoutRecord {
  var timer: evg_timer
  var greenlet: Unmanaged<AnyGreenlet>
  var duration: Duration
  var fired: Timeout?
  /// It holds the greenlet and the hub.
  var isKeeping = false
  /// It has fired, or it holds them, or it began under a shield.
  var needsCare = false
  /// How many shields it began under.
  var shields: UInt32 = 0
  var next: UnsafeMutablePointer<TimeoutRecord>?
}

extension UnsafeMutablePointer<TimeoutRecord> {
  fileprivate var timer: UnsafeMutablePointer<evg_timer> {
    UnsafeMutableRawPointer(self).assumingMemoryBound(to: evg_timer.self)
  }

  @inline(never)
  fileprivate func prepare(
    for context: UnsafeMutablePointer<evg_context>, of hub: Unmanaged<Hub>
  ) {
    pointee.needsCare = true
    pointee.shields = pointee.greenlet._withUnsafeGuaranteedRef { $0.shields }
    if context.pointee.is_raw { keep(hub) }
  }

  private func keep(_ hub: Unmanaged<Hub>) {
    pointee.isKeeping = true
    _ = hub.retain()
    _ = pointee.greenlet.retain()
  }

  /// After it was given back; a hub that has ended has no use for it.
  @inline(never)
  fileprivate func letGo(_ hub: Unmanaged<Hub>) {
    pointee.isKeeping = false
    pointee.greenlet.release()
    hub._withUnsafeGuaranteedRef { if $0.isEnding { $0.freeAllTimeoutRecords() } }
    hub.release()
  }
}

extension Hub {
  fileprivate func takeTimeoutRecord() -> UnsafeMutablePointer<TimeoutRecord> {
    if let record = freeTimeoutRecords {
      freeTimeoutRecords = record.pointee.next
      return record
    }
    let record = UnsafeMutablePointer<TimeoutRecord>.allocate(capacity: 1)
    record.initialize(
      to: TimeoutRecord(
        timer: evg_timer_make(blockTimeoutFired, record), greenlet: .passUnretained(main),
        duration: .zero))
    return record
  }

  fileprivate func giveBack(_ record: UnsafeMutablePointer<TimeoutRecord>) {
    record.pointee.next = freeTimeoutRecords
    freeTimeoutRecords = record
  }

  func freeAllTimeoutRecords() {
    while let record = freeTimeoutRecords {
      freeTimeoutRecords = record.pointee.next
      record.deinitialize(count: 1)
      record.deallocate()
    }
  }
}

let blockTimeoutFired: @convention(c) (UnsafeMutablePointer<evg_timer>) -> Void = { timer in
  let record = timer.pointee.context!.assumingMemoryBound(to: TimeoutRecord.self)
  record.pointee.greenlet._withUnsafeGuaranteedRef { greenlet in
    if greenlet.isGone { return }
    let timeout = Timeout(of: record.pointee.duration, under: record.pointee.shields)
    record.pointee.fired = timeout
    record.pointee.needsCare = true
    greenlet.interrupt(with: timeout)
  }
}
