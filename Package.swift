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
      "Evergreen", "EvergreenNet", "EvergreenSync", "EvergreenHub", "EventLoop", "Greenlets",
      "Locks",
      .product(name: "ArgumentParser", package: "swift-argument-parser"),
    ],
    path: "Examples/\(name)", swiftSettings: strict)
}

let package = Package(
  name: "evergreen",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "Evergreen", targets: ["Evergreen"]),
    .library(name: "EvergreenTesting", targets: ["EvergreenTesting"]),
  ],
  dependencies: [
    // For the examples alone; a package that depends on this one does not fetch it.
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    .target(name: "CLocks"),
    .target(name: "CGreenlet"),
    .target(name: "CLibev", dependencies: ["CLocks"], linkerSettings: [.linkedLibrary("ev")]),
    .target(name: "CSockets"),
    floor("Locks", on: "CLocks"),
    floor("Greenlets", on: "CGreenlet", "Locks"),
    floor("EventLoop", on: "CLibev", "CLocks", "Locks"),
    floor(
      "EvergreenHub", on: "Greenlets", "CGreenlet", "EventLoop", "CLibev", "CLocks", "Locks"),
    floor(
      "EvergreenSync", on: "EvergreenHub", "EventLoop", "Greenlets", "CGreenlet", "CLocks",
      "Locks"),
    floor(
      "EvergreenNet", on: "EvergreenSync", "EvergreenHub", "EventLoop", "CLibev", "CSockets",
      "Greenlets", "Locks"),
    floor(
      "Evergreen", on: "EvergreenNet", "EvergreenSync", "EvergreenHub", "EventLoop", "Greenlets",
      "Locks"),
    floor(
      "EvergreenTesting", on: "EvergreenSync", "EvergreenHub", "EventLoop", "CGreenlet", "CLibev",
      "Locks"),

    example("chat-server"),
    example("echo-client"),
    example("echo-server"),
    example("ping-pong"),
    example("port-forwarder"),
    example("resolve-many"),
    example("udp-echo"),

    tests(of: "Locks"),
    tests(of: "Greenlets", "CGreenlet", "EvergreenHub", "Locks"),
    tests(of: "EventLoop", "CLibev", "Locks"),
    tests(of: "EvergreenHub", "EventLoop", "EvergreenSync", "Greenlets", "Locks"),
    tests(of: "EvergreenSync", "EvergreenHub", "Greenlets", "Locks"),
    tests(of: "EvergreenNet", "EventLoop", "EvergreenSync", "EvergreenHub", "Greenlets", "Locks"),
    .testTarget(
      name: "ExampleTests",
      dependencies: [
        "chat-server", "echo-client", "echo-server", "ping-pong", "port-forwarder",
        "resolve-many", "udp-echo", "Evergreen", "EvergreenNet", "EvergreenSync", "EvergreenHub",
        "EventLoop", "Locks", "EvergreenTesting",
      ], swiftSettings: strict),
  ],
  swiftLanguageModes: [.v6]
)
