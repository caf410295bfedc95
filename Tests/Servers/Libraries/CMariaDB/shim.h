// Evergreen: the headers of libmariadb, the client of MariaDB.
// SPDX-License-Identifier: MIT

#if !__has_include(<mariadb/mysql.h>)
#error "mariadb/mysql.h not found: apt-get install libmariadb-dev"
#endif
#include <mariadb/mysql.h>
