// Evergreen: what the files of a program share that knows nothing of Evergreen.
// SPDX-License-Identifier: MIT

#ifndef PLAIN_PROGRAM_H
#define PLAIN_PROGRAM_H

/// Parts that can be run by name; what each says on standard output is what tests compare.
void part_serve(void);
void part_descriptors(void);
void part_close_all(void);
void part_first_free(void);
void part_first_waits(void);
void part_signals(void);
void part_mask(void);
void part_threads(void);
void part_many_threads(void);
void part_cancel(void);
void part_fork(void);
void part_fork_at_first(void);
void part_fork_among_threads(void);
void part_files(void);
void part_no_descriptors(void);
void part_last_thread(void);
void part_nobody(void);
void part_pthreads(void);
void part_crowd(void);

/// Says it, or ends the program with what is wrong.
void check(int is_right, const char *what);
#define CHECK(condition) check(condition, #condition)

/// The child ends with this status.
void check_child(int child, int status);

/// A line of /proc/self/status, as a number.
long status_of(const char *field);

#endif
