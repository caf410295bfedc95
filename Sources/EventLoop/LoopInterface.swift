// Evergreen: what the hub asks of its loop
// SPDX-License-Identifier: MIT

package import CLibev

/// The small interface through which a hub reaches its loop, so that virtual time and a simulated
/// network can stand in for ``Loop``.
///
/// All of it is called by the loop's thread, but for ``interrupt()``.
package protocol LoopInterface: AnyObject {
  /// Time of the last poll, CLOCK_MONOTONIC nanoseconds (virtual loops: virtual).
  var now: UInt64 { get }

  /// Reads the clock now (exact), nanoseconds; does not change `now` of the loop for others.
  func readClock() -> UInt64

  /// One pass: looks for events, runs what is pending. `wait` false never blocks.
  ///
  /// `wait` true blocks only while something is referenced or the loop is held open.
  func poll(wait: Bool)

  /// From any thread or signal handler: makes a waiting `poll` return, or the next one not wait.
  func interrupt()

  /// Starts a one-shot timer that fires at `deadline` (CLOCK_MONOTONIC ns), never earlier.
  /// `timer.fire` must be set, and `timer.armed` be true only if it is (see `evg_timer_init`).
  /// An armed timer moves to the new deadline.
  func start(_ timer: UnsafeMutablePointer<evg_timer>, at deadline: UInt64)

  /// No-op when not armed.
  func stop(_ timer: UnsafeMutablePointer<evg_timer>)

  /// Stops those of the armed timers that are over.
  func stopTimers(where isOver: (UnsafeMutablePointer<evg_timer>) -> Bool)

  /// Starts a descriptor watch, made with `evg_io_init`, which fires in each pass in which the
  /// descriptor is ready, until it is stopped. The descriptor has been checked
  /// by the caller once (see ``checkDescriptor(_:)``).
  func start(_ io: UnsafeMutablePointer<evg_io>)

  /// No-op when not active.
  func stop(_ io: UnsafeMutablePointer<evg_io>)

  /// Instead of a stop, where the watch will soon be started again: it is not referenced, and if it
  /// fires meanwhile it is stopped and nobody is told.
  func rest(_ io: UnsafeMutablePointer<evg_io>)

  /// The number `fd` is about to be closed, or stands for another file now. Watches of it that are
  /// active end, and fire with `has_failed`. The next one reaches the kernel whatever the loop
  /// remembers of the old file.
  func forget(descriptor fd: Int32)

  /// A descriptor watch of `fd`, which others may close without a word, begins or ends: before
  /// libev looks at it, it is made sure that the descriptor is open. If not, it is forgotten.
  func noteWatch(of fd: Int32, begins: Bool)

  /// How many referenced watchers, timers and descriptor watches are active. Does not count
  /// ``holdOpen(_:)``.
  var referenceCount: Int { get }

  /// While on, a waiting poll blocks although nothing is referenced, so that ``interrupt()`` can
  /// end it. Saying the same twice changes nothing.
  func holdOpen(_ on: Bool)

  /// Stops everything and frees the loop. Does nothing the second time.
  func destroy()
}
