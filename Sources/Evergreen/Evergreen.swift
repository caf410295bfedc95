// Evergreen: the umbrella; re-exports, nothing else.
// SPDX-License-Identifier: MIT

@_exported public import EventLoop
@_exported public import EvergreenConcurrency
@_exported public import EvergreenHub
@_exported public import EvergreenNet
@_exported public import EvergreenSync
@_exported public import Greenlets
