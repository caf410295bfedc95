// Evergreen: the child of a fork.
// SPDX-License-Identifier: MIT
//
// In the child only the thread that forked goes on, and of its greenlets only the one that forked:
// the others would do twice what they are doing, on the same sockets. What that takes, before
// `fork` returns in the child:
//
// 1. The contexts of the others are marked as lost (`evg_lose_others`). Wait lists pass them over,
//    so no permit and no item goes to one of them.
// 2. What they had running in the loop is stopped; what one left active would keep the hub from
//    seeing that nothing is left to do. The loop itself makes its kernel objects anew.
// 3. They have ended, with ``LostInFork``. Their stacks stay as they are: to unwind them would run
//    code that puts an end to what the parent is doing.
// 4. Mail that was under way is the parent's. Threads do not exist here: thread pools start new
//    ones when there is work, and the watchdog when the hub first runs.
//
// What the library guards with locks is whole, see `CLocks.h`.

import CGreenlet
import CLibev
import CLocks
import EventLoop
import EvergreenBase
import Greenlets

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension Hub {
  static func followForks() {
    evg_on_fork { Hub.currentIfAny?.keepForker() }
  }

  func keepForker() {
    let forker = AnyGreenlet.currentIfAny  // none if a callback on the hub's own stack forked
    self.forker = forker
    evg_lose_others()
    loop.stopTimers { isLeft($0) }
    evg_contexts(
      { context, _ in
        if context.pointee.state == EVG_LOST { Hub.currentIfAny?.stopWait(of: context) }
      }, nil)
    for poll in polls.values { poll.followFork() }
    for greenlet in lostGreenlets { greenlet.lose() }
    externalWakers = signalHandlers.values.count { $0.isWaker } + (evg_is_adopting() ? 1 : 0)
    ownTimers = backgroundTimers.count
    mail.followFork()
    // Not before the hub runs: many a child only becomes another program.
    if watchdog != nil { mail.post { Watchdog.followFork() } }
  }

  /// Whether a timer is of a greenlet that stayed in the parent. Delayed starts are stopped by
  /// their greenlets.
  private func isLeft(_ timer: UnsafeMutablePointer<evg_timer>) -> Bool {
    guard let context = timer.pointee.context else { return false }
    if timer.calls(wakeContext) {
      return context.assumingMemoryBound(to: evg_context.self).pointee.state == EVG_LOST
    }
    if timer.calls(blockTimeoutFired) {
      let record = context.assumingMemoryBound(to: TimeoutRecord.self)
      return record.pointee.greenlet.takeUnretainedValue() !== forker
    }
    if timer.calls(timeoutFired) {
      return !Unmanaged<Timeout>.fromOpaque(context).takeUnretainedValue().belongs(to: forker)
    }
    return false
  }

  private func stopWait(of context: UnsafeMutablePointer<evg_context>) {
    guard let reason = WaitReason(of: context) else { return }
    context.pointee.wait_text = nil
    if let io = reason.io {
      stop(io)
      io.pointee.context = nil
    }
  }

  private var lostGreenlets: [AnyGreenlet] {
    final class Found { var greenlets: [AnyGreenlet] = [] }
    let found = Found()
    evg_contexts(
      { context, argument in
        guard context.pointee.state == EVG_LOST, !context.pointee.is_raw,
          let owner = context.pointee.owner
        else { return }
        Unmanaged<Found>.fromOpaque(argument!).takeUnretainedValue().greenlets.append(
          Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue())
      }, Unmanaged.passUnretained(found).toOpaque())
    return found.greenlets
  }

  /// Who gets ``LoopExit``: the main greenlet; where that stayed in the parent, the one that forked.
  var last: AnyGreenlet? { main.isLost ? forker : main }

  /// In the child of a fork, when nothing is left to do and the greenlet that forked has ended:
  /// the main greenlet, whose end would be the program's, is not there.
  func endProcess() -> Never {
    exit(forker?.isSuccessful ?? true ? EXIT_SUCCESS : EXIT_FAILURE)
  }
}

extension UnsafeMutablePointer<evg_timer> {
  func calls(
    _ function: @convention(c) (UnsafeMutablePointer<evg_timer>) -> Void
  ) -> Bool {
    unsafeBitCast(pointee.fire, to: UInt.self) == unsafeBitCast(function, to: UInt.self)
  }
}

extension AnyGreenlet {
  /// Whether it stayed in the parent of this process.
  final var isLost: Bool { phase == .finished && error is LostInFork }

  /// In the child: it has ended, as far as anybody here can tell. Nothing that it holds is given
  /// back, and links do not run.
  fileprivate final func lose() {
    context = nil
    if phase == .finished { return }
    phase = .finished
    keepError(LostInFork(greenlet: descriptionWithOrigin))  // over its body, if that is there still
    joiners = WaitList()
    guard let extras else { return }
    extras.delay?.cancel()
    abandon(extras)
    let fresh = Extras()
    fresh.name = extras.name
    self.extras = fresh
    for link in extras.links where link.isRaw { try? link.call(self) }
  }
}

/// In the child of a fork: keeps for ever what is the parent's, because its end might do something.
package func abandon(_ value: Any) {
  abandoned.withLock { $0.append(value) }
}

private let abandoned = Guarded<[Any]>([])
