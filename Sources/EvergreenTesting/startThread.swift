// Evergreen: plain threads for tests.
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
package import Glibc
#else
package import Darwin
#endif

/// Starts a thread that the caller joins.
package func startThread(_ body: @escaping @Sendable () -> Void) -> pthread_t {
  final class Start {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  #if canImport(Darwin)
  var thread: pthread_t?
  #else
  var thread = pthread_t()
  #endif
  let result = pthread_create(
    &thread, nil,
    { argument in
      #if canImport(Darwin)
      Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
      #else
      Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue().body()
      #endif
      return nil
    }, Unmanaged.passRetained(Start(body)).toOpaque())
  precondition(result == 0)
  #if canImport(Darwin)
  return thread!
  #else
  return thread
  #endif
}
