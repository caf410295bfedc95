// Evergreen: which sanitizer watches this process.
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

package enum Sanitizer {
  private static func has(_ symbol: String) -> Bool { dlsym(nil, symbol) != nil }
  package static var address: Bool { has("__asan_init") }
  package static var thread: Bool { has("__tsan_init") }
  package static var any: Bool { address || thread }
}
