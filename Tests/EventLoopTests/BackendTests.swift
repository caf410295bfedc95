// Evergreen: tests of the choice of a backend
// SPDX-License-Identifier: MIT

import EventLoop
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct BackendTests {
  @Test(arguments: Backend.available)
  func explicitBackendIsUsed(_ backend: Backend) throws {
    try withLoop(backend) { loop in
      #expect(loop.backend == backend)
    }
    #expect(try Backend(named: backend.name.uppercased()) == backend)
  }

  @Test func recommendedOnesAreAvailable() {
    #expect(!Backend.recommended.isEmpty)
    #expect(Set(Backend.recommended).isSubset(of: Backend.available))
    #expect(Backend.available.contains(.select))
  }

  #if os(Linux)
  @Test func linuxHasEpollFirst() {
    #expect(Backend.available == [.epoll, .poll, .select])
    #expect(Backend.recommended.first == .epoll)
  }

  @Test func unavailableBackendIsNamed() throws {
    let error = #expect(throws: LoopError.self) { try Loop(backend: .kqueue) }
    #expect(error?.kind == .unavailableBackend)
    #expect(error?.description.contains("'kqueue'") == true)
    #expect(error?.description.contains("available: epoll, poll, select") == true)
  }

  @Test func unavailableBackendInTheEnvironmentIsSkipped() throws {
    #expect(try Backend.preferred(by: "kqueue,poll") == [.poll])
    #expect(try Loop(backend: nil, setting: "kqueue, poll").backend == .poll)
    #expect(throws: LoopError.self) { try Loop(backend: nil, setting: "kqueue") }
  }
  #endif

  @Test(arguments: Backend.available)
  func environmentOverridesTheDefault(_ backend: Backend) throws {
    #expect(try Loop(backend: nil, setting: backend.name).backend == backend)
  }

  @Test func environmentDoesNotOverrideAnExplicitBackend() throws {
    #expect(try Loop(backend: .poll, setting: "select").backend == .poll)
    #expect(try Loop(backend: .poll, setting: "nonsense").backend == .poll)
  }

  @Test func emptySettingMeansNothing() throws {
    #expect(try Backend.preferred(by: nil) == [])
    #expect(try Backend.preferred(by: "") == [])
    #expect(try Backend.preferred(by: " ,") == [])
  }

  @Test func unknownBackendIsNamed() throws {
    let error = #expect(throws: LoopError.self) { try Loop(backend: nil, setting: "epol") }
    #expect(error?.kind == .unknownBackend)
    #expect(error?.description.hasPrefix("EVERGREEN_BACKEND: ") == true)
    #expect(error?.description.contains("'epol'") == true)
    #expect(error?.description.contains("available: ") == true)
    #expect(throws: LoopError.self) { try Backend(named: "") }
  }

  @Test func variableIsRead() async {
    await #expect(processExitsWith: .success) {
      setenv("EVERGREEN_BACKEND", "poll", 1)
      let used = try Loop().backend
      setenv("EVERGREEN_BACKEND", "abacus", 1)
      let failure = #expect(throws: LoopError.self) { try Loop() }
      exit(used == .poll && failure?.kind == .unknownBackend ? 0 : 1)
    }
  }
}
