// swift-tools-version: 6.2
import PackageDescription

// What the benchmarks need of others; nobody who depends on Evergreen fetches it. `Scripts/bench` sets
// EVERGREEN_BENCH_WITHOUT_NIO where SwiftNIO cannot be fetched, and names it among the skipped peers.
let withNIO = Context.environment["EVERGREEN_BENCH_WITHOUT_NIO"] == nil

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
  name: "evergreen-benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "evergreen", path: "..")
  ],
  targets: [
    .executableTarget(
      name: "evergreen-echo", dependencies: [.product(name: "Evergreen", package: "evergreen")],
      swiftSettings: strict),
    .executableTarget(
      name: "patched",
      dependencies: [
        .product(name: "Evergreen", package: "evergreen"),
        .product(name: "EvergreenMonkey", package: "evergreen"),
      ],
      swiftSettings: strict),
    .executableTarget(name: "async-micro", swiftSettings: strict),
    .executableTarget(
      name: "micro", dependencies: [.product(name: "Evergreen", package: "evergreen")],
      swiftSettings: strict),
  ],
  swiftLanguageModes: [.v6]
)

if withNIO {
  package.dependencies.append(.package(url: "https://github.com/apple/swift-nio", from: "2.101.2"))
  package.targets.append(
    .executableTarget(
      name: "nio-echo",
      dependencies: [
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ],
      swiftSettings: strict))
}
