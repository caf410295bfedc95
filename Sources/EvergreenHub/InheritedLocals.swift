// Evergreen: task locals that go to a greenlet of another hub.
// SPDX-License-Identifier: MIT

import CGreenlet

/// The task locals that were seen where it was made, for a greenlet of another thread, which inherits
/// them as those do that are spawned in place.
package final class InheritedLocals: @unchecked Sendable {
  // Unchecked: the values are Sendable, as those of all task locals, and one thread has it at a time.
  private var list: UnsafeMutableRawPointer?

  /// `nil` if none are bound.
  package init?() {
    guard evg_has_task_locals(), let list = evg_task_locals_copy() else { return nil }
    self.list = list
  }

  fileprivate func give(to context: UnsafeMutablePointer<evg_context>) {
    context.pointee.words.3 = list
    list = nil
  }

  deinit {
    // Nobody wanted them. What is bound here stands aside while they are dropped.
    let words = evg_thread_self().pointee.words
    guard let list, let task = words.1, let locals = words.3 else { return }
    let (running, bound) = (task.pointee, locals.pointee)
    (task.pointee, locals.pointee) = (nil, list)
    evg_task_locals_drop()
    (task.pointee, locals.pointee) = (running, bound)
  }
}

extension AnyGreenlet {
  /// Starts one that has not been, with task locals from elsewhere.
  package final func start(inheriting locals: InheritedLocals?) {
    locals?.give(to: makeContext())
    schedule()
  }
}
