// Evergreen: the errors of system calls
// SPDX-License-Identifier: MIT

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Why a system call failed: the value of the C variable `errno`.
///
/// The names are those of swift-system's `Errno`; a value without a name here is made with
/// ``init(rawValue:)``. In text an error is what `strerror(3)` says.
public struct Errno: RawRepresentable, Error, Hashable, Sendable {
  /// The number, as in C's `errno.h`.
  public let rawValue: Int32

  /// The error with the number `rawValue`.
  public init(rawValue: Int32) {
    self.rawValue = rawValue
  }

  /// The error of the last failed system call of this thread. Read it before anything else can
  /// overwrite it.
  public static var current: Errno {
    Errno(rawValue: errno)
  }
}

extension Errno: CustomStringConvertible {
  /// The text of `strerror_r(3)`, for instance "Connection refused".
  public var description: String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
      guard let start = buffer.baseAddress else { return "error \(rawValue)" }
      buffer.initialize(repeating: 0)
      // POSIX's variant, which Swift imports: the text is in the buffer.
      guard strerror_r(rawValue, start, buffer.count) == 0 else { return "error \(rawValue)" }
      return String(cString: start)
    }
  }
}

extension Errno {
  /// The C name is `EPERM`.
  public static var notPermitted: Errno { Errno(rawValue: EPERM) }

  /// The C name is `ENOENT`.
  public static var noSuchFileOrDirectory: Errno { Errno(rawValue: ENOENT) }

  /// The C name is `ESRCH`.
  public static var noSuchProcess: Errno { Errno(rawValue: ESRCH) }

  /// The C name is `EINTR`.
  public static var interrupted: Errno { Errno(rawValue: EINTR) }

  /// The C name is `EIO`.
  public static var ioError: Errno { Errno(rawValue: EIO) }

  /// The C name is `ENXIO`.
  public static var noSuchAddressOrDevice: Errno { Errno(rawValue: ENXIO) }

  /// The C name is `E2BIG`.
  public static var argListTooLong: Errno { Errno(rawValue: E2BIG) }

  /// The C name is `ENOEXEC`.
  public static var execFormatError: Errno { Errno(rawValue: ENOEXEC) }

  /// The C name is `EBADF`.
  public static var badFileDescriptor: Errno { Errno(rawValue: EBADF) }

  /// The C name is `ECHILD`.
  public static var noChildProcess: Errno { Errno(rawValue: ECHILD) }

  /// The C name is `EDEADLK`.
  public static var deadlock: Errno { Errno(rawValue: EDEADLK) }

  /// The C name is `ENOMEM`.
  public static var noMemory: Errno { Errno(rawValue: ENOMEM) }

  /// The C name is `EACCES`.
  public static var permissionDenied: Errno { Errno(rawValue: EACCES) }

  /// The C name is `EFAULT`.
  public static var badAddress: Errno { Errno(rawValue: EFAULT) }

  /// The C name is `EBUSY`.
  public static var resourceBusy: Errno { Errno(rawValue: EBUSY) }

  /// The C name is `EEXIST`.
  public static var fileExists: Errno { Errno(rawValue: EEXIST) }

  /// The C name is `EXDEV`.
  public static var improperLink: Errno { Errno(rawValue: EXDEV) }

  /// The C name is `ENODEV`.
  public static var operationNotSupportedByDevice: Errno { Errno(rawValue: ENODEV) }

  /// The C name is `ENOTDIR`.
  public static var notDirectory: Errno { Errno(rawValue: ENOTDIR) }

  /// The C name is `EISDIR`.
  public static var isDirectory: Errno { Errno(rawValue: EISDIR) }

  /// The C name is `EINVAL`.
  public static var invalidArgument: Errno { Errno(rawValue: EINVAL) }

  /// The C name is `ENFILE`.
  public static var tooManyOpenFilesInSystem: Errno { Errno(rawValue: ENFILE) }

  /// The C name is `EMFILE`.
  public static var tooManyOpenFiles: Errno { Errno(rawValue: EMFILE) }

  /// The C name is `ENOTTY`.
  public static var inappropriateIOCTLForDevice: Errno { Errno(rawValue: ENOTTY) }

  /// The C name is `ETXTBSY`.
  public static var textFileBusy: Errno { Errno(rawValue: ETXTBSY) }

  /// The C name is `EFBIG`.
  public static var fileTooLarge: Errno { Errno(rawValue: EFBIG) }

  /// The C name is `ENOSPC`.
  public static var noSpace: Errno { Errno(rawValue: ENOSPC) }

  /// The C name is `ESPIPE`.
  public static var illegalSeek: Errno { Errno(rawValue: ESPIPE) }

  /// The C name is `EROFS`.
  public static var readOnlyFileSystem: Errno { Errno(rawValue: EROFS) }

  /// The C name is `EMLINK`.
  public static var tooManyLinks: Errno { Errno(rawValue: EMLINK) }

  /// The C name is `EPIPE`.
  public static var brokenPipe: Errno { Errno(rawValue: EPIPE) }

  /// The C name is `EDOM`.
  public static var outOfDomain: Errno { Errno(rawValue: EDOM) }

  /// The C name is `ERANGE`.
  public static var outOfRange: Errno { Errno(rawValue: ERANGE) }

  /// The C name is `EAGAIN`.
  public static var resourceTemporarilyUnavailable: Errno { Errno(rawValue: EAGAIN) }

  /// The C name is `EINPROGRESS`.
  public static var nowInProgress: Errno { Errno(rawValue: EINPROGRESS) }

  /// The C name is `EALREADY`.
  public static var alreadyInProcess: Errno { Errno(rawValue: EALREADY) }

  /// The C name is `ENOTSOCK`.
  public static var notSocket: Errno { Errno(rawValue: ENOTSOCK) }

  /// The C name is `EDESTADDRREQ`.
  public static var addressRequired: Errno { Errno(rawValue: EDESTADDRREQ) }

  /// The C name is `EMSGSIZE`.
  public static var messageTooLong: Errno { Errno(rawValue: EMSGSIZE) }

  /// The C name is `EPROTOTYPE`.
  public static var protocolWrongTypeForSocket: Errno { Errno(rawValue: EPROTOTYPE) }

  /// The C name is `ENOPROTOOPT`.
  public static var protocolNotAvailable: Errno { Errno(rawValue: ENOPROTOOPT) }

  /// The C name is `EPROTONOSUPPORT`.
  public static var protocolNotSupported: Errno { Errno(rawValue: EPROTONOSUPPORT) }

  /// The C name is `ESOCKTNOSUPPORT`.
  public static var socketTypeNotSupported: Errno { Errno(rawValue: ESOCKTNOSUPPORT) }

  /// The C name is `ENOTSUP`.
  public static var notSupported: Errno { Errno(rawValue: ENOTSUP) }

  /// The C name is `EPFNOSUPPORT`.
  public static var protocolFamilyNotSupported: Errno { Errno(rawValue: EPFNOSUPPORT) }

  /// The C name is `EAFNOSUPPORT`.
  public static var addressFamilyNotSupported: Errno { Errno(rawValue: EAFNOSUPPORT) }

  /// The C name is `EADDRINUSE`.
  public static var addressInUse: Errno { Errno(rawValue: EADDRINUSE) }

  /// The C name is `EADDRNOTAVAIL`.
  public static var addressNotAvailable: Errno { Errno(rawValue: EADDRNOTAVAIL) }

  /// The C name is `ENETDOWN`.
  public static var networkDown: Errno { Errno(rawValue: ENETDOWN) }

  /// The C name is `ENETUNREACH`.
  public static var networkUnreachable: Errno { Errno(rawValue: ENETUNREACH) }

  /// The C name is `ENETRESET`.
  public static var networkReset: Errno { Errno(rawValue: ENETRESET) }

  /// The C name is `ECONNABORTED`.
  public static var connectionAbort: Errno { Errno(rawValue: ECONNABORTED) }

  /// The C name is `ECONNRESET`.
  public static var connectionReset: Errno { Errno(rawValue: ECONNRESET) }

  /// The C name is `ENOBUFS`.
  public static var noBufferSpace: Errno { Errno(rawValue: ENOBUFS) }

  /// The C name is `EISCONN`.
  public static var socketIsConnected: Errno { Errno(rawValue: EISCONN) }

  /// The C name is `ENOTCONN`.
  public static var socketNotConnected: Errno { Errno(rawValue: ENOTCONN) }

  /// The C name is `ESHUTDOWN`.
  public static var socketShutdown: Errno { Errno(rawValue: ESHUTDOWN) }

  /// The C name is `ETIMEDOUT`.
  public static var timedOut: Errno { Errno(rawValue: ETIMEDOUT) }

  /// The C name is `ECONNREFUSED`.
  public static var connectionRefused: Errno { Errno(rawValue: ECONNREFUSED) }

  /// The C name is `ELOOP`.
  public static var tooManySymbolicLinkLevels: Errno { Errno(rawValue: ELOOP) }

  /// The C name is `ENAMETOOLONG`.
  public static var fileNameTooLong: Errno { Errno(rawValue: ENAMETOOLONG) }

  /// The C name is `EHOSTDOWN`.
  public static var hostIsDown: Errno { Errno(rawValue: EHOSTDOWN) }

  /// The C name is `EHOSTUNREACH`.
  public static var noRouteToHost: Errno { Errno(rawValue: EHOSTUNREACH) }

  /// The C name is `ENOTEMPTY`.
  public static var directoryNotEmpty: Errno { Errno(rawValue: ENOTEMPTY) }

  /// The C name is `EDQUOT`.
  public static var diskQuotaExceeded: Errno { Errno(rawValue: EDQUOT) }

  /// The C name is `ESTALE`.
  public static var staleNFSFileHandle: Errno { Errno(rawValue: ESTALE) }

  /// The C name is `ENOLCK`.
  public static var noLocks: Errno { Errno(rawValue: ENOLCK) }

  /// The C name is `ENOSYS`.
  public static var noFunction: Errno { Errno(rawValue: ENOSYS) }

  /// The C name is `EOVERFLOW`.
  public static var overflow: Errno { Errno(rawValue: EOVERFLOW) }

  /// The C name is `ECANCELED`.
  public static var canceled: Errno { Errno(rawValue: ECANCELED) }

  /// The C name is `EIDRM`.
  public static var identifierRemoved: Errno { Errno(rawValue: EIDRM) }

  /// The C name is `ENOMSG`.
  public static var noMessage: Errno { Errno(rawValue: ENOMSG) }

  /// The C name is `EILSEQ`.
  public static var illegalByteSequence: Errno { Errno(rawValue: EILSEQ) }

  /// The C name is `EBADMSG`.
  public static var badMessage: Errno { Errno(rawValue: EBADMSG) }

  /// The C name is `EPROTO`.
  public static var protocolError: Errno { Errno(rawValue: EPROTO) }

  /// The C name is `ENOTRECOVERABLE`.
  public static var notRecoverable: Errno { Errno(rawValue: ENOTRECOVERABLE) }

  /// The C name is `EOWNERDEAD`.
  public static var previousOwnerDied: Errno { Errno(rawValue: EOWNERDEAD) }

  /// The same error as ``resourceTemporarilyUnavailable``, here and on macOS. The C name is
  /// `EWOULDBLOCK`.
  public static var wouldBlock: Errno { Errno(rawValue: EWOULDBLOCK) }

  /// On Linux the same error as ``notSupported``. The C name is `EOPNOTSUPP`.
  public static var notSupportedOnSocket: Errno { Errno(rawValue: EOPNOTSUPP) }
}
