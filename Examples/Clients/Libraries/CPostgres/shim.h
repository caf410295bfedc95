// Evergreen: the headers of libpq, the client of PostgreSQL.
// SPDX-License-Identifier: MIT

#if !__has_include(<postgresql/libpq-fe.h>)
#error "postgresql/libpq-fe.h not found: apt-get install libpq-dev"
#endif
#include <postgresql/libpq-fe.h>
