// Evergreen: the stack switch for x86-64, System V ABI.
// SPDX-License-Identifier: MIT

// What a suspended context leaves on its stack (`evg_frame` in frame.h):
//
//     higher addresses
//              +--------------------------+
//     sp + 64  | frame of the caller      |  the CFA; a multiple of 16
//              +--------------------------+
//     sp + 56  | return address           |  a first frame: into evg_trampoline
//     sp + 48  | rbp                      |  with the word above, a link of the rbp chain
//     sp + 40  | rbx                      |  a first frame: entry
//     sp + 32  | r12                      |  a first frame: argument   (Swift: error)
//     sp + 24  | r13                      |                            (Swift: self)
//     sp + 16  | r14                      |                            (Swift: async context)
//     sp +  8  | r15                      |
//     sp +  4  | x87 control (2 bytes), - |  a first frame: 0x037f
//     sp       | MXCSR                    |  a first frame: 0x1f80
//              +--------------------------+
//     lower addresses
//
// A first frame has two zero words above it, at the very top of the stack.
//
// CFI. All rules are relative to the CFA, and the CFA to rsp. The frame that rsp is moved to looks
// like the one that it leaves, so the rules stay true across that instruction: before it a walker
// sees the old context, after it the new one, and never a mixture. A register's rule is "saved at"
// until its frame is gone, although it may hold its value again before; both are true.
//
// Floating point. Writing MXCSR or the x87 control word costs up to 60 ns where it changes
// something, hence the comparisons, which are nearly free. Bits 0-5 of MXCSR are left out: they
// say which exceptions have happened and differ as soon as one context has rounded a number. The
// ABI preserves the control bits only, so the flags may stay with the thread.
//
// Shadow stacks (CET). `ret` goes where another context came from, which a shadow stack takes for
// an attack. So there is no .note.gnu.property here: one object without the SHSTK bit keeps the
// loader from turning shadow stacks on for the program. endbr64 is for callers by pointer.

#if defined(__x86_64__)

#if defined(__APPLE__)
#define SYMBOL(name) _##name
#define LOCAL_TO_IMAGE .private_extern
#else
#define SYMBOL(name) name
#define LOCAL_TO_IMAGE .hidden
#endif

  .text

// void evg_switch_stack(void **save /* rdi */, void *to /* rsi */)
  .globl SYMBOL(evg_switch_stack)
  LOCAL_TO_IMAGE SYMBOL(evg_switch_stack)
#if defined(__ELF__)
  .type evg_switch_stack, @function
#endif
  .p2align 4
SYMBOL(evg_switch_stack):
  .cfi_startproc
  endbr64
  pushq %rbp
  .cfi_def_cfa_offset 16
  .cfi_offset %rbp, -16
  movq %rsp, %rbp  // for profilers that interrupt us and follow rbp
  subq $48, %rsp
  .cfi_def_cfa_offset 64
  fnstcw 4(%rsp)
  stmxcsr (%rsp)
  movq %rbx, 40(%rsp)
  .cfi_offset %rbx, -24
  movq %r12, 32(%rsp)
  .cfi_offset %r12, -32
  movq %r13, 24(%rsp)
  .cfi_offset %r13, -40
  movq %r14, 16(%rsp)
  .cfi_offset %r14, -48
  movq %r15, 8(%rsp)
  .cfi_offset %r15, -56

  movzwl 4(%rsp), %eax
  cmpw 4(%rsi), %ax
  jne 2f
  movl (%rsp), %eax
  xorl (%rsi), %eax
  testl $0xffc0, %eax
  jnz 2f
1:
  movq %rsp, (%rdi)
  movq %rsi, %rsp

  movq 8(%rsp), %r15
  movq 16(%rsp), %r14
  movq 24(%rsp), %r13
  movq 32(%rsp), %r12
  movq 40(%rsp), %rbx
  movq 48(%rsp), %rbp
  addq $56, %rsp
  .cfi_remember_state
  .cfi_def_cfa_offset 8
  .cfi_restore %rbp
  .cfi_restore %rbx
  .cfi_restore %r12
  .cfi_restore %r13
  .cfi_restore %r14
  .cfi_restore %r15
  ret  // not `jmp`: with one call site the return predictor is right, whichever stack we are on

2:
  .cfi_restore_state
  fldcw 4(%rsi)
  ldmxcsr (%rsi)
  jmp 1b
  .cfi_endproc
#if defined(__ELF__)
  .size evg_switch_stack, . - evg_switch_stack
#endif

// Where a first frame returns to. An undefined return address is how CFI says "the outermost
// frame", so unwinders and debuggers stop here instead of guessing. No endbr64: reached by `ret`.
  .globl SYMBOL(evg_trampoline)
  LOCAL_TO_IMAGE SYMBOL(evg_trampoline)
#if defined(__ELF__)
  .type evg_trampoline, @function
#endif
  .p2align 4
SYMBOL(evg_trampoline):
  .cfi_startproc
  .cfi_undefined %rip
  nop  // frame.c starts behind it, so that `return address - 1` finds this function
  movq %r12, %rdi
  callq *%rbx
  ud2  // entry has returned
  .cfi_endproc
#if defined(__ELF__)
  .size evg_trampoline, . - evg_trampoline
#endif

#endif

// Outside the guard: an object without this note, even an empty one, makes all stacks executable.
#if defined(__ELF__)
  .section .note.GNU-stack, "", %progbits
#endif
