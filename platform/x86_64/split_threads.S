// SPDX-License-Identifier: Apache-2.0
//
// gcc links with --wrap=pthread_create when -fsplit-stack is among the link flags, so that its runtime
// can prepare the thread. Ours needs nothing of a new thread: its limit word is 0.
        .text
        .globl  __wrap_pthread_create
        .hidden __wrap_pthread_create
        .type   __wrap_pthread_create, @function
        .p2align 4
__wrap_pthread_create:
        .cfi_startproc
        endbr64
        jmp     *__real_pthread_create@GOTPCREL(%rip)
        .cfi_endproc
        .size   __wrap_pthread_create, .-__wrap_pthread_create
        .section .note.GNU-stack, "", @progbits
