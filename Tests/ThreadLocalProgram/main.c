// Evergreen: a program with a variable for each thread, which `evergreen run --threads` refuses.
// SPDX-License-Identifier: MIT

static __thread volatile int count;

int main(void) { return count; }
