// Evergreen: C++ that throws, for tests of switches in its handlers
// SPDX-License-Identifier: MIT

#ifndef EVERGREEN_CXX_EXCEPTIONS_H
#define EVERGREEN_CXX_EXCEPTIONS_H

#ifdef __cplusplus
extern "C" {
#endif

/// What is called inside; returns normally.
typedef void (*cxx_body)(void *_Nonnull argument);

/// Throws an object with this number, and calls `body` in its handler.
/// Returns the number of the object as the handler sees it afterwards.
int cxx_handle(int number, cxx_body _Nonnull body, void *_Nonnull argument);

/// As above, but the handler throws it again with `throw;`, and the next one returns the number.
int cxx_rethrow(int number, cxx_body _Nonnull body, void *_Nonnull argument);

/// Throws one, and calls `body` in its handler; there throws another, and calls `body` in its
/// handler too. Both are thrown again with `throw;`. Returns 1000 * the outer's number + the
/// inner's.
int cxx_nest(int outer, int inner, cxx_body _Nonnull body, void *_Nonnull argument);

/// Throws one, and calls `body` in a destructor on its way. Returns 100 * the number of exceptions
/// on their way before the call + 10 * those after it + those after the handler, or -1 if the wrong
/// object was caught.
int cxx_unwind(int number, cxx_body _Nonnull body, void *_Nonnull argument);

/// Throws one, calls `body` in its handler and leaves that by longjmp(3). The object is
/// never freed. Not from several threads.
void cxx_jump_out(int number, cxx_body _Nonnull body, void *_Nonnull argument);

/// The number of the object that is being handled; 0 if there is none.
int cxx_current(void);

/// How many exceptions are on their way.
int cxx_uncaught(void);

/// How many of the thrown objects, of all threads, live.
int cxx_live(void);

#ifdef __cplusplus
}
#endif
#endif
