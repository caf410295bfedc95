// Evergreen: what is to be called when a greenlet has ended.
// SPDX-License-Identifier: MIT

import Greenlets

/// A call that a greenlet's end brings about; hold it to take it back.
public final class Link {
  let isRaw: Bool
  let call: (AnyGreenlet) throws -> Void
  var isTakenBack = false

  init(isRaw: Bool, _ call: @escaping (AnyGreenlet) throws -> Void) {
    self.isRaw = isRaw
    self.call = call
  }
}

extension AnyGreenlet {
  /// Calls `body` when this greenlet has ended, in a greenlet of its own, so it may block.
  ///
  /// Links run in the order in which they were added, once each; one added after the end runs
  /// soon. An error in one is reported and does not keep the others from running.
  ///
  /// > Switch point: No.
  ///
  /// > gevent: `Greenlet.link(callback)`.
  @discardableResult
  public func link(_ body: @escaping (AnyGreenlet) throws -> Void) -> Link {
    add(Link(isRaw: false, body))
  }

  /// Calls `body` if this greenlet returns, or is killed.
  ///
  /// > gevent: `Greenlet.link_value(callback)`.
  @discardableResult
  public func linkSuccess(_ body: @escaping (AnyGreenlet) throws -> Void) -> Link {
    link { if $0.isSuccessful { try body($0) } }
  }

  /// Calls `body` if this greenlet fails.
  ///
  /// > gevent: `Greenlet.link_exception(callback)`.
  @discardableResult
  public func linkFailure(_ body: @escaping (AnyGreenlet) throws -> Void) -> Link {
    link { if !$0.isSuccessful { try body($0) } }
  }

  /// Takes a link back. Nothing happens if it has run already.
  ///
  /// > gevent: `Greenlet.unlink(callback)`.
  public func unlink(_ link: Link) {
    link.isTakenBack = true
    extras?.links.removeAll { $0 === link }
  }

  /// Called at the very end, by whoever runs then. Must neither block nor throw.
  package func rawLink(_ body: @escaping () -> Void) -> Link {
    add(Link(isRaw: true) { _ in body() })
  }

  private func add(_ link: Link) -> Link {
    if phase != .finished { checkIsOnItsHub() }
    ownExtras.links.append(link)
    if phase == .finished { runLinks() }
    return link
  }

  /// Each once, also if one of them adds another.
  final func runRawLinks() {
    guard let extras, !extras.links.isEmpty else { return }
    let links = extras.links
    extras.links = []
    for link in links where link.isRaw && !link.isTakenBack { try? link.call(self) }
    let others = links.filter { !$0.isRaw && !$0.isTakenBack }
    if !others.isEmpty { extras.links = others + extras.links }
  }

  func runLinks() {
    runRawLinks()
    let extras = ownExtras
    guard !extras.links.isEmpty, !extras.linksAreRunning else { return }
    extras.linksAreRunning = true
    spawn { [self] in
      while !extras.links.isEmpty {
        let links = extras.links
        extras.links = []
        for link in links {
          let runner = spawn { if !link.isTakenBack { try link.call(self) } }
          runner.name = "link of \(name)"
        }
      }
      extras.linksAreRunning = false
    }
  }
}
