// Evergreen: producers and consumers over a bounded queue, in a group that ends as a whole.
// SPDX-License-Identifier: MIT

import ArgumentParser
import Evergreen
import Glibc

/// What a consumer cannot digest.
struct Indigestible: Error, CustomStringConvertible {
  let number: Int
  var description: String { "a consumer cannot digest \(number)" }
}

struct ProducerConsumer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "producer-consumer", abstract: "Passes numbers on through a bounded queue.",
    discussion: "If a consumer fails, all others end too, those that wait included.")

  @Option(help: "How many put numbers.") var producers = 3
  @Option(help: "How many take them.") var consumers = 2
  @Option(help: "How many numbers each producer puts.") var items = 1000
  @Option(help: "How many the queue holds.") var capacity = 10
  @Option(help: "The number at which a consumer fails.") var poison: Int?

  func validate() throws {
    for (name, value) in [
      ("--producers", producers), ("--consumers", consumers), ("--items", items),
      ("--capacity", capacity),
    ] where !(1...1_000_000).contains(value) {
      throw ValidationError("\(name) must be between 1 and 1000000, not \(value)")
    }
  }

  func run() throws {
    let numbers = Queue<Int>(capacity: capacity)
    var most = 0
    let sums = try withGroup { group in
      let consuming = (0..<consumers).map { _ in group.spawn { try consume(numbers) } }
      let producing = (0..<producers).map { producer in
        group.spawn {
          for item in 0..<items {
            try numbers.put(producer * items + item)  // waits while the queue is full
            most = max(most, numbers.count)
          }
        }
      }
      try joinAll(producing)
      numbers.shutDown()  // consumers take what is left, and end
      return try consuming.map { try $0.get() }
    }
    print("\(producers) producers put \(producers * items) numbers")
    print(
      "\(consumers) consumers took \(sums.map(\.count).reduce(0, +)), of the sum "
        + "\(sums.map(\.sum).reduce(0, +))")
    print("the queue held \(most) at most")
  }

  func consume(_ numbers: Queue<Int>) throws -> (count: Int, sum: Int) {
    var count = 0
    var sum = 0
    for number in numbers {
      if number == poison { throw Indigestible(number: number) }
      count += 1
      sum += number
    }
    return (count, sum)
  }
}

do { try ProducerConsumer.parse().run() } catch {
  // As `ProducerConsumer.main()`, but without the usage: one line says what is wrong.
  let code = ProducerConsumer.exitCode(for: error)
  let text = ProducerConsumer.message(for: error) + "\n"
  write(code.isSuccess ? STDOUT_FILENO : STDERR_FILENO, text, text.utf8.count)
  ProducerConsumer.exit(withError: code)
}
