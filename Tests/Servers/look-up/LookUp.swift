// SPDX-License-Identifier: MIT
//
// NamesTests runs this where the machine's server of names is a dnsmasq of the test's own, which asks
// the slow one here. It prints what it has seen.

import CCurl
import Evergreen
import EvergreenMonkey
import EvergreenTesting
import Glibc

@main struct LookUp {
  static func main() async {
    let arguments = CommandLine.arguments
    let names = Int32(arguments[2])!  // dnsmasq
    // What the start of this program opens meanwhile is none of the scene's.
    unsetenv("EVERGREEN_SERIAL_TESTS")
    signal(SIGPIPE, SIG_IGN)
    MonkeyPatch.install(.all)
    do {
      switch arguments[1] {
      case "at-once": try await runGreen { try atOnce() }
      case "death": try await runGreen { try death(of: names) }
      case "kill": try await runGreen { try killing() }
      case "timeout": try await runGreen { try timingOut() }
      case "curl": try await runGreen { try timingOutInCurl() }
      default: fatalError(arguments[1])
      }
      fflush(nil)
      exit(0)
    } catch {
      print("failed: \(error)")
      fflush(nil)
      exit(1)
    }
  }
}

/// A server of names that answers when it is told. `hostN.slow.test` is 10.0.0.N.
final class SlowNames {
  private var asked: Set<Int> = []
  var questions: Int { asked.count }
  let gate = Event()
  private var server: DatagramServer!

  init() throws {
    server = try DatagramServer("127.0.0.1:5300") { [unowned self] server, question, sender in
      asked.insert(number(in: question))
      try gate.wait()
      try server.send(answer(to: question), to: sender)
    }
    try server.start()
  }

  private func number(in question: [UInt8]) -> Int {
    let label = String(decoding: question[13..<(13 + Int(question[12]))], as: UTF8.self)
    return Int(label.drop { !$0.isNumber }) ?? 0
  }

  private func answer(to question: [UInt8]) -> [UInt8] {
    let end = question[12...].firstIndex(of: 0)! + 5
    var answer = Array(question[..<end])
    answer[2] = 0x84 | question[2] & 1
    answer[3] = 0x80
    answer.replaceSubrange(6..<12, with: [0, 1, 0, 0, 0, 0])
    return answer + [
      0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, UInt8(number(in: question)),
    ]
  }

  func until(_ count: Int) throws {
    while questions < count { try sleep(for: .milliseconds(10)) }
  }

  func stop() throws { try server.stop(timeout: .zero) }
}

/// The first address of a host, or what is wrong.
func address(of host: String) -> String {
  var hints = addrinfo()
  hints.ai_family = AF_INET
  hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
  var found: UnsafeMutablePointer<addrinfo>?
  let code = getaddrinfo(host, nil, &hints, &found)
  guard code == 0, let found else {
    return code == EAI_SYSTEM ? "EAI_SYSTEM \(errno)" : String(cString: gai_strerror(code))
  }
  defer { freeaddrinfo(found) }
  var text = [CChar](repeating: 0, count: 64)
  getnameinfo(
    found.pointee.ai_addr, found.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0,
    NI_NUMERICHOST)
  return text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
}

func atOnce() throws {
  Hub.current.resolver = ThreadPoolResolver(pool: ThreadPool(maxThreads: 50))
  let names = try SlowNames()
  defer { try? names.stop() }
  let greenlets = (1...50).map { number in spawn { address(of: "host\(number).slow.test") } }
  try withTimeout(.seconds(20)) { try names.until(50) }
  print("at once: \(names.questions)")
  names.gate.set()
  let answers = try greenlets.map { try $0.get(timeout: .seconds(20)) }
  print("right: \(answers == (1...50).map { "10.0.0.\($0)" })")
  // These are libc's own threads and memory, too.
  let entries = (1...10).map { number in
    spawn { gethostbyname("host\(number).slow.test").map { $0.pointee.h_length } }
  }
  print("gethostbyname: \(try entries.map { try $0.get() ?? 0 } == Array(repeating: 4, count: 10))")
}

func death(of server: pid_t) throws {
  let names = try SlowNames()
  defer { try? names.stop() }
  let greenlets = (1...10).map { number in spawn { address(of: "host\(number).slow.test") } }
  try withTimeout(.seconds(20)) { try names.until(10) }
  var ticks = 0
  let ticker = spawn {
    while true {
      try sleep(for: .milliseconds(10))
      ticks += 1
    }
  }
  kill(server, SIGKILL)
  let answers = try greenlets.map { try $0.get(timeout: .seconds(30)) }
  print("errors: \(Set(answers).sorted())")
  print("others ran: \(ticks > 10)")
  try ticker.kill()
}

func killing() throws {
  let names = try SlowNames()
  defer { try? names.stop() }
  var answer = ""
  let victim = spawn { answer = address(of: "host1.slow.test") }
  try withTimeout(.seconds(20)) { try names.until(1) }
  let time = try ContinuousClock().measure { try victim.kill() }
  print("killed: \(victim.error is GreenletExit) \(answer == "EAI_SYSTEM \(ECANCELED)")")
  print("at once: \(time < .seconds(1))")
  names.gate.set()
  print("then: \(address(of: "host2.slow.test"))")
}

func timingOut() throws {
  let names = try SlowNames()
  defer { try? names.stop() }
  var answer = ""
  let time = ContinuousClock().measure {
    do {
      try withTimeout(.seconds(1)) { answer = address(of: "host1.slow.test") }
      print("no error")
    } catch {
      print("error: \(type(of: error)) \(answer == "EAI_SYSTEM \(ETIMEDOUT)")")
    }
  }
  print("in time: \(time >= .seconds(1) && time < .milliseconds(2500))")
  names.gate.set()
  print("then: \(address(of: "host2.slow.test"))")
}

/// libcurl looks names up in a thread of its own, and polls meanwhile.
func timingOutInCurl() throws {
  let names = try SlowNames()
  defer { try? names.stop() }
  let handle = curl_easy_init()!
  defer { curl_easy_cleanup(handle) }
  curl_easy_set_long(handle, CURLOPT_NOSIGNAL, 1)
  curl_easy_set_long(handle, CURLOPT_IPRESOLVE, Int(CURL_IPRESOLVE_V4))
  curl_easy_set_string(handle, CURLOPT_URL, "http://host1.slow.test/")
  var code = CURLE_OK
  var before = timespec()
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before)
  var ticks = 0
  let ticker = spawn {
    while true {
      try sleep(for: .milliseconds(10))
      ticks += 1
    }
  }
  do {
    try withTimeout(.seconds(1)) { code = curl_easy_perform(handle) }
    print("no error")
  } catch {
    print("error: \(type(of: error)) \(code != CURLE_OK)")
  }
  print("others ran: \(ticks > 100)")
  try ticker.kill()
  var after = timespec()
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after)
  let seconds = after.tv_sec - before.tv_sec
  print("idle meanwhile: \(seconds < 1)")
}
