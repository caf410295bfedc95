// Evergreen: fetching many URLs at once, by libcurl's easy interface, which blocks.
// SPDX-License-Identifier: MIT

import ArgumentParser
import CCurl
import Evergreen
import EvergreenMonkey
import Glibc

struct CurlMany: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "curl-many", abstract: "Fetches URLs, all at once, and prints what came of each.",
    discussion: "What cannot be fetched is said on standard error; then the status is 1.")

  @Argument(help: "What to fetch.") var urls: [String]
  @Option(help: "How many are fetched at a time.") var concurrency = 100
  @Option(help: "The longest fetch, in seconds.") var timeout = 30.0

  func validate() throws {
    guard (1...10_000).contains(concurrency) else {
      throw ValidationError("--concurrency must be between 1 and 10000, not \(concurrency)")
    }
    guard (0.001...86_400).contains(timeout) else {
      throw ValidationError("--timeout must be between 0.001 and 86400 seconds, not \(timeout)")
    }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)  // which libcurl then need not do for itself, see CURLOPT_NOSIGNAL
    MonkeyPatch.install(.all)  // all else is as it would be with threads

    curl_global_init(Int(CURL_GLOBAL_ALL))
    let pool = Pool(size: concurrency)
    var failures = 0
    for url in urls {
      try pool.spawn {
        defer { fflush(nil) }  // for whoever reads it through a pipe
        do {
          let (status, body) = try withTimeout(.seconds(timeout)) { try fetch(url) }
          print(status, body.count, url)
        } catch {
          failures += 1
          let text = "\(url): \(error)\n"
          write(STDERR_FILENO, text, text.utf8.count)
        }
      }
    }
    try pool.join()
    if failures > 0 { Self.exit(withError: ExitCode.failure) }
  }
}

/// What is at `url`, and the status with which it came.
func fetch(_ url: String) throws -> (status: Int, body: [UInt8]) {
  let handle = curl_easy_init()!
  defer { curl_easy_cleanup(handle) }
  curl_easy_set_long(handle, CURLOPT_NOSIGNAL, 1)
  curl_easy_set_long(handle, CURLOPT_FOLLOWLOCATION, 1)
  curl_easy_set_string(handle, CURLOPT_URL, url)
  let body = Body()
  curl_easy_set_write(
    handle,
    { bytes, size, count, body in
      Unmanaged<Body>.fromOpaque(body!).takeUnretainedValue().bytes +=
        UnsafeRawBufferPointer(start: bytes, count: size * count)
      return size * count
    }, Unmanaged.passUnretained(body).toOpaque())
  let code = withExtendedLifetime(body) { curl_easy_perform(handle) }
  guard code == CURLE_OK else { throw CurlError(code: code) }
  var status = 0
  curl_easy_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
  return (status, body.bytes)
}

/// What has come. A variable would be held in access while its greenlet waits.
final class Body {
  var bytes: [UInt8] = []
}

struct CurlError: Error, CustomStringConvertible {
  let code: CURLcode
  var description: String { String(cString: curl_easy_strerror(code)) }
}

do { try CurlMany.parse().run() } catch {
  // As `CurlMany.main()`, but without the usage: one line says what is wrong.
  let code = CurlMany.exitCode(for: error)
  let text = CurlMany.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  CurlMany.exit(withError: code)
}
