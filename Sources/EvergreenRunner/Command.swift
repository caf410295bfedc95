// Evergreen: what the command line asks for.
// SPDX-License-Identifier: MIT

/// Why nothing is run. The status is a shell's: 127 if there is no such program, 126 if it cannot be
/// executed; 2 for what only this tool objects to.
struct Refusal: Error {
  let text: String
  let status: Int32

  init(_ text: String, status: Int32 = 2) {
    self.text = text
    self.status = status
  }
}

/// What the patch is told.
struct Settings {
  static let allFamilies = ["sockets", "dns", "time", "select", "process", "files"]

  var families = allFamilies
  var reports = false
  /// The program's threads are greenlets.
  var hasGreenThreads = false
}

enum Command {
  case help, usage
  case run(Settings, program: String, arguments: [String])

  static let helpText = """
    USAGE: evergreen run [--threads] [--report] [--only <families> | --no-<family> ...] [--] <program> [<argument> ...]

    Runs an existing, dynamically linked program, whose blocking calls of libc go through Evergreen's
    patch. The program takes this process's place, and notices nothing.

    OPTIONS:
      --threads           What the program makes with pthread_create is a greenlet, on one thread.
      --report            At the end, say on standard error what has waited, where and for how long.
      --only <families>   Patch these families of calls alone: \
    \(Settings.allFamilies.joined(separator: ",")).
      --no-<family>       Leave this family as it is, as in --no-dns.
      -h, --help          Show this.
    """

  init(parsing arguments: [String]) throws(Refusal) {
    var rest = arguments[...]
    guard let first = rest.popFirst() else {
      self = .usage
      return
    }
    switch first {
    case "-h", "--help", "help":
      self = .help
    case "run":
      self = try Command.run(parsing: rest)
    default:
      throw Refusal("there is no command '\(first)'; see evergreen --help")
    }
  }

  private static func run(parsing arguments: ArraySlice<String>) throws(Refusal) -> Command {
    var rest = arguments
    var settings = Settings()
    while let option = rest.first, option.hasPrefix("-") {
      rest.removeFirst()
      if option == "--" { break }
      switch option {
      case "-h", "--help":
        return .help
      case "--threads":
        settings.hasGreenThreads = true
      case "--report":
        settings.reports = true
      case "--only":
        guard let list = rest.popFirst() else {
          throw Refusal("--only needs families of calls behind it, as in --only sockets,dns")
        }
        settings.families = try families(in: list)
      case _ where option.hasPrefix("--only="):
        settings.families = try families(in: String(option.dropFirst("--only=".count)))
      case _ where option.hasPrefix("--no-"):
        let family = try families(in: String(option.dropFirst("--no-".count)))
        settings.families.removeAll { family.contains($0) }
      default:
        throw Refusal("there is no option '\(option)'; see evergreen --help")
      }
    }
    guard let program = rest.popFirst() else {
      throw Refusal("there is no program to run; see evergreen --help")
    }
    return .run(settings, program: program, arguments: Array(rest))
  }

  private static func families(in list: String) throws(Refusal) -> [String] {
    let names = list.split(separator: ",").map(String.init)
    for name in names where !Settings.allFamilies.contains(name) {
      throw Refusal(
        "there is no family of calls '\(name)'; there are "
          + Settings.allFamilies.joined(separator: ", "))
    }
    return names
  }
}
