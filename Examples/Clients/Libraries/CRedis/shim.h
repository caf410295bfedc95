// Evergreen: the headers of hiredis, the client of Redis.
// SPDX-License-Identifier: MIT

#if !__has_include(<hiredis/hiredis.h>)
#error "hiredis/hiredis.h not found: apt-get install libhiredis-dev"
#endif
#include <hiredis/hiredis.h>
