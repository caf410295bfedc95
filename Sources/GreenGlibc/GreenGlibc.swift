// Evergreen: what to import instead of Glibc.
// SPDX-License-Identifier: MIT
//
// With `import GreenGlibc` in the place of `import Glibc`, the blocking calls of that file are green:
//
// ```swift
// import GreenGlibc
//
// let count = read(descriptor, &bytes, bytes.count)  // others run until something has come
// ```
//
// All else is Glibc's. A file that imports Glibc or Foundation too finds these calls ambiguous; there
// GreenCalls serves, by name: `GreenCalls::read(descriptor, &bytes, bytes.count)`.

#if os(Linux)
@_exported public import Glibc
#endif
