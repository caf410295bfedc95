// Evergreen: what the greenlets of a hub are doing.
// SPDX-License-Identifier: MIT

import CGreenlet
import EventLoop
import EvergreenBase

extension Hub {
  /// Every unfinished greenlet, the main one first: what it waits for, since when, and where it
  /// was spawned.
  ///
  /// > gevent: `gevent.util.print_run_info`.
  public func report() -> String {
    let all = greenlets
    let now = readClock()
    let spawners = Dictionary(all.map { ($0.serial, $0) }, uniquingKeysWith: { first, _ in first })
    var lines = ["\(all.count) greenlets:"]
    for greenlet in all {
      var line = "  \(greenlet): \(greenlet.activity(at: now))"
      if greenlet.serial != 0 { line += ", spawned at \(greenlet.spawnedAt)" }
      if let spawner = spawners[greenlet.spawner], spawner !== greenlet {
        line += " by \(spawner)"
      }
      lines.append(line)
    }
    return lines.joined(separator: "\n")
  }

  /// The unfinished greenlets of this hub, the main one first.
  package var greenlets: [AnyGreenlet] { greenletsWithContexts.filter { !$0.isReady } }

  /// Those too that have ended and are still to leave: they were killed before they began, or their
  /// error is being handled.
  var greenletsWithContexts: [AnyGreenlet] {
    final class Found { var greenlets: [AnyGreenlet] = [] }
    let found = Found()
    evg_contexts(
      { context, argument in
        let found = Unmanaged<Found>.fromOpaque(argument!).takeUnretainedValue()
        guard let owner = context.pointee.owner, !context.pointee.is_raw,
          context.pointee.state != EVG_LOST
        else { return }
        found.greenlets.append(Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue())
      }, Unmanaged.passUnretained(found).toOpaque())
    return found.greenlets
  }

  /// Says that a greenlet failed; whatever the handler does, the hub goes on.
  package func reportError(_ error: any Error, of greenlet: AnyGreenlet) {
    do {
      try onError(greenlet, error)
    } catch let second {
      warn("\(greenlet) failed: \(error); and the hub's error handler failed: \(second)")
    }
  }

  static func stackUnavailable() -> StackUnavailable {
    let reason = Errno(rawValue: evg_stack_error()).description
    return StackUnavailable(
      description:
        "no memory for the stack of another greenlet: \(reason). On kernels before 6.13 each stack "
        + "takes two memory mappings: raise vm.max_map_count, or limit the greenlets with a Pool")
  }

  func installAccessReport() {
    evg_set_access_report { context, access, place, modifies in
      let owner = context.pointee.owner.map {
        Unmanaged<AnyGreenlet>.fromOpaque($0).takeUnretainedValue().description
      }
      warn(
        "\(owner ?? "the hub") parks while it \(modifies ? "modifies" : "reads") the variable at "
          + "\(access), an access begun in \(symbol(at: place)); another greenlet that touches it "
          + "meanwhile is a bug: copy out, switch, write back")
    }
  }
}

extension AnyGreenlet {
  func activity(at now: UInt64) -> String {
    if let waiting, let reason = WaitReason(of: waiting) {
      let since = waiting.pointee.wait_since
      let seconds = Double(now > since ? now - since : 0) / 1e9
      return "waits for \(reason), for \((seconds * 1000).rounded() / 1000) s"
    }
    switch phase {
    case .new: return "not started"
    case .delayed: return "waits for its start"
    case .scheduled: return "ready to start"
    case .finished: return "finished"
    case .running: break
    }
    guard let state = context?.pointee.state else { return "runs" }
    return switch Int(state) {
    case EVG_READY: "ready"
    case EVG_SUSPENDED: "switched away by hand"
    default: "runs"
    }
  }
}

/// `function in module + offset`, as much of it as is known.
func symbol(at address: UnsafeRawPointer) -> String {
  var offset: UInt = 0
  let module = evg_module_name(address, &offset).map { String(cString: $0) } ?? "?"
  let place = "\(module) + 0x\(String(offset, radix: 16))"
  guard let name = evg_function_name(address) else { return place }
  defer { name.deallocate() }
  return "\(String(cString: name)) (\(place))"
}
