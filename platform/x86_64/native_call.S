// SPDX-License-Identifier: Apache-2.0
//
// Calls on the native stack of the thread for targets that may throw. Used by native_stack.hpp, which
// calls these as whatever the target is, with the target itself as one argument more:
//
//     tendril_native_call_scalar     limit in r8, target in r9: at most four integers, any vector registers
//     tendril_native_call_closure    target in rcx: behind the two or three that a closure takes
//
// All argument registers reach the target and all result registers the caller: only r8 to r11 are used.
// The limit that a caller gives is a guess, see native_stack.hpp.
// The frame stays on the fiber's stack:
//
//     rbp + 16                           <- CFA
//     rbp + 8    return address
//     rbp        the caller's rbp
//     rbp - 8    the caller's limit
//
// - The CFA is found by rbp, so an unwinder comes here from wherever the callee's stack is.
// - The limit changes before the stack pointer on the way there and after it on the way back, see
//   platform/split_stack.hpp.
// - An exception that passes puts the caller's limit back. It goes on from the native stack, where there is
//   room for the unwinder, and which stays this thread's alone until the exception is caught below: nothing
//   that runs meanwhile parks.
// - gdb takes a caller that lies deeper than its callee for a corrupt stack, unless the caller's function is
//   called __morestack: the call is in a local symbol of that name.

        .set    STACKS_NATIVE_TOP, 8
        .set    STACKS_NATIVE, 16
        .set    SEG_LIMIT, 8

        .text

        .globl  tendril_native_call_closure
        .type   tendril_native_call_closure, @function
        .p2align 5
tendril_native_call_closure:
        .cfi_startproc
        endbr64
        movq    %fs:0x70, %r8
        movq    %rcx, %r9
        jmp     .Lcall
        .cfi_endproc
        .size   tendril_native_call_closure, .-tendril_native_call_closure

        .globl  tendril_native_call_scalar
        .type   tendril_native_call_scalar, @function
        .p2align 6                      // over two lines instead of three: two cycles of ten
tendril_native_call_scalar:
        .cfi_startproc
        .cfi_personality 0x9b, DW.ref.__gcc_personality_v0
        .cfi_lsda 0x1b, .Lexceptions
        endbr64
        cmpq    %fs:0x70, %r8
        jne     .Lread_limit
.Lcall:
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        movq    tendril_thread_stacks@gottpoff(%rip), %r10
        pushq   %r8
        movq    %fs:STACKS_NATIVE_TOP(%r10), %r11
        movq    %fs:STACKS_NATIVE(%r10), %r10
        movq    SEG_LIMIT(%r10), %r10
        movq    %r10, %fs:0x70
        movq    %r11, %rsp
        .size   tendril_native_call_scalar, .-tendril_native_call_scalar

        .type   __morestack, @function
__morestack:
.Lbegin:
        call    *%r9
.Lend:
        movq    -8(%rbp), %r10
        movq    %rbp, %rsp
        movq    %r10, %fs:0x70
        popq    %rbp
        .cfi_remember_state
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        ret
        .cfi_restore_state

        .cfi_remember_state
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
.Lread_limit:
        movq    %fs:0x70, %r8
        jmp     .Lcall
        .cfi_restore_state

.Lcleanup:
        movq    -8(%rbp), %r10
        movq    %r10, %fs:0x70
        movq    %rax, %rdi
        call    _Unwind_Resume@PLT
        hlt
        .cfi_endproc
        .size   __morestack, .-__morestack

        .section .gcc_except_table, "a", @progbits
.Lexceptions:
        .byte   0xff                    // landing pads count from the function's start
        .byte   0xff                    // no types
        .byte   0x01                    // call sites as uleb128
        .uleb128 .Lsites_end-.Lsites
.Lsites:
        .uleb128 .Lbegin-tendril_native_call_scalar
        .uleb128 .Lend-.Lbegin
        .uleb128 .Lcleanup-tendril_native_call_scalar
        .uleb128 0
.Lsites_end:

        .hidden DW.ref.__gcc_personality_v0
        .weak   DW.ref.__gcc_personality_v0
        .section .data.rel.local.DW.ref.__gcc_personality_v0, "awG", @progbits, DW.ref.__gcc_personality_v0, comdat
        .p2align 3
        .type   DW.ref.__gcc_personality_v0, @object
        .size   DW.ref.__gcc_personality_v0, 8
DW.ref.__gcc_personality_v0:
        .quad   __gcc_personality_v0

        // No frame here needs more than the reserve of a segment: the linker leaves callers as they are.
        .section .note.GNU-split-stack, "", @progbits
        .section .note.GNU-no-split-stack, "", @progbits
        .section .note.GNU-stack, "", @progbits
