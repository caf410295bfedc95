// swift-tools-version: 6.2
import PackageDescription

// Examples that need the client libraries of others; nobody who depends on Evergreen does.

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

func example(_ name: String, with library: String) -> Target {
  .executableTarget(
    name: name,
    dependencies: [
      .target(name: library),
      .product(name: "Evergreen", package: "evergreen"),
      .product(name: "EvergreenMonkey", package: "evergreen"),
      .product(name: "ArgumentParser", package: "swift-argument-parser"),
    ],
    path: name, swiftSettings: strict)
}

func library(_ name: String, from package: String) -> Target {
  .systemLibrary(name: name, path: "Libraries/\(name)", providers: [.apt([package])])
}

let package = Package(
  name: "evergreen-clients",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "CPostgres", targets: ["CPostgres"]),
    .library(name: "CRedis", targets: ["CRedis"]),
    .library(name: "CCurl", targets: ["CCurl"]),
  ],
  dependencies: [
    .package(name: "evergreen", path: "../.."),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
  ],
  targets: [
    library("CPostgres", from: "libpq-dev"),
    library("CRedis", from: "libhiredis-dev"),
    library("CCurl", from: "libcurl4-openssl-dev"),
    example("postgres-pool", with: "CPostgres"),
    example("redis-pipeline", with: "CRedis"),
    example("curl-many", with: "CCurl"),
  ],
  swiftLanguageModes: [.v6]
)
