// Evergreen: libc's look-ups and dnsmasq.
// SPDX-License-Identifier: MIT
//
// libc asks port 53 of the servers in /etc/resolv.conf and nobody else. So the other program,
// `look-up`, runs in a network and with files of its own, where dnsmasq has that port. Where the
// machine does not permit that, these tests are skipped.

import Evergreen
import Glibc
import Testing

private enum Names {
  static let programs = (unshare: find("unshare"), ip: find("ip"), server: find("dnsmasq"))
  static var areInstalled: Bool {
    programs.unshare != nil && programs.ip != nil && programs.server != nil
  }

  static var unsharing: [String] {
    [programs.unshare!, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
      + (geteuid() == 0 ? [] : ["--user", "--map-root-user"])
  }

  static let arePermitted: Bool = {
    guard areInstalled else { return false }
    let command = "mount --bind /etc/hosts /etc/hosts && ip link set lo up"
    guard let tool = try? launch(unsharing + ["sh", "-c", command], log: "/dev/null") else {
      return false
    }
    var status: Int32 = 0
    return waitpid(tool, &status, 0) == tool && status == 0
  }()

  /// What `look-up` prints.
  static func run(_ scene: String) throws -> [String] {
    let host = try Host()
    defer { host.stop() }
    return try host.run(scene)
  }

  /// The files of the place where it runs, and the script that makes it.
  private final class Host: Server {
    init() throws { try super.init("names") }

    func run(_ scene: String) throws -> [String] {
      // libc asks again after so many seconds: where nobody dies, a busy machine is to have time.
      let patience = scene == "death" ? 2 : 20
      let names = try write(
        "nameserver 127.0.0.1\noptions timeout:\(patience) attempts:2\n", to: "resolv")
      let order = try write("hosts: files dns\n", to: "nsswitch")
      let script = """
        set -e
        ip link set lo up
        mount --bind \(names) /etc/resolv.conf
        mount --bind \(order) /etc/nsswitch.conf
        \(programs.server!) --no-daemon --conf-file=/dev/null --port=53 --listen-address=127.0.0.1 \
          --bind-interfaces --no-resolv --no-hosts --cache-size=0 --server=127.0.0.1#5300 >&2 &
        for _ in $(seq 200); do grep -q ':0035 ' /proc/net/udp && break; sleep 0.05; done
        exec "$0" \(scene) $! >"$1"
        """
      let output = "\(directory)/output"
      do {
        try self.run(unsharing + ["sh", "-c", script, programDirectory + "look-up", output])
      } catch { throw ServerError(description: "\(error); \(text(of: output, last: 1000))") }
      return text(of: output, last: 10_000).split(separator: "\n").map(String.init)
    }
  }
}

extension Servers {
  @Suite(
    .enabled(if: Names.areInstalled, "dnsmasq, ip or unshare is not installed"),
    .enabled(if: Names.arePermitted, "this user may make no network of his own"))
  struct NamesTests {
    static let scenes = [
      ("at-once", ["at once: 50", "right: true", "gethostbyname: true"]),
      ("death", ["errors: [\"Temporary failure in name resolution\"]", "others ran: true"]),
      ("kill", ["killed: true true", "at once: true", "then: 10.0.0.2"]),
      ("timeout", ["error: Timeout true", "in time: true", "then: 10.0.0.2"]),
      ("curl", ["error: Timeout true", "others ran: true", "idle meanwhile: true"]),
    ]

    /// Fifty at once; the death of the server; a kill; a timeout; a timeout in libcurl, which looks
    /// names up on a thread of its own and polls meanwhile, and does not give up before that is through.
    @Test(.timeLimit(.minutes(2)), arguments: scenes)
    func looksUp(scene: String, lines: [String]) async throws {
      try await runPatched {
        let printed = try Names.run(scene)
        #expect(printed == lines)
      }
    }
  }
}
