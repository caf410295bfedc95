// Evergreen: a switch with a known value in every register that must survive it.
// SPDX-License-Identifier: MIT

#include <stdint.h>

#if defined(__x86_64__)
#define ARCHITECTURE "x86-64"
enum { PATTERNED = 6 };  // rbx rbp r12-r15
#else
#define ARCHITECTURE "aarch64"
enum { PATTERNED = 19 };  // x19-x28 x29 d8-d15
#endif

/// Loads `in`, calls `evg_switch_stack(save, to)` and, when somebody switches back, fills `out`
/// with what the registers hold then.
void patterned_switch(void **save, void *to, const uint64_t in[PATTERNED], uint64_t out[PATTERNED]);

/// An entry that stores its stack pointer in `probed_stack_pointer` and goes on in `probed_entry`,
/// which the test defines.
void entry_probe(void *argument);
void probed_entry(void *argument) __attribute__((noreturn));
extern uintptr_t probed_stack_pointer;

// For the unwinder's eyes: where the outermost frame of a context must lie.
void evg_trampoline(void);
