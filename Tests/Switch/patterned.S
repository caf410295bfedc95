// Evergreen: a switch with a known value in every register that must survive it.
// SPDX-License-Identifier: MIT

  .text
  .globl patterned_switch
  .globl entry_probe
  .p2align 4

#if defined(__x86_64__)

  .type patterned_switch, @function
patterned_switch:  // rdi = save, rsi = to, rdx = in, rcx = out
  .cfi_startproc
  pushq %rbp
  .cfi_def_cfa_offset 16
  .cfi_offset %rbp, -16
  pushq %rbx
  .cfi_def_cfa_offset 24
  .cfi_offset %rbx, -24
  pushq %r12
  .cfi_def_cfa_offset 32
  .cfi_offset %r12, -32
  pushq %r13
  .cfi_def_cfa_offset 40
  .cfi_offset %r13, -40
  pushq %r14
  .cfi_def_cfa_offset 48
  .cfi_offset %r14, -48
  pushq %r15
  .cfi_def_cfa_offset 56
  .cfi_offset %r15, -56
  pushq %rcx
  .cfi_def_cfa_offset 64
  movq 0(%rdx), %rbx
  movq 8(%rdx), %rbp
  movq 16(%rdx), %r12
  movq 24(%rdx), %r13
  movq 32(%rdx), %r14
  movq 40(%rdx), %r15
  call evg_switch_stack
  movq (%rsp), %rcx
  movq %rbx, 0(%rcx)
  movq %rbp, 8(%rcx)
  movq %r12, 16(%rcx)
  movq %r13, 24(%rcx)
  movq %r14, 32(%rcx)
  movq %r15, 40(%rcx)
  movq 8(%rsp), %r15
  movq 16(%rsp), %r14
  movq 24(%rsp), %r13
  movq 32(%rsp), %r12
  movq 40(%rsp), %rbx
  movq 48(%rsp), %rbp
  addq $56, %rsp
  .cfi_def_cfa_offset 8
  .cfi_restore %rbp
  .cfi_restore %rbx
  .cfi_restore %r12
  .cfi_restore %r13
  .cfi_restore %r14
  .cfi_restore %r15
  ret
  .cfi_endproc
  .size patterned_switch, . - patterned_switch

  .type entry_probe, @function
entry_probe:
  .cfi_startproc
  movq %rsp, probed_stack_pointer(%rip)
  jmp probed_entry
  .cfi_endproc
  .size entry_probe, . - entry_probe

// From the instruction after the next one on, each raises SIGTRAP.
  .globl start_stepping
  .type start_stepping, @function
start_stepping:
  .cfi_startproc
  pushfq
  .cfi_def_cfa_offset 16
  orq $0x100, (%rsp)
  popfq
  .cfi_def_cfa_offset 8
  ret
  .cfi_endproc
  .size start_stepping, . - start_stepping

#elif defined(__aarch64__)

  .type patterned_switch, %function
patterned_switch:  // x0 = save, x1 = to, x2 = in, x3 = out
  .cfi_startproc
  hint #34
  stp x29, x30, [sp, #-176]!
  .cfi_def_cfa_offset 176
  .cfi_offset x29, -176
  .cfi_offset x30, -168
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
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  str x3, [sp, #160]
  ldp x19, x20, [x2]
  ldp x21, x22, [x2, #16]
  ldp x23, x24, [x2, #32]
  ldp x25, x26, [x2, #48]
  ldp x27, x28, [x2, #64]
  ldr x29, [x2, #80]
  ldp d8, d9, [x2, #88]
  ldp d10, d11, [x2, #104]
  ldp d12, d13, [x2, #120]
  ldp d14, d15, [x2, #136]
  bl evg_switch_stack
  ldr x3, [sp, #160]
  stp x19, x20, [x3]
  stp x21, x22, [x3, #16]
  stp x23, x24, [x3, #32]
  stp x25, x26, [x3, #48]
  stp x27, x28, [x3, #64]
  str x29, [x3, #80]
  stp d8, d9, [x3, #88]
  stp d10, d11, [x3, #104]
  stp d12, d13, [x3, #120]
  stp d14, d15, [x3, #136]
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
  ret
  .cfi_endproc
  .size patterned_switch, . - patterned_switch

  .type entry_probe, %function
entry_probe:
  .cfi_startproc
  hint #34
  mov x9, sp
  adrp x10, probed_stack_pointer
  str x9, [x10, :lo12:probed_stack_pointer]
  b probed_entry
  .cfi_endproc
  .size entry_probe, . - entry_probe

  .section .note.gnu.property, "a", %note
  .p2align 3
  .word 4, 16, 5
  .asciz "GNU"
  .word 0xc0000000, 4, 1, 0

#endif

  .bss
  .globl probed_stack_pointer
  .hidden probed_stack_pointer
  .p2align 3
probed_stack_pointer:
  .zero 8

  .section .note.GNU-stack, "", %progbits
