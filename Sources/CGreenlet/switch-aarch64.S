// Evergreen: the stack switch for arm64, AAPCS64.
// SPDX-License-Identifier: MIT

// What a suspended context leaves on its stack (`evg_frame` in frame.h):
//
//     higher addresses
//               +--------------------------+
//     sp + 176  | frame of the caller      |  the CFA; a multiple of 16
//               +--------------------------+
//     sp + 168  | -                        |  keeps sp a multiple of 16
//     sp + 160  | FPCR                     |  a first frame: 0
//     sp + 144  | d14, d15                 |
//     sp + 128  | d12, d13                 |
//     sp + 112  | d10, d11                 |
//     sp +  96  | d8,  d9                  |
//     sp +  80  | x27, x28                 |
//     sp +  64  | x25, x26                 |
//     sp +  48  | x23, x24                 |
//     sp +  32  | x21, x22                 |                          (Swift: error, async context)
//     sp +  16  | x19, x20                 |  a first frame: entry, argument         (Swift: self)
//     sp +   8  | x30, the return address  |  a first frame: into evg_trampoline
//     sp        | x29, the frame pointer   |  with the word above, a link of the x29 chain
//               +--------------------------+
//     lower addresses
//
// A first frame has two zero words above it, at the very top of the stack.
//
// CFI. All rules are relative to the CFA, and the CFA to sp. The frame that sp is moved to looks
// like the one that it leaves, so the rules stay true across that instruction: before it a walker
// sees the old context, after it the new one, and never a mixture. A register's rule is "saved at"
// until its frame is gone, although it may hold its value again before; both are true.
//
// Branch protection. `hint #34` (bti c) admits callers by pointer and PLTs; older processors
// ignore it. x30 is saved unsigned: a first frame has no signature to check. Guarded control
// stacks (GCS) take the switch for an attack; the note at the end promises BTI alone, which keeps
// the loader from turning them on for the program.

#if defined(__aarch64__)

#if defined(__APPLE__)
#define SYMBOL(name) _##name
#define LOCAL_TO_IMAGE .private_extern
#else
#define SYMBOL(name) name
#define LOCAL_TO_IMAGE .hidden
#endif

  .text

// void evg_switch_stack(void **save /* x0 */, void *to /* x1 */)
  .globl SYMBOL(evg_switch_stack)
  LOCAL_TO_IMAGE SYMBOL(evg_switch_stack)
#if defined(__ELF__)
  .type evg_switch_stack, %function
#endif
  .p2align 4
SYMBOL(evg_switch_stack):
  .cfi_startproc
  hint #34
  stp x29, x30, [sp, #-176]!
  .cfi_def_cfa_offset 176
  .cfi_offset x29, -176
  .cfi_offset x30, -168
  mov x29, sp  // for profilers that interrupt us and follow x29
  stp x19, x20, [sp, #16]
  .cfi_offset x19, -160
  .cfi_offset x20, -152
  stp x21, x22, [sp, #32]
  .cfi_offset x21, -144
  .cfi_offset x22, -136
  stp x23, x24, [sp, #48]
  .cfi_offset x23, -128
  .cfi_offset x24, -120
  stp x25, x26, [sp, #64]
  .cfi_offset x25, -112
  .cfi_offset x26, -104
  stp x27, x28, [sp, #80]
  .cfi_offset x27, -96
  .cfi_offset x28, -88
  stp d8, d9, [sp, #96]
  .cfi_offset d8, -80
  .cfi_offset d9, -72
  stp d10, d11, [sp, #112]
  .cfi_offset d10, -64
  .cfi_offset d11, -56
  stp d12, d13, [sp, #128]
  .cfi_offset d12, -48
  .cfi_offset d13, -40
  stp d14, d15, [sp, #144]
  .cfi_offset d14, -32
  .cfi_offset d15, -24
  mrs x9, fpcr
  str x9, [sp, #160]

  mov x10, sp
  str x10, [x0]
  mov sp, x1

  // Writing FPCR stalls the pipeline; contexts that differ in it are rare.
  ldr x10, [sp, #160]
  cmp x9, x10
  b.eq 1f
  msr fpcr, x10
1:
  ldp x19, x20, [sp, #16]
  ldp x21, x22, [sp, #32]
  ldp x23, x24, [sp, #48]
  ldp x25, x26, [sp, #64]
  ldp x27, x28, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x29, x30, [sp], #176
  .cfi_def_cfa_offset 0
  .cfi_restore x29
  .cfi_restore x30
  .cfi_restore x19
  .cfi_restore x20
  .cfi_restore x21
  .cfi_restore x22
  .cfi_restore x23
  .cfi_restore x24
  .cfi_restore x25
  .cfi_restore x26
  .cfi_restore x27
  .cfi_restore x28
  .cfi_restore d8
  .cfi_restore d9
  .cfi_restore d10
  .cfi_restore d11
  .cfi_restore d12
  .cfi_restore d13
  .cfi_restore d14
  .cfi_restore d15
  ret  // not `br`: with one call site the return predictor is right, whichever stack we are on
  .cfi_endproc
#if defined(__ELF__)
  .size evg_switch_stack, . - evg_switch_stack
#endif

// Where a first frame returns to. An undefined return address is how CFI says "the outermost
// frame", so unwinders and debuggers stop here instead of guessing. No bti: reached by `ret`.
  .globl SYMBOL(evg_trampoline)
  LOCAL_TO_IMAGE SYMBOL(evg_trampoline)
#if defined(__ELF__)
  .type evg_trampoline, %function
#endif
  .p2align 4
SYMBOL(evg_trampoline):
  .cfi_startproc
  .cfi_undefined x30
  nop  // frame.c starts behind it, so that `return address - 1` finds this function
  mov x0, x20
  blr x19
  brk #1  // entry has returned
  .cfi_endproc
#if defined(__ELF__)
  .size evg_trampoline, . - evg_trampoline

  .section .note.gnu.property, "a", %note
  .p2align 3
  .word 4           // bytes of the name
  .word 16          // bytes of the properties
  .word 5           // NT_GNU_PROPERTY_TYPE_0
  .asciz "GNU"
  .word 0xc0000000  // GNU_PROPERTY_AARCH64_FEATURE_1_AND
  .word 4
  .word 1           // BTI
  .word 0
#endif

#endif

// Outside the guard: an object without this note, even an empty one, makes all stacks executable.
#if defined(__ELF__)
  .section .note.GNU-stack, "", %progbits
#endif
