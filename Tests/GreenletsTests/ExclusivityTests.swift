// Evergreen: tests of exclusive accesses that span a switch
// SPDX-License-Identifier: MIT

import CGreenlet
import EvergreenHub
import EvergreenTesting
import Greenlets
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.timeLimit(.minutes(1))) struct ExclusivityTests {
  final class Shared {
    var number = 0
    var other = 0
  }

  /// Parks inside an access to `number`.
  private static func park(in number: inout Int) {
    number += 1
    try? Greenlet.yield()
    number += 1
  }

  @inline(never) @_optimize(none)
  private static func parkAndChange(_ number: inout Int, _ shared: Shared) {
    try? Greenlet.yield()
    shared.number = 5
    number += 1
  }

  private static func parkByHand(in number: inout Int, _ main: RawGreenlet) {
    number += 1
    _ = try? main.switch()
    number += 1
  }

  private static func overlap() {
    Hub.withHub(loop: nil) { _ in
      let shared = Shared()
      let greenlets = [
        spawn { park(in: &shared.number) },
        spawn { park(in: &shared.number) },
      ]
      _ = try? joinAll(greenlets)
    }
  }

  private static func parkApart() {
    Hub.withHub(loop: nil) { _ in
      let shared = Shared()
      let greenlets = [
        spawn { park(in: &shared.number) },
        spawn { park(in: &shared.other) },
      ]
      _ = try? joinAll(greenlets)
      require(shared.number == 2 && shared.other == 2, "both written")
    }
  }

  #if DEBUG
  @Test func overlappingAccessesOfGreenletsTrap() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      ExclusivityTests.overlap()
    }
    let error = errorText(of: result)
    #expect(error.contains("imultaneous accesses"))
    if !Sanitizer.address { #expect(error.contains("parks while it modifies the variable")) }
  }

  @Test func overlappingAccessesOfRawGreenletsTrap() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      let main = RawGreenlet.current
      let shared = Shared()
      let child = RawGreenlet { _ in
        ExclusivityTests.parkByHand(in: &shared.number, main)
        return nil
      }
      try child.switch()
      shared.number += 1
    }
    #expect(errorText(of: result).contains("imultaneous accesses"))
  }

  /// The address sanitizer keeps the records of accesses elsewhere than on the stack.
  @Test(.enabled(if: !Sanitizer.address))
  func parkingInsideAnAccessWarnsOnceAPlace() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      ExclusivityTests.parkApart()
      ExclusivityTests.parkApart()
    }
    let lines = errorText(of: result).split(separator: "\n")
    let warnings = lines.filter { $0.contains("parks while it modifies the variable") }
    #expect(warnings.count == 2)
    #expect(warnings.allSatisfy { $0.contains("copy out, switch, write back") })
    #expect(warnings.first?.contains("evergreen: greenlet ") == true)
  }

  @Test func parkingOutsideAnyAccessDoesNotWarn() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      Hub.withHub(loop: nil) { _ in
        let shared = Shared()
        let greenlets = (0..<10).map { _ in
          spawn {
            for _ in 0..<10 {
              let copy = shared.number
              try Greenlet.yield()
              shared.number = copy + 1
            }
          }
        }
        _ = try? joinAll(greenlets)
      }
    }
    #expect(!errorText(of: result).contains("parks while"))
  }

  @Test func isolatedAccessesDoNotTrap() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      setenv("EVERGREEN_EXCLUSIVITY", "isolated", 1)
      ExclusivityTests.overlap()
      ExclusivityTests.parkInMany(200)
    }
    let error = errorText(of: result)
    #expect(!error.contains("imultaneous accesses"))
    #expect(!error.contains("parks while"))
  }
  #else
  @Test func overlappingAccessesOfGreenletsDoNotTrap() async {
    await #expect(processExitsWith: .success) { ExclusivityTests.overlap() }
  }

  @Test func sharedAccessesTrapWhereAskedFor() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      setenv("EVERGREEN_EXCLUSIVITY", "shared", 1)
      ExclusivityTests.overlap()
    }
    #expect(errorText(of: result).contains("imultaneous accesses"))
  }
  #endif

  /// Their accesses form lists through their stacks, which end in any order.
  @Test func manyGreenletsParkedInAccessesEndInAnyOrder() async {
    await #expect(processExitsWith: .success) {
      ExclusivityTests.parkInMany(1000)
    }
  }

  private static func parkInMany(_ count: Int) {
    Hub.withHub(loop: nil) { _ in
      func wait(_ number: inout Int, _ gate: Gate) {
        number += 1
        try? gate.wait()
        number += 1
      }
      let gates = (0..<count).map { _ in Gate() }
      let all = (0..<count).map { _ in Shared() }
      let greenlets = (0..<count).map { index in
        spawn(stackSize: 64 * 1024) { wait(&all[index].number, gates[index]) }
      }
      try? idle()
      for index in 0..<count { gates[index * 389 % count].open() }
      _ = try? joinAll(greenlets)
      require(all.allSatisfy { $0.number == 2 }, "all have written twice")
    }
  }

  /// An overlap within one greenlet is a bug wherever it runs.
  @Test func anOverlapWithinOneGreenletTraps() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      Hub.withHub(loop: nil) { _ in
        let shared = opaque(Shared())
        spawn { try Greenlet.yield() }
        _ = try? spawn { ExclusivityTests.parkAndChange(&shared.number, shared) }.get()
      }
    }
    #expect(errorText(of: result).contains("imultaneous accesses"))
  }
}
