// swift-tools-version: 6.2
import PackageDescription

// Unmodified client libraries against real servers, in greenlets. A package of its own, so that what it
// needs (`Scripts/setup servers`) burdens nobody, and it uses Evergreen as any other package does.

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

let evergreen: [Target.Dependency] = [
  .product(name: "Evergreen", package: "evergreen"),
  .product(name: "EvergreenMonkey", package: "evergreen"),
  .product(name: "EvergreenTesting", package: "evergreen"),
]

let package = Package(
  name: "evergreen-servers",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "evergreen", path: "../.."),
    .package(name: "evergreen-clients", path: "../../Examples/Clients"),
  ],
  targets: [
    .systemLibrary(
      name: "CMariaDB", path: "Libraries/CMariaDB", providers: [.apt(["libmariadb-dev"])]),
    .executableTarget(
      name: "look-up",
      dependencies: evergreen + [.product(name: "CCurl", package: "evergreen-clients")],
      path: "look-up", swiftSettings: strict),
    .testTarget(
      name: "ServerTests",
      dependencies: evergreen + [
        "CMariaDB", "look-up",
        .product(name: "CPostgres", package: "evergreen-clients"),
        .product(name: "CRedis", package: "evergreen-clients"),
        .product(name: "CCurl", package: "evergreen-clients"),
      ], path: "ServerTests", swiftSettings: strict),
  ],
  swiftLanguageModes: [.v6]
)
