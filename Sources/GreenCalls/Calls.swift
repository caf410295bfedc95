// Evergreen: libc's blocking calls in their green forms, with the signatures that Glibc gives them.
// SPDX-License-Identifier: MIT
//
// This file is compiled into two modules: GreenCalls, whose functions are called by the module's
// name, and GreenGlibc, where a link to this file lies beside a re-export of Glibc. Swift prefers a
// module's own functions to those that it re-exports, but has no preference between two modules that
// a file imports: neither can serve both.
//
// Each does what libc's own does: the same results, `errno`, flags and time limits, whatever
// MonkeyPatch has patched. Only where that would block the thread, and a greenlet calls, the greenlet
// waits and others run. On threads without a hub, in the hub, in `MonkeyPatch.withoutPatching` and in
// handlers of signals that were set by `sigaction` or `signal` here, it is libc's own.
//
// They cannot throw. A kill or a timeout ends the wait with `ETIMEDOUT` or `ECANCELED` (on a
// connection, `ECONNABORTED`), further calls fail likewise, and the error is thrown by the next switch
// point that can throw, or at the end of the timeout's block.

#if os(Linux)
public import CGreenCalls
import Glibc

@_exported public import struct CGreenCalls.epoll_event
@_exported public import struct CGreenCalls.mmsghdr

// MARK: Reading and writing

/// read(2). Only the greenlet waits.
@discardableResult
public func read(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer!, _ size: Int) -> Int {
  evg_call_read(descriptor, buffer, size)
}

/// write(2). Only the greenlet waits.
@discardableResult
public func write(_ descriptor: Int32, _ buffer: UnsafeRawPointer!, _ size: Int) -> Int {
  evg_call_write(descriptor, buffer, size)
}

/// readv(2). Only the greenlet waits.
@discardableResult
public func readv(_ descriptor: Int32, _ vector: UnsafePointer<iovec>!, _ count: Int32) -> Int {
  evg_call_readv(descriptor, vector, count)
}

/// writev(2). Only the greenlet waits.
@discardableResult
public func writev(_ descriptor: Int32, _ vector: UnsafePointer<iovec>!, _ count: Int32) -> Int {
  evg_call_writev(descriptor, vector, count)
}

// MARK: Sockets

/// recv(2). Only the greenlet waits.
@discardableResult
public func recv(
  _ socket: Int32, _ buffer: UnsafeMutableRawPointer!, _ size: Int, _ flags: Int32
) -> Int {
  evg_call_recv(socket, buffer, size, flags)
}

/// recvfrom(2). Only the greenlet waits.
@discardableResult
public func recvfrom(
  _ socket: Int32, _ buffer: UnsafeMutableRawPointer!, _ size: Int, _ flags: Int32,
  _ address: UnsafeMutablePointer<sockaddr>!, _ length: UnsafeMutablePointer<socklen_t>!
) -> Int {
  evg_call_recvfrom(socket, buffer, size, flags, address, length)
}

/// recvmsg(2). Only the greenlet waits.
@discardableResult
public func recvmsg(
  _ socket: Int32, _ message: UnsafeMutablePointer<msghdr>!, _ flags: Int32
) -> Int {
  evg_call_recvmsg(socket, message, flags)
}

/// recvmmsg(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func recvmmsg(
  _ socket: Int32, _ messages: UnsafeMutablePointer<mmsghdr>!, _ count: UInt32, _ flags: Int32,
  _ timeout: UnsafeMutablePointer<timespec>!
) -> Int32 {
  evg_call_recvmmsg(socket, messages, count, flags, timeout)
}

/// send(2). Only the greenlet waits.
@discardableResult
public func send(_ socket: Int32, _ buffer: UnsafeRawPointer!, _ size: Int, _ flags: Int32) -> Int {
  evg_call_send(socket, buffer, size, flags)
}

/// sendto(2). Only the greenlet waits.
@discardableResult
public func sendto(
  _ socket: Int32, _ buffer: UnsafeRawPointer!, _ size: Int, _ flags: Int32,
  _ address: UnsafePointer<sockaddr>!, _ length: socklen_t
) -> Int {
  evg_call_sendto(socket, buffer, size, flags, address, length)
}

/// sendmsg(2). Only the greenlet waits.
@discardableResult
public func sendmsg(_ socket: Int32, _ message: UnsafePointer<msghdr>!, _ flags: Int32) -> Int {
  evg_call_sendmsg(socket, message, flags)
}

/// sendmmsg(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func sendmmsg(
  _ socket: Int32, _ messages: UnsafeMutablePointer<mmsghdr>!, _ count: UInt32, _ flags: Int32
) -> Int32 {
  evg_call_sendmmsg(socket, messages, count, flags)
}

/// sendfile(2). Only the greenlet waits.
@discardableResult
public func sendfile(
  _ output: Int32, _ input: Int32, _ offset: UnsafeMutablePointer<off_t>!, _ count: Int
) -> Int {
  evg_call_sendfile(output, input, offset, count)
}

/// splice(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func splice(
  _ input: Int32, _ inputOffset: UnsafeMutablePointer<off_t>!, _ output: Int32,
  _ outputOffset: UnsafeMutablePointer<off_t>!, _ count: Int, _ flags: UInt32
) -> Int {
  evg_call_splice(input, inputOffset, output, outputOffset, count, flags)
}

/// connect(2). Only the greenlet waits.
@discardableResult
public func connect(
  _ socket: Int32, _ address: UnsafePointer<sockaddr>!, _ length: socklen_t
) -> Int32 {
  evg_call_connect(socket, address, length)
}

/// accept(2). Only the greenlet waits.
@discardableResult
public func accept(
  _ socket: Int32, _ address: UnsafeMutablePointer<sockaddr>!,
  _ length: UnsafeMutablePointer<socklen_t>!
) -> Int32 {
  evg_call_accept(socket, address, length)
}

/// accept4(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func accept4(
  _ socket: Int32, _ address: UnsafeMutablePointer<sockaddr>!,
  _ length: UnsafeMutablePointer<socklen_t>!, _ flags: Int32
) -> Int32 {
  evg_call_accept4(socket, address, length, flags)
}

// MARK: Several descriptors

/// poll(2). Only the greenlet waits.
@discardableResult
public func poll(
  _ descriptors: UnsafeMutablePointer<pollfd>!, _ count: nfds_t, _ timeout: Int32
) -> Int32 {
  evg_call_poll(descriptors, count, timeout)
}

/// ppoll(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func ppoll(
  _ descriptors: UnsafeMutablePointer<pollfd>!, _ count: nfds_t,
  _ timeout: UnsafePointer<timespec>!, _ mask: UnsafePointer<sigset_t>!
) -> Int32 {
  evg_call_ppoll(descriptors, count, timeout, mask)
}

/// select(2). Only the greenlet waits.
@discardableResult
public func select(
  _ count: Int32, _ reading: UnsafeMutablePointer<fd_set>!,
  _ writing: UnsafeMutablePointer<fd_set>!, _ special: UnsafeMutablePointer<fd_set>!,
  _ timeout: UnsafeMutablePointer<timeval>!
) -> Int32 {
  evg_call_select(count, reading, writing, special, timeout)
}

/// pselect(2). Only the greenlet waits.
@discardableResult
public func pselect(
  _ count: Int32, _ reading: UnsafeMutablePointer<fd_set>!,
  _ writing: UnsafeMutablePointer<fd_set>!, _ special: UnsafeMutablePointer<fd_set>!,
  _ timeout: UnsafePointer<timespec>!, _ mask: UnsafePointer<sigset_t>!
) -> Int32 {
  evg_call_pselect(count, reading, writing, special, timeout, mask)
}

/// epoll_wait(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func epoll_wait(
  _ epoll: Int32, _ events: UnsafeMutablePointer<epoll_event>!, _ most: Int32, _ timeout: Int32
) -> Int32 {
  evg_call_epoll_wait(epoll, events, most, timeout)
}

/// epoll_pwait(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func epoll_pwait(
  _ epoll: Int32, _ events: UnsafeMutablePointer<epoll_event>!, _ most: Int32, _ timeout: Int32,
  _ mask: UnsafePointer<sigset_t>!
) -> Int32 {
  evg_call_epoll_pwait(epoll, events, most, timeout, mask)
}

/// epoll_pwait2(2). Only the greenlet waits. Swift's Glibc does not have it.
@discardableResult
public func epoll_pwait2(
  _ epoll: Int32, _ events: UnsafeMutablePointer<epoll_event>!, _ most: Int32,
  _ timeout: UnsafePointer<timespec>!, _ mask: UnsafePointer<sigset_t>!
) -> Int32 {
  evg_call_epoll_pwait2(epoll, events, most, timeout, mask)
}

// MARK: Time

/// sleep(3). Only the greenlet waits.
@discardableResult
public func sleep(_ seconds: UInt32) -> UInt32 {
  evg_call_sleep(seconds)
}

/// usleep(3). Only the greenlet waits.
@discardableResult
public func usleep(_ microseconds: useconds_t) -> Int32 {
  evg_call_usleep(microseconds)
}

/// nanosleep(2). Only the greenlet waits.
@discardableResult
public func nanosleep(
  _ time: UnsafePointer<timespec>!, _ rest: UnsafeMutablePointer<timespec>!
) -> Int32 {
  evg_call_nanosleep(time, rest)
}

/// clock_nanosleep(2). Only the greenlet waits.
@discardableResult
public func clock_nanosleep(
  _ clock: clockid_t, _ flags: Int32, _ time: UnsafePointer<timespec>!,
  _ rest: UnsafeMutablePointer<timespec>!
) -> Int32 {
  evg_call_clock_nanosleep(clock, flags, time, rest)
}

// MARK: Names of hosts

/// getaddrinfo(3). Only the greenlet waits.
@discardableResult
public func getaddrinfo(
  _ node: UnsafePointer<CChar>!, _ service: UnsafePointer<CChar>!,
  _ hints: UnsafePointer<addrinfo>!,
  _ result: UnsafeMutablePointer<UnsafeMutablePointer<addrinfo>?>!
) -> Int32 {
  evg_call_getaddrinfo(node, service, hints, result)
}

/// getnameinfo(3). Only the greenlet waits.
@discardableResult
public func getnameinfo(
  _ address: UnsafePointer<sockaddr>!, _ length: socklen_t, _ host: UnsafeMutablePointer<CChar>!,
  _ hostSize: socklen_t, _ service: UnsafeMutablePointer<CChar>!, _ serviceSize: socklen_t,
  _ flags: Int32
) -> Int32 {
  evg_call_getnameinfo(address, length, host, hostSize, service, serviceSize, flags)
}

/// gethostbyname(3). Only the greenlet waits.
@discardableResult
public func gethostbyname(_ name: UnsafePointer<CChar>!) -> UnsafeMutablePointer<hostent>! {
  evg_call_gethostbyname(name)
}

/// gethostbyname2(3). Only the greenlet waits.
@discardableResult
public func gethostbyname2(
  _ name: UnsafePointer<CChar>!, _ family: Int32
) -> UnsafeMutablePointer<hostent>! {
  evg_call_gethostbyname2(name, family)
}

/// gethostbyaddr(3). Only the greenlet waits.
@discardableResult
public func gethostbyaddr(
  _ address: UnsafeRawPointer!, _ length: socklen_t, _ family: Int32
) -> UnsafeMutablePointer<hostent>! {
  evg_call_gethostbyaddr(address, length, family)
}

/// gethostbyname_r(3). Only the greenlet waits.
@discardableResult
public func gethostbyname_r(
  _ name: UnsafePointer<CChar>!, _ entry: UnsafeMutablePointer<hostent>!,
  _ buffer: UnsafeMutablePointer<CChar>!, _ size: Int,
  _ result: UnsafeMutablePointer<UnsafeMutablePointer<hostent>?>!,
  _ problem: UnsafeMutablePointer<Int32>!
) -> Int32 {
  evg_call_gethostbyname_r(name, entry, buffer, size, result, problem)
}

/// gethostbyname2_r(3). Only the greenlet waits.
@discardableResult
public func gethostbyname2_r(
  _ name: UnsafePointer<CChar>!, _ family: Int32, _ entry: UnsafeMutablePointer<hostent>!,
  _ buffer: UnsafeMutablePointer<CChar>!, _ size: Int,
  _ result: UnsafeMutablePointer<UnsafeMutablePointer<hostent>?>!,
  _ problem: UnsafeMutablePointer<Int32>!
) -> Int32 {
  evg_call_gethostbyname2_r(name, family, entry, buffer, size, result, problem)
}

/// gethostbyaddr_r(3). Only the greenlet waits.
@discardableResult
public func gethostbyaddr_r(
  _ address: UnsafeRawPointer!, _ length: socklen_t, _ family: Int32,
  _ entry: UnsafeMutablePointer<hostent>!, _ buffer: UnsafeMutablePointer<CChar>!, _ size: Int,
  _ result: UnsafeMutablePointer<UnsafeMutablePointer<hostent>?>!,
  _ problem: UnsafeMutablePointer<Int32>!
) -> Int32 {
  evg_call_gethostbyaddr_r(address, length, family, entry, buffer, size, result, problem)
}

// MARK: Other processes

/// wait(2). Only the greenlet waits.
@discardableResult
public func wait(_ status: UnsafeMutablePointer<Int32>!) -> pid_t {
  evg_call_wait(status)
}

/// waitpid(2). Only the greenlet waits.
@discardableResult
public func waitpid(
  _ process: pid_t, _ status: UnsafeMutablePointer<Int32>!, _ options: Int32
) -> pid_t {
  evg_call_waitpid(process, status, options)
}

/// wait3(2). Only the greenlet waits.
@discardableResult
public func wait3(
  _ status: UnsafeMutablePointer<Int32>!, _ options: Int32, _ usage: UnsafeMutablePointer<rusage>!
) -> pid_t {
  evg_call_wait3(status, options, usage)
}

/// wait4(2). Only the greenlet waits.
@discardableResult
public func wait4(
  _ process: pid_t, _ status: UnsafeMutablePointer<Int32>!, _ options: Int32,
  _ usage: UnsafeMutablePointer<rusage>!
) -> pid_t {
  evg_call_wait4(process, status, options, usage)
}

/// waitid(2). Only the greenlet waits.
@discardableResult
public func waitid(
  _ type: idtype_t, _ id: id_t, _ info: UnsafeMutablePointer<siginfo_t>!, _ options: Int32
) -> Int32 {
  evg_call_waitid(type, id, info, options)
}

/// system(3). Only the greenlet waits.
@discardableResult
public func system(_ command: UnsafePointer<CChar>!) -> Int32 {
  evg_call_system(command)
}

/// pclose(3). Only the greenlet waits.
@discardableResult
public func pclose(_ stream: UnsafeMutablePointer<FILE>!) -> Int32 {
  evg_call_pclose(stream)
}

// MARK: Locks of files

/// flock(2). Only the greenlet waits.
@discardableResult
public func flock(_ descriptor: Int32, _ operation: Int32) -> Int32 {
  evg_call_flock(descriptor, operation)
}

/// lockf(3). Only the greenlet waits.
@discardableResult
public func lockf(_ descriptor: Int32, _ command: Int32, _ length: off_t) -> Int32 {
  evg_call_lockf(descriptor, command, length)
}

/// fcntl(2). It never waits with these commands.
@discardableResult
public func fcntl(_ descriptor: Int32, _ command: Int32) -> Int32 {
  evg_call_fcntl(descriptor, command, nil)
}

/// fcntl(2). It never waits with these commands.
@discardableResult
public func fcntl(_ descriptor: Int32, _ command: Int32, _ value: Int32) -> Int32 {
  evg_call_fcntl(descriptor, command, UnsafeMutableRawPointer(bitPattern: Int(value)))
}

/// fcntl(2). Only the greenlet waits for a lock, with `F_SETLKW` or `F_OFD_SETLKW`.
@discardableResult
public func fcntl(
  _ descriptor: Int32, _ command: Int32, _ pointer: UnsafeMutableRawPointer
) -> Int32 {
  evg_call_fcntl(descriptor, command, pointer)
}

// MARK: The end of descriptors

/// close(2). Greenlets of this thread that wait for the descriptor hear of it first.
@discardableResult
public func close(_ descriptor: Int32) -> Int32 {
  evg_call_close(descriptor)
}

/// close_range(2). Greenlets of this thread that wait for the descriptor hear of it first. Swift's
/// Glibc does not have it.
@discardableResult
public func close_range(_ first: UInt32, _ last: UInt32, _ flags: Int32) -> Int32 {
  evg_call_close_range(first, last, flags)
}

/// dup2(2). Greenlets of this thread that wait for the descriptor hear of it first.
@discardableResult
public func dup2(_ descriptor: Int32, _ target: Int32) -> Int32 {
  evg_call_dup2(descriptor, target)
}

/// dup3(2). Greenlets of this thread that wait for the descriptor hear of it first. Swift's Glibc
/// does not have it.
@discardableResult
public func dup3(_ descriptor: Int32, _ target: Int32, _ flags: Int32) -> Int32 {
  evg_call_dup3(descriptor, target, flags)
}

// MARK: Handlers of signals

/// sigaction(2). What the handler calls does not wait.
@discardableResult
public func sigaction(
  _ signal: Int32, _ action: UnsafePointer<sigaction>!, _ before: UnsafeMutablePointer<sigaction>!
) -> Int32 {
  evg_call_sigaction(signal, action, before)
}

/// signal(2). What the handler calls does not wait.
@discardableResult
public func signal(_ number: Int32, _ handler: __sighandler_t!) -> __sighandler_t! {
  evg_call_signal(number, handler)
}
#endif
