// SPDX-License-Identifier: Apache-2.0
//
// void* tendril_switch(void** save, void* to, void* transfer)
//                      rdi          rsi       rdx
//
// A suspended stack, from its saved stack pointer upwards:
//
//     +0   mxcsr   (4 bytes)
//     +4   x87 control word (2 bytes), 2 bytes unused
//     +8   r15
//     +16  r14
//     +24  r13
//     +32  r12
//     +40  rbx
//     +48  rbp
//     +56  where to continue
//
// platform/x86_64/switch.cpp lays out the same for a stack that has not run yet.
//
// - MXCSR: only the control bits (0xFFC0) are callee-saved. Both sides are compared and ldmxcsr runs
//   on a difference only; it costs some 50 ns when the value changes.
// - The switch leaves by ret. Every fiber leaves through the same call in worker::depart(), so the
//   return predictor's top entry, pushed by the side that leaves, is right for the side that arrives,
//   and so are those below it when both sides wait in the same function. Leaving by pop and jmp keeps
//   one stale entry, and every return of the callers above is then mispredicted: 20 ns against 12 for
//   two fibers that yield to each other. (jmp wins only where call sites differ at every switch.)
// - The layout is the same on both sides of the rsp exchange, so the unwind information holds at
//   every instruction, for whichever stack rsp points to.

        .text
        .globl  tendril_switch
        .hidden tendril_switch
        .type   tendril_switch, @function
        .p2align 5
tendril_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        movl    (%rsp), %ecx
        movzwl  4(%rsp), %r8d
        movq    %rdx, %rax
        movq    %rsi, %rsp
        xorl    (%rsp), %ecx
        testl   $0xFFC0, %ecx
        jne     .Lload_mxcsr
.Lmxcsr_done:
        cmpw    4(%rsp), %r8w
        jne     .Lload_x87
.Lx87_done:
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret
        .cfi_endproc

        .cfi_startproc
        .cfi_def_cfa %rsp, 64
        .cfi_offset %rbp, -16
        .cfi_offset %rbx, -24
        .cfi_offset %r12, -32
        .cfi_offset %r13, -40
        .cfi_offset %r14, -48
        .cfi_offset %r15, -56
.Lload_mxcsr:
        ldmxcsr (%rsp)
        jmp     .Lmxcsr_done
.Lload_x87:
        fldcw   4(%rsp)
        jmp     .Lx87_done
        .cfi_endproc
        .size   tendril_switch, .-tendril_switch

// The first thing a new stack runs: rax holds the transfer, rbx the entry function. The return
// address is undefined, so that unwinders, debuggers and exceptions end here.
        .globl  tendril_switch_start
        .hidden tendril_switch_start
        .type   tendril_switch_start, @function
        .p2align 4
tendril_switch_start:
        .cfi_startproc
        .cfi_undefined %rip
        endbr64
        movq    %rax, %rdi
        xorl    %ebp, %ebp
        call    *%rbx
        ud2
        .cfi_endproc
        .size   tendril_switch_start, .-tendril_switch_start

        .section .note.GNU-stack, "", @progbits
