// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

/// A floor of the house: a Swift target and the floors that it stands on.
func floor(_ name: String, on dependencies: Target.Dependency...) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(of name: String, _ others: Target.Dependency...) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: [.target(name: name), "EvergreenTesting"] + others,
    swiftSettings: strict)
}

func example(_ name: String) -> Target {
  .executableTarget(
    name: name,
    // The floors too: what an umbrella re-exports is not seen to change.
    dependencies: [
      "Evergreen", "EvergreenNet", "EvergreenConcurrency", "EvergreenSync", "EvergreenHub",
      "EventLoop", "Greenlets", "EvergreenBase",
      .product(name: "ArgumentParser", package: "swift-argument-parser"),
    ],
    path: "Examples/\(name)", swiftSettings: strict)
}

let package = Package(
  name: "evergreen",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "Evergreen", targets: ["Evergreen"]),
    .library(name: "EvergreenMonkey", targets: ["EvergreenMonkey"]),
    .library(name: "GreenGlibc", targets: ["GreenGlibc"]),
    .library(name: "GreenCalls", targets: ["GreenCalls"]),
    .library(name: "EvergreenTesting", targets: ["EvergreenTesting"]),
    // `evergreen run`, and what it has the dynamic linker load into the program.
    .executable(name: "evergreen", targets: ["EvergreenRunner"]),
    .library(name: "EvergreenPreload", type: .dynamic, targets: ["EvergreenPreload"]),
  ],
  dependencies: [
    // For the examples alone; a package that depends on this one does not fetch it.
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    .target(name: "CLocks"),
    .target(name: "CDescriptors"),
    .target(name: "CGreenlet", dependencies: ["CLocks"]),
    .target(
      name: "CLibev", dependencies: ["CLocks", "CDescriptors"],
      linkerSettings: [.linkedLibrary("ev")]),
    .target(name: "CSockets"),
    .target(name: "CGreenCalls", dependencies: ["CGreenlet", "CLocks", "CDescriptors"]),
    .target(name: "CMonkey", dependencies: ["CGreenCalls", "CGreenlet"]),
    .target(
      name: "CPreload",
      dependencies: [
        "CMonkey", "CGreenCalls", "CGreenlet", "CLibev", "CDescriptors", "CLocks",
      ]),
    floor("EvergreenBase", on: "CLocks"),
    floor("Greenlets", on: "CGreenlet", "EvergreenBase"),
    floor("EventLoop", on: "CLibev", "CLocks", "EvergreenBase"),
    floor(
      "EvergreenHub", on: "Greenlets", "CGreenlet", "EventLoop", "CLibev", "CLocks",
      "EvergreenBase"),
    floor(
      "EvergreenSync", on: "EvergreenHub", "EventLoop", "Greenlets", "CGreenlet", "CLocks",
      "EvergreenBase"),
    .target(name: "CConcurrency"),
    floor(
      "EvergreenConcurrency", on: "EvergreenSync", "EvergreenHub", "EventLoop", "Greenlets",
      "CGreenlet", "CLibev", "CLocks", "CConcurrency", "EvergreenBase"),
    floor(
      "EvergreenNet", on: "EvergreenConcurrency", "EvergreenSync", "EvergreenHub", "EventLoop",
      "CLibev", "CSockets", "Greenlets", "EvergreenBase"),
    floor(
      "GreenCalls", on: "CGreenCalls", "EvergreenNet", "EvergreenSync", "EvergreenHub",
      "EventLoop", "CLibev", "CGreenlet", "Greenlets", "EvergreenBase"),
    floor("GreenGlibc", on: "GreenCalls", "CGreenCalls"),
    floor(
      "EvergreenMonkey", on: "CMonkey", "CGreenCalls", "GreenCalls", "EvergreenHub",
      "EvergreenBase"),
    floor("EvergreenPreload", on: "CPreload", "GreenCalls", "EvergreenHub"),
    .executableTarget(name: "EvergreenRunner", swiftSettings: strict),
    floor(
      "Evergreen", on: "EvergreenNet", "EvergreenConcurrency", "EvergreenSync", "EvergreenHub",
      "EventLoop", "Greenlets", "EvergreenBase"),
    floor(
      "EvergreenTesting", on: "EvergreenNet", "EvergreenSync", "EvergreenHub", "EventLoop",
      "CGreenlet", "CLibev", "EvergreenBase"),

    example("chat-server"),
    example("echo-client"),
    example("echo-server"),
    example("mixed-async"),
    example("multi-core-echo"),
    example("ping-pong"),
    example("port-forwarder"),
    example("producer-consumer"),
    example("resolve-many"),
    example("udp-echo"),
    example("web-crawler"),

    tests(of: "EvergreenBase"),
    .target(name: "CxxExceptions", path: "Tests/CxxExceptions"),  // the only C++, for tests alone
    tests(of: "Greenlets", "CGreenlet", "CxxExceptions", "EvergreenHub", "EvergreenBase"),
    tests(of: "EventLoop", "CLibev", "EvergreenBase"),
    tests(of: "EvergreenHub", "EventLoop", "EvergreenSync", "Greenlets", "EvergreenBase"),
    tests(of: "EvergreenSync", "EvergreenHub", "Greenlets", "EvergreenBase"),
    .testTarget(
      name: "EvergreenTestingTests",
      dependencies: [
        "EvergreenTesting", "EvergreenNet", "EvergreenSync", "EvergreenHub", "Greenlets",
        "EvergreenBase",
      ], swiftSettings: strict),
    tests(
      of: "EvergreenConcurrency", "EvergreenSync", "EvergreenHub", "Greenlets", "EvergreenBase"),
    .executableTarget(
      name: "main-queue-program", dependencies: ["Evergreen", "EvergreenHub", "EvergreenSync"],
      path: "Tests/MainQueueProgram", swiftSettings: strict),
    tests(
      of: "EvergreenNet", "EvergreenConcurrency", "EventLoop", "EvergreenSync", "EvergreenHub",
      "Greenlets", "EvergreenBase"),
    .target(name: "ContractScripts", path: "Tests/ContractScripts"),
    tests(
      of: "EvergreenMonkey", "ContractScripts", "EvergreenNet", "EvergreenSync", "EvergreenHub",
      "EventLoop", "Greenlets", "EvergreenBase"),
    .executableTarget(
      name: "green-glibc-alone", dependencies: ["GreenGlibc", "EvergreenHub"],
      path: "Tests/GreenGlibcAlone", swiftSettings: strict),
    tests(of: "GreenGlibc", "green-glibc-alone", "EvergreenHub", "EvergreenBase"),
    tests(of: "GreenCalls", "EvergreenHub", "EvergreenBase"),
    // Knows nothing of Evergreen: `evergreen run` runs it in tests.
    .executableTarget(name: "plain-program", path: "Tests/PlainProgram"),
    .executableTarget(name: "thread-local-program", path: "Tests/ThreadLocalProgram"),
    .testTarget(
      name: "RunnerTests",
      dependencies: [
        "EvergreenNet", "EvergreenSync", "EvergreenHub", "EvergreenBase", "EvergreenTesting",
      ], swiftSettings: strict),
    .testTarget(
      name: "ExampleTests",
      dependencies: [
        "chat-server", "echo-client", "echo-server", "mixed-async", "multi-core-echo", "ping-pong",
        "port-forwarder", "producer-consumer", "resolve-many", "udp-echo", "web-crawler",
        "main-queue-program", "Evergreen", "EvergreenNet", "EvergreenSync", "EvergreenHub",
        "EventLoop", "EvergreenBase", "EvergreenTesting",
      ], swiftSettings: strict),
  ],
  swiftLanguageModes: [.v6]
)
