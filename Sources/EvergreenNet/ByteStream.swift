// Evergreen: what is used like a connected socket.
// SPDX-License-Identifier: MIT

import EvergreenHub

/// Bytes in two directions: a connected ``Socket``, what encrypts one, or what stands in for it in a
/// test.
///
/// ```swift
/// func greet(_ peer: some ByteStream) throws {
///   try peer.sendAll("hello\n")
///   guard try peer.receive(upTo: 64) != nil else { return }
/// }
/// ```
///
/// The rules of a socket hold for all: one greenlet may receive while another sends, a second one in
/// the same direction gets ``ConcurrentUse``, and ``close()`` wakes both. Whatever goes wrong with
/// the stream itself is a ``SocketError``.
public protocol ByteStream: AnyObject {
  /// The longest an operation may take that is given no time of its own; `nil` is for ever.
  var timeout: Duration? { get set }

  /// Whether ``close()`` was called.
  var isClosed: Bool { get }

  /// This end of it.
  var localAddress: SocketAddress { get throws }

  /// The other end.
  var peerAddress: SocketAddress { get throws }

  /// Waits for data and takes what is there.
  ///
  /// - Parameters:
  ///   - count: At most so many bytes, 1 or more.
  ///   - timeout: The longest wait; `nil` for the stream's ``timeout``, `.zero` only looks.
  /// - Returns: One byte or more; `nil` when the peer has ended its direction.
  /// - Throws: ``SocketError``; ``ConcurrentUse``; what is thrown into the caller while it waits, and
  ///   then nothing was taken.
  ///
  /// > Switch point: Yes, unless data is there.
  func receive(upTo count: Int, timeout: Duration?) throws -> [UInt8]?

  /// Waits for data and writes it to `buffer`.
  ///
  /// - Returns: How many bytes; 0 at the end of the stream, and if the buffer has no room.
  ///
  /// > Switch point: Yes, unless data is there.
  func receive(into buffer: UnsafeMutableRawBufferPointer, timeout: Duration?) throws -> Int

  /// Sends as much as is taken, after waiting until something is.
  ///
  /// - Returns: How many bytes were taken, 1 or more unless `bytes` is empty.
  ///
  /// > Switch point: Yes, unless there is room.
  func send(_ bytes: UnsafeRawBufferPointer, timeout: Duration?) throws -> Int

  /// Sends all of it.
  ///
  /// - Parameters:
  ///   - bytes: What to send.
  ///   - timeout: For the whole of it; `nil` for the stream's ``timeout``.
  /// - Throws: ``SocketError``, which says how many bytes have gone; what is thrown into the caller
  ///   while it waits.
  ///
  /// > Switch point: Yes, unless there is room for all.
  func sendAll(_ bytes: UnsafeRawBufferPointer, timeout: Duration?) throws

  /// Ends one or both directions; the other goes on.
  ///
  /// > Switch point: No.
  func shutdown(_ direction: Socket.Direction) throws

  /// Closes the stream. Who waits on it gets a ``SocketError`` whose `isClosed` is true. Nothing
  /// happens the second time.
  ///
  /// > Switch point: No.
  func close()
}

extension Socket: ByteStream {}

// Disfavored, so that a socket's own are called where it is known to be one.
extension ByteStream {
  /// Waits for data and takes what is there; see ``receive(upTo:timeout:)``.
  ///
  /// > Switch point: Yes, unless data is there.
  @_disfavoredOverload
  public func receive(upTo count: Int) throws -> [UInt8]? {
    try receive(upTo: count, timeout: nil)
  }

  /// Waits for data and writes it to `buffer`; see ``receive(into:timeout:)``.
  ///
  /// > Switch point: Yes, unless data is there.
  @_disfavoredOverload
  public func receive(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    try receive(into: buffer, timeout: nil)
  }

  /// Receives exactly so many bytes.
  ///
  /// - Throws: ``EndOfStream`` if the stream ends before; else as ``receive(upTo:timeout:)``. What was
  ///   received until then is lost; ``BufferedStream`` keeps it.
  ///
  /// > Switch point: Yes, unless the data is there.
  @_disfavoredOverload
  public func receive(exactly count: Int, timeout: Duration? = nil) throws -> [UInt8] {
    checkCount(count, atLeast: 0, "receive")
    let hub = Hub.current
    let deadline = Deadline(after: timeout ?? self.timeout, on: hub)
    var bytes: [UInt8] = []
    while bytes.count < count {
      // Room is made as data comes.
      let most = min(count - bytes.count, max(64 * 1024, bytes.count))
      guard let more = try receive(upTo: most, timeout: deadline.remaining(on: hub)) else {
        throw EndOfStream(wanted: count, received: bytes.count, from: try? peerAddress)
      }
      bytes += more
    }
    return bytes
  }

  /// Sends all of it; see ``sendAll(_:timeout:)``.
  ///
  /// > Switch point: Yes, unless there is room for all.
  @_disfavoredOverload
  public func sendAll(_ bytes: [UInt8], timeout: Duration? = nil) throws {
    try bytes.withUnsafeBytes { try sendAll($0, timeout: timeout) }
  }

  /// Sends all of a slice.
  ///
  /// > Switch point: Yes, unless there is room for all.
  @_disfavoredOverload
  public func sendAll(_ bytes: ArraySlice<UInt8>, timeout: Duration? = nil) throws {
    try bytes.withUnsafeBytes { try sendAll($0, timeout: timeout) }
  }

  /// Sends a text as UTF-8.
  ///
  /// > Switch point: Yes, unless there is room for all.
  @_disfavoredOverload
  public func sendAll(_ text: String, timeout: Duration? = nil) throws {
    var text = text
    try text.withUTF8 { try sendAll(UnsafeRawBufferPointer($0), timeout: timeout) }
  }

  /// Sends as much as is taken; see ``send(_:timeout:)``.
  ///
  /// > Switch point: Yes, unless there is room.
  @_disfavoredOverload
  public func send(_ bytes: [UInt8], timeout: Duration? = nil) throws -> Int {
    try bytes.withUnsafeBytes { try send($0, timeout: timeout) }
  }

  /// Ends both directions.
  ///
  /// > Switch point: No.
  @_disfavoredOverload
  public func shutdown() throws { try shutdown(.both) }
}
