// Evergreen: what an ELF file says about itself.
// SPDX-License-Identifier: MIT

#if os(Linux)
import Glibc

/// The bytes of a file. What lies outside of them is zero.
struct Bytes {
  private let descriptor: Int32

  init(of path: String, _ name: String) throws(Refusal) {
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 {
      throw Refusal(
        "\(name): \(path) cannot be read, so nobody knows whether the patch works there: "
          + String(cString: strerror(errno)))
    }
  }

  func bytes(at offset: Int, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: max(0, count))
    guard offset >= 0, pread(descriptor, &bytes, bytes.count, offset) >= 0 else {
      return [UInt8](repeating: 0, count: max(0, count))
    }
    return bytes
  }

  func text(at offset: Int, count: Int) -> String {
    String(decoding: bytes(at: offset, count: count), as: UTF8.self)
  }

  func number(at offset: Int, size: Int) -> Int {
    bytes(at: offset, count: size).reversed().reduce(0) { $0 << 8 | Int($1) }
  }
}

/// A 64-bit little-endian ELF file: Swift has no other on Linux.
struct Executable {
  private let file: Bytes
  private let who: String

  init(_ file: Bytes, _ who: String) {
    self.file = file
    self.who = who
  }

  private static let interpreterSegment = 3
  private static let threadLocalSegment = 7

  #if arch(x86_64)
  private static let machine = 62
  private static let machineName = "x86_64"
  #else
  private static let machine = 183
  private static let machineName = "aarch64"
  #endif

  /// - Returns: What the user had better know.
  func check(_ settings: Settings) throws(Refusal) -> [String] {
    guard file.bytes(at: 0, count: 4) == [0x7f, 0x45, 0x4c, 0x46] else {
      throw Refusal("\(who) is no program: it is neither ELF nor a script with #!", status: 126)
    }
    guard file.number(at: 4, size: 1) == 2, file.number(at: 5, size: 1) == 1,
      file.number(at: 18, size: 2) == Executable.machine
    else {
      throw Refusal(
        "\(who) is for another architecture than this tool (64-bit \(Executable.machineName)), and "
          + "cannot load its library: it runs only without evergreen")
    }
    guard let linker = interpreter else {
      throw Refusal(
        "\(who) is linked statically, and calls no libc that could be patched: link it dynamically")
    }
    if linker.split(separator: "/").last?.hasPrefix("ld-musl") ?? false {
      throw Refusal(
        "\(who) is linked with musl (\(linker)), and the patch knows glibc alone: run one that is built "
          + "for glibc")
    }
    if settings.hasGreenThreads, hasThreadLocals {
      throw Refusal(
        "\(who) has variables of its own for each thread (__thread, thread_local), which greenlets would "
          + "share: run it without --threads")
    }
    return sections.contains(where: [".go.buildinfo", ".note.go.buildid"].contains)
      ? [
        "\(who) is written in Go, which makes its system calls itself: the patch sees only what it calls "
          + "through cgo"
      ] : []
  }

  /// The dynamic linker; `nil` if there is none.
  private var interpreter: String? {
    guard let entry = segments(Executable.interpreterSegment).first else { return nil }
    let length = min(file.number(at: entry + 32, size: 8), 4096)
    let text = file.text(at: file.number(at: entry + 8, size: 8), count: length)
    return String(text.prefix { $0 != "\0" })
  }

  private var hasThreadLocals: Bool {
    segments(Executable.threadLocalSegment).contains { file.number(at: $0 + 40, size: 8) > 0 }
  }

  /// Where those of a type are described.
  private func segments(_ type: Int) -> [Int] {
    let table = file.number(at: 32, size: 8), size = file.number(at: 54, size: 2)
    return (0..<file.number(at: 56, size: 2)).map { table + $0 * size }
      .filter { file.number(at: $0, size: 4) == type }
  }

  private var sections: [String] {
    let table = file.number(at: 40, size: 8), size = file.number(at: 58, size: 2)
    guard table > 0 else { return [] }
    let names = table + file.number(at: 62, size: 2) * size
    let strings = file.number(at: names + 24, size: 8)
    return (0..<file.number(at: 60, size: 2)).map { index in
      let place = strings + file.number(at: table + index * size, size: 4)
      return String(file.text(at: place, count: 64).prefix { $0 != "\0" })
    }
  }
}
#endif
