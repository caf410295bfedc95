// Evergreen: what the C++ runtime knows of the exceptions of a thread.
// SPDX-License-Identifier: MIT
//
// It keeps two words per thread, which the C++ ABI describes: the list of exceptions that are being
// handled, and how many are on their way to a handler. Both belong to the greenlet. If another one
// threw and caught while this one waits inside a `catch`, the list would be in the order of time
// rather than of the stacks: `throw;` would rethrow another's exception, and an exception would be
// freed while it is in use.
//
// So a greenlet that is left with exceptions keeps them in its own frame, at the cost of a test for
// all others: whoever runs next finds none.

#include "internal.h"

/// NULL where nothing brings the C++ runtime along; Swift's own does.
extern evg_exceptions *__cxa_get_globals(void) __attribute__((weak));

void evg_exceptions_attach(evg_thread *self) {
  self->exceptions = __cxa_get_globals ? __cxa_get_globals() : &self->no_exceptions;
}
