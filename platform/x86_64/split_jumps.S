// SPDX-License-Identifier: Apache-2.0
//
// setjmp and longjmp between the segments of one fiber: the limit word belongs to the stack that is
// jumped to. Linked in by --wrap, see split_shims.S.
//
// The word is kept in the last of the sixteen that the C library's jmp_buf has for the signal mask, of
// which Linux uses one. Deeper segments stay linked as `next`, as after an exception.
// __longjmp_chk would take the jump for one to a frame that has ended: addresses of segments are in no order.

        .set    LIMIT, 192              // in jmp_buf: 64 registers, 8 flag, 128 mask

        .macro FUNCTION name
        .globl  __wrap_\name
        .hidden __wrap_\name
        .type   __wrap_\name, @function
        .p2align 4
__wrap_\name:
        .cfi_startproc
        endbr64
        .endm

        .macro SETJMP name
        FUNCTION \name
        movq    %fs:0x70, %rax
        movq    %rax, LIMIT(%rdi)
        jmp     *__real_\name@GOTPCREL(%rip)
        .cfi_endproc
        .size   __wrap_\name, .-__wrap_\name
        .endm

        .macro LONGJMP name, real
        FUNCTION \name
        movq    LIMIT(%rdi), %rax
        movq    %rax, %fs:0x70
        jmp     *__real_\real@GOTPCREL(%rip)
        .cfi_endproc
        .size   __wrap_\name, .-__wrap_\name
        .endm

        .text
        SETJMP  setjmp
        SETJMP  _setjmp
        SETJMP  __sigsetjmp
        LONGJMP longjmp, longjmp
        LONGJMP _longjmp, _longjmp
        LONGJMP siglongjmp, siglongjmp
        LONGJMP __longjmp_chk, longjmp

        .section .note.GNU-split-stack, "", @progbits
        .section .note.GNU-no-split-stack, "", @progbits
        .section .note.GNU-stack, "", @progbits
