// SPDX-License-Identifier: Apache-2.0
//
// void* tendril_switch(void** save, void* to, void* transfer)
// void* tendril_switch_first(void** save, void* to, void* transfer)
//                            rdi          rsi       rdx
// void* tendril_call(void** save, void* top, uintptr_t limit, next_context (*entry)(void*), void* transfer)
//                    rdi          rsi        rdx              rcx                           r8
// void* tendril_call_body(void** save, void* top, body_end (*run)(void*), void* body, next_context (*ended)(void*))
//                         rdi          rsi        rdx                     rcx         r8
//
// A suspended stack, from its saved stack pointer upwards:
//
//     +0   mxcsr   (4 bytes)
//     +4   x87 control word (2 bytes), 2 bytes unused
//     +8   the limit of a segmented stack, %fs:0x70; 0 for every other kind
//     +16  r15
//     +24  r14
//     +32  r13
//     +40  r12
//     +48  rbx
//     +56  rbp
//     +64  where to continue
//
// switch.cpp, beside this file, lays out the same for a stack that has not run yet.
//
// - MXCSR: only the control bits (0xFFC0) are callee-saved. On some processors (Intel's Cascade Lake)
//   ldmxcsr costs some 50 ns when the value changes, if only in a sticky flag: there both sides are compared,
//   and it runs on a difference. On others (AMD's Zen 5) it costs next to nothing, whereas comparing means
//   to wait for what stmxcsr stores, 1.4 ns of a switch of 6. Which it is, prepare_switch() measures; the
//   byte it sets never changes afterwards as far as the branch predictor is concerned.
// - The limit is loaded before the stack pointer, see platform/split_stack.hpp, and only on a difference:
//   without segmented stacks it never differs.
// - The layout is the same on both sides of the rsp exchange, so the unwind information holds at
//   every instruction, for whichever stack rsp points to.
//
// The return predictor is a stack of its own that knows nothing of ours. It is kept in step:
// - tendril_switch leaves by ret. Every fiber leaves through the same call, so the top entry, pushed by
//   the side that leaves, is right for the side that arrives, and so are those below it where both sides
//   wait in the same function. Leaving by pop and jmp keeps one stale entry, and every return above
//   is then mispredicted: 20 ns against 12 for two fibers that yield to each other.
// - tendril_switch_first enters a new stack by a jump and leaves its caller's entry in place. When the
//   entry function is done it returns here, and the next fiber is continued from this spot, without a
//   call that nobody would return from: a fiber that starts another and waits for its end finds the
//   predictor as it left it.
// - tendril_call is a call in its eyes too: whoever comes back from it without a switch in between meets
//   the entries that belong to him. So is tendril_call_body.
//
// The callee of tendril_call, or tendril_call_body, that returns without a switch has left the callee-saved registers and control
// words as the ABI wants them, and the limit too, if the two stacks have the same: that of none.
// - A new stack that is entered by the ret of tendril_switch has used up an entry; it puts one back.

// Saves the callee-saved state below the return address.
.macro SAVE_CONTEXT
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
        movq    %fs:0x70, %r9
        pushq   %r9
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
.endm

// rsp is still the old stack's, \to the next one's; r9 is the limit that is in force.
.macro LOAD_CHANGED_LIMIT to
        movq    8(\to), %r10
        cmpq    %r9, %r10
        je      3f
        movq    %r10, %fs:0x70
3:
.endm

// Saves the present control words; r11 remembers where, r8d is the x87's.
.macro READ_CONTROL_WORDS
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, %r11
        movzwl  4(%rsp), %r8d
.endm

// rsp is the next stack's. Clobbers ecx.
.macro LOAD_CHANGED_CONTROL_WORDS
        cmpb    $0, tendril_ldmxcsr_is_cheap(%rip)
        je      4f
        ldmxcsr (%rsp)
1:      cmpw    4(%rsp), %r8w
        je      2f
        fldcw   4(%rsp)
        jmp     2f
4:      movl    (%r11), %ecx
        xorl    (%rsp), %ecx
        testl   $0xFFC0, %ecx
        je      1b
        ldmxcsr (%rsp)
        jmp     1b
2:
.endm

.macro RESTORE_CONTEXT
        addq    $16, %rsp
        .cfi_adjust_cfa_offset -16
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
.endm

.macro FUNCTION name
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 5
\name:
.endm

        .text

FUNCTION tendril_switch
        .cfi_startproc
        SAVE_CONTEXT
        READ_CONTROL_WORDS
        movq    %rsp, (%rdi)
        movq    %rdx, %rax
        LOAD_CHANGED_LIMIT %rsi
        movq    %rsi, %rsp
        LOAD_CHANGED_CONTROL_WORDS
        RESTORE_CONTEXT
        ret
        .cfi_endproc
        .size   tendril_switch, .-tendril_switch

FUNCTION tendril_switch_first
        .cfi_startproc
        SAVE_CONTEXT
        READ_CONTROL_WORDS
        movq    %rsp, (%rdi)
        movq    %rdx, %rax
        LOAD_CHANGED_LIMIT %rsi
        movq    %rsi, %rsp
        LOAD_CHANGED_CONTROL_WORDS
        movq    48(%rsp), %rbx          // the entry function, see switch.cpp
        addq    $72, %rsp
        jmp     .Lrun
        .cfi_endproc
        .size   tendril_switch_first, .-tendril_switch_first

// The first thing a new stack runs: rax holds the transfer, rbx the entry function. The return address
// is undefined, so that unwinders, debuggers and exceptions end here. The entry function returns whom to
// continue with: rax its stack pointer, rdx the transfer.
FUNCTION tendril_switch_start
        .cfi_startproc
        .cfi_undefined %rip
        endbr64
        call    3f                      // for the predictor only
3:      addq    $8, %rsp
.Lrun:
        movq    %rax, %rdi
        xorl    %ebp, %ebp
        call    *%rbx
        testq   %rax, %rax
        je      .Lback
.Lleave:
        subq    $16, %rsp
        READ_CONTROL_WORDS
        movq    %fs:0x70, %r9
        LOAD_CHANGED_LIMIT %rax
        movq    %rax, %rsp
        movq    %rdx, %rax
        LOAD_CHANGED_CONTROL_WORDS
        addq    $16, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
.Lback:
        movq    %fs:0x70, %r9
        LOAD_CHANGED_LIMIT %rdx
        leaq    16(%rdx), %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret                             // rax is 0
        .cfi_endproc
        .size   tendril_switch_start, .-tendril_switch_start

FUNCTION tendril_call
        .cfi_startproc
        SAVE_CONTEXT
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        movq    %r8, %rax
        cmpq    %r9, %rdx
        jne     1f
        .cfi_remember_state
        movq    %rsi, %rsp
        .cfi_undefined %rip             // the new stack has no callers
        movq    %rax, %rdi
        xorl    %ebp, %ebp
        call    *%rcx
        testq   %rax, %rax
        jne     .Lleave
        movq    56(%rdx), %rbp          // the others are what they were
        leaq    64(%rdx), %rsp
        ret
        .cfi_restore_state
1:      movq    %rdx, %fs:0x70
        movq    %rcx, %rbx
        movq    %rsi, %rsp
        .cfi_undefined %rip
        jmp     .Lrun
        .cfi_endproc
        .size   tendril_call, .-tendril_call

// The way back is by r15, which compilers save last, so that few bodies do: what goes through memory is there
// some cycles later, and everything that the caller does next goes by its stack pointer.
FUNCTION tendril_call_body
        .cfi_startproc
        SAVE_CONTEXT
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        movq    %rsp, %r15
        movq    %r8, %rbx
        movq    %rsi, %rsp
        .cfi_undefined %rip             // the new stack has no callers
        movq    %rcx, %rdi
        xorl    %ebp, %ebp
        call    *%rdx
        testq   %rax, %rax
        je      1f
        movq    56(%r15), %rbp
        movq    48(%r15), %rbx
        leaq    64(%r15), %rsp
        movq    16(%r15), %r15          // the others are what they were
        xorl    %eax, %eax
        ret
1:      movq    %rdx, %rdi
        call    *%rbx
        jmp     .Lleave
        .cfi_endproc
        .size   tendril_call_body, .-tendril_call_body

        // No frame here needs more than the reserve of a segment: the linker leaves callers as they are.
        .section .note.GNU-split-stack, "", @progbits
        .section .note.GNU-no-split-stack, "", @progbits
        .section .note.GNU-stack, "", @progbits
