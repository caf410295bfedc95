// Evergreen: the loop as the hub sees it
// SPDX-License-Identifier: MIT

package import CLibev
import EvergreenBase

// The hottest paths of the project. Each is a load of `state`, a `let`, and C that is inlined here:
// no closure, no reference counting, no allocation, no exclusivity check.
extension Loop: LoopInterface {
  package func readClock() -> UInt64 {
    evg_read_clock()
  }

  package func poll(wait: Bool) {
    require(state.pointee.raw != nil, "this loop has been destroyed")
    evg_poll(state, wait)
  }

  package func interrupt() {
    evg_interrupt(state)
  }

  package func start(_ timer: UnsafeMutablePointer<evg_timer>, at deadline: UInt64) {
    require(state.pointee.raw != nil, "this loop has been destroyed")
    evg_timer_start(state, timer, deadline)
  }

  package func stop(_ timer: UnsafeMutablePointer<evg_timer>) {
    evg_timer_stop(state, timer)
  }

  package func stopTimers(where isOver: (UnsafeMutablePointer<evg_timer>) -> Bool) {
    guard state.pointee.raw != nil else { return }
    withoutActuallyEscaping(isOver) { isOver in
      withUnsafePointer(to: isOver) { isOver in
        evg_timers_stop(
          state,
          { timer, isOver in
            isOver!.load(as: ((UnsafeMutablePointer<evg_timer>) -> Bool).self)(timer)
          }, UnsafeRawPointer(isOver))
      }
    }
  }

  package func start(_ io: UnsafeMutablePointer<evg_io>) {
    require(state.pointee.raw != nil, "this loop has been destroyed")
    evg_io_start(state, io)
  }

  package func stop(_ io: UnsafeMutablePointer<evg_io>) {
    evg_io_stop(state, io)
  }

  package func rest(_ io: UnsafeMutablePointer<evg_io>) {
    evg_io_rest(state, io)
  }

  package func forget(descriptor fd: Int32) {
    evg_forget_descriptor(state, fd)
  }

  package func noteWatch(of fd: Int32, begins: Bool) {
    core.noteWatch(of: fd, begins: begins)
  }

  package var referenceCount: Int {
    Int(state.pointee.references)
  }

  package func holdOpen(_ on: Bool) {
    guard state.pointee.raw != nil else { return }
    evg_hold(state, on)
  }
}
