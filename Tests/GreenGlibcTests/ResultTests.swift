// Evergreen: green calls answer what libc's own answer, errors too.
// SPDX-License-Identifier: MIT

import EvergreenHub
import EvergreenTesting
import GreenGlibc
import Testing

/// Each story is told on a thread without a hub, where its calls are libc's own, and in a greenlet.
@Suite(.timeLimit(.minutes(2)))
struct ResultTests {
  struct Story: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let tell: @Sendable () -> [String]
  }

  static let stories: [Story] = [
    Story(testDescription: "no descriptor") {
      var byte: UInt8 = 0
      var vector = iovec()
      return [
        told("read", read(-1, &byte, 1)), told("write", write(-1, &byte, 1)),
        told("readv", readv(-1, &vector, 1)), told("writev", writev(-1, &vector, 1)),
        told("recv", recv(-1, &byte, 1, 0)), told("send", send(-1, &byte, 1, 0)),
        told("accept", accept(-1, nil, nil)), told("fcntl", fcntl(-1, F_GETFL)),
        told("flock", flock(-1, LOCK_EX)), told("close", close(-1)), told("dup2", dup2(-1, 5)),
        told("epoll_wait", epoll_wait(-1, nil, 1, -1)),
      ]
    },
    Story(testDescription: "no socket") {
      let file = makeFile()
      defer { close(file) }
      var byte: UInt8 = 1
      return [
        told("recv", recv(file, &byte, 1, 0)), told("send", send(file, &byte, 1, 0)),
        told("write", write(file, &byte, 1)), told("read", read(file, &byte, 1)),
        told("accept4", accept4(file, nil, nil, 0)),
      ]
    },
    Story(testDescription: "non-blocking") {
      let (one, other) = (try? makePair()) ?? (-1, -1)
      defer {
        close(one)
        close(other)
      }
      var byte: UInt8 = 0
      let flags = fcntl(one, F_SETFL, fcntl(one, F_GETFL) | O_NONBLOCK)
      return [
        "\(flags)", told("read", read(one, &byte, 1)), told("recv", recv(one, &byte, 1, 0)),
        told("recv at once", recv(other, &byte, 1, Int32(MSG_DONTWAIT))),
      ]
    },
    Story(testDescription: "a limit of the socket's own") {
      let (one, other) = (try? makePair()) ?? (-1, -1)
      defer {
        close(one)
        close(other)
      }
      var limit = timeval(tv_sec: 0, tv_usec: 20_000)
      let size = socklen_t(MemoryLayout<timeval>.size)
      let set = setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
      var byte: UInt8 = 0
      return ["\(set)", told("recv", recv(one, &byte, 1, 0)), told("read", read(one, &byte, 1))]
    },
    Story(testDescription: "the other end is gone") {
      let (one, other) = (try? makePair()) ?? (-1, -1)
      close(other)
      defer { close(one) }
      var byte: UInt8 = 0
      let quietly = Int32(MSG_NOSIGNAL)
      return [told("recv", recv(one, &byte, 1, 0)), told("send", send(one, &byte, 1, quietly))]
    },
    Story(testDescription: "nobody listens") {
      guard var (port, address) = try? makeBound(streams) else { return [] }
      close(port)
      let client = socket(AF_INET, streams, 0)
      defer { close(client) }
      let size = socklen_t(MemoryLayout<sockaddr_in>.size)
      return [told("connect", withSockaddr(&address) { connect(client, $0, size) })]
    },
    Story(testDescription: "time") {
      var wrong = timespec(tv_sec: 0, tv_nsec: 1_000_000_000)
      var rest = timespec(tv_sec: 7, tv_nsec: 7)
      var short = timespec(tv_sec: 0, tv_nsec: 1000)
      var none = timeval(tv_sec: 0, tv_usec: 0)
      var some = timeval(tv_sec: 0, tv_usec: 10_000)
      return [
        told("nanosleep", nanosleep(&wrong, nil)), told("nanosleep", nanosleep(&short, &rest)),
        "\(rest)", "\(clock_nanosleep(CLOCK_MONOTONIC, 0, &wrong, nil))", "\(sleep(0))",
        told("usleep", usleep(10)), told("poll", poll(nil, 0, 5)),
        told("select", select(0, nil, nil, nil, &none)),
        told("select", select(0, nil, nil, nil, &some)), "\(some)",
        told("select", select(-1, nil, nil, nil, nil)),
      ]
    },
    Story(testDescription: "names") {
      var found: UnsafeMutablePointer<addrinfo>?
      let codes = [
        getaddrinfo("no such host", nil, nil, &found),
        getaddrinfo("localhost", "no such service", nil, &found),
        getaddrinfo(nil, nil, nil, &found),
        getaddrinfo("127.0.0.1", "80", nil, &found),
      ]
      freeaddrinfo(found)
      return codes.map { String(cString: gai_strerror($0)) }
        + ["\(gethostbyname("no such host") == nil)", "\(gethostbyname("localhost") == nil)"]
    },
    Story(testDescription: "no child") {
      var status: Int32 = 7
      return [
        told("waitpid", waitpid(getpid(), &status, 0)), told("wait4", wait4(1, &status, 0, nil)),
        told("waitid", waitid(oneProcess, id_t(getpid()), nil, WEXITED)),
        told("waitpid", waitpid(1, &status, 1 << 20)), "\(status)", told("system", system(nil)),
      ]
    },
    Story(testDescription: "locks") {
      let file = makeFile()
      let other = open("/proc/self/fd/\(file)", O_RDWR)
      defer {
        close(file)
        close(other)
      }
      return [
        told("flock", flock(file, LOCK_EX)), told("flock", flock(other, LOCK_EX | LOCK_NB)),
        told("flock", flock(file, LOCK_UN)), told("flock", flock(other, LOCK_EX)),
        told("lockf", lockf(file, F_LOCK, 0)), told("lockf", lockf(file, F_ULOCK, 0)),
        told("lockf", lockf(file, 99, 0)),
      ]
    },
  ]

  @Test(arguments: stories)
  func answersAreLibcsOwn(_ story: Story) async throws {
    let expected = await onThread(story.tell)
    let actual = try await runGreen { story.tell() }
    #expect(actual == expected)
    #expect(!expected.isEmpty)
  }

  @Test func successLeavesErrnoAlone() async throws {
    try await runGreen {
      let (reading, writing) = try makePipe()
      var byte: UInt8 = 0
      let (error, turns) = try counting(while: { write(writing, "x", 1) }) {
        errno = 4711
        #expect(read(reading, &byte, 1) == 1)
        usleep(1000)
        return errno
      }
      #expect(error == 4711)
      #expect(turns > 0)
      close(reading)
      close(writing)
    }
  }

  @Test func functionsCanBePassedOn() async throws {
    try await runGreen {
      let pause: @convention(c) (useconds_t) -> Int32 = usleep
      let (result, turns) = try counting { pause(10_000) }
      #expect(result == 0)
      #expect(turns > 0)
    }
  }
}
