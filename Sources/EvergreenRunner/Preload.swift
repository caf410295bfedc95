// Evergreen: the library that the program is to load, and what it is told.
// SPDX-License-Identifier: MIT

#if os(Linux)
import Glibc

enum Preload {
  static let name = "libEvergreenPreload.so"

  /// The library beside this tool.
  static func library() throws(Refusal) -> String {
    guard let tool = realpath("/proc/self/exe", nil) else {
      throw Refusal("cannot find where this tool lies: \(String(cString: strerror(errno)))")
    }
    defer { free(tool) }
    let path = String(cString: tool)
    let directory = path[..<(path.lastIndex(of: "/") ?? path.startIndex)]
    let library = "\(directory)/\(name)"
    guard access(library, R_OK) == 0 else {
      throw Refusal(
        "\(library) is missing: build it with `swift build --product EvergreenPreload`, or copy it to "
          + "where this tool lies")
    }
    // The dynamic linker takes both for the end of a name.
    guard !library.contains(where: { $0 == " " || $0 == ":" }) else {
      throw Refusal(
        "\(library) cannot be preloaded, for its path has a blank or a colon: put the tool and the "
          + "library somewhere else")
    }
    return library
  }

  /// Other libraries stay first: sanitizers insist on it.
  static func prepare(_ library: String, _ settings: Settings) {
    let before = getenv("LD_PRELOAD").map { String(cString: $0) } ?? ""
    let isThere = before.split { $0 == ":" || $0 == " " }.contains { $0 == library }
    if !isThere { setenv("LD_PRELOAD", before.isEmpty ? library : "\(before):\(library)", 1) }
    if settings.families == Settings.allFamilies {
      unsetenv("EVERGREEN_RUN_FAMILIES")
    } else {
      setenv("EVERGREEN_RUN_FAMILIES", settings.families.joined(separator: ","), 1)
    }
    // This process is the program soon.
    for (variable, isOn) in [
      ("EVERGREEN_RUN_REPORT", settings.reports),
      ("EVERGREEN_RUN_THREADS", settings.hasGreenThreads),
    ] {
      if isOn { setenv(variable, "\(getpid())", 1) } else { unsetenv(variable) }
    }
  }
}
#endif
