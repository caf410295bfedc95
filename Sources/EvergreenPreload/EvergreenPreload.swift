// Evergreen: the patch of libc for programs that were not written for it, as a library to preload.
// SPDX-License-Identifier: MIT
//
// What happens is in CPreload; this joins it with those who know how to wait.

import CPreload
import EvergreenHub
import GreenCalls

#if os(Linux)
@c(evg_preload_begin)
func beginPreload() { _ = GreenWaiting.isSet }

@c(evg_preload_spawn)
func spawnThread(_ thread: UnsafeMutableRawPointer, _ stackSize: Int) {
  let greenlet = spawn(stackSize: stackSize) { evg_green_thread_run(thread) }
  // Also if there was no memory for its stack, so that nobody waits for it in vain.
  _ = greenlet.rawLink { evg_green_thread_ended(thread) }
}
#endif
