// SPDX-License-Identifier: Apache-2.0
//
// What split prologues call. Contract: platform/split_stack.hpp.
//
// A prologue that finds no room does
//
//     movl  $frame, %r10d          // bytes
//     movl  $arguments, %r11d      // bytes of arguments in memory; 0 for variadic functions
//     call  __morestack
//     ret
//     jmp   body                   // gcc; the body itself in other compilers
//
// and __morestack calls what follows the ret, on another segment; when that returns it goes back, and
// the ret returns to the function's caller. Its frame stays on the old segment:
//
//     rbp + 24   arguments in memory (variadic bodies compute this address from rbp)
//     rbp + 16   return address into the caller        <- CFA
//     rbp + 8    return address into the prologue
//     rbp        the caller's rbp
//     rbp - 8    rax: the static chain, or the number of vector registers of a variadic call
//     rbp - 16   the limit word of the segment that is left
//     rbp - 24   rcx
//     rbp - 32   rdi
//
// - Unwinding goes from here to the function's caller: the return address is the one at CFA + 0 and the
//   caller's stack pointer CFA + 8. The prologue's ret must not be seen: it is in no call site of the
//   function's exception table, and a function that has one would end in std::terminate.
// - An exception that passes resets the limit word and goes on from the deeper segment: the unwinder that
//   runs there must not lose its stack. The segment stays linked as `next`, so nothing is freed here.
// - Everything that may carry an argument or a result is preserved: also vector registers, in the slow
//   paths, which are C++.
// - Calls and returns are paired in all paths, also where the stack is not changed: the processor's return
//   predictor goes wrong otherwise, which costs more than the work done here.
//
// gdb accepts that a frame's caller lies deeper only when this function is called __morestack.

        .set    HEADER_BYTES, 64
        .set    SEG_NEXT, 0
        .set    SEG_LIMIT, 8
        .set    SEG_FIRST_SP, 16
        .set    SEG_ROOM, 24
        .set    SEG_PREVIOUS, 32
        .set    SEG_OWNER, 40
        .set    SEG_TOTAL, 56
        .set    SEG_SHIFT, 60
        .set    SEG_PINNED, 61
        .set    STACKS_SLOW_TOP, 0
        .set    STACKS_SPARE, 24
        .set    STACKS_SPARES, 32
        .set    STANDARD_SHIFT, 17
        .set    STANDARD_ROOM, 80 * 1024        // less than what a standard segment has
        .set    STANDARD_UNITS, 64              // 128 KiB in units of 2 KiB
        .set    SMALLEST_TAG, 1
        .set    FOREIGN_ROOM, 16 * 1024
        .set    SLACK, 128                      // return address, alignment

// The arguments in memory go along, at the same offset in a cache line: they may be over-aligned. rdi is
// above where they go, rsi, which is on top of the stack, is saved there. Then begins the body.
.macro COPY_ARGUMENTS
        leaq    24(%rbp), %rsi
        subq    %r11, %rdi
        movl    %edi, %ecx
        subl    %esi, %ecx
        andl    $63, %ecx
        subq    %rcx, %rdi
        movq    (%rsp), %rax                    // rsi
        movq    %rdi, %rsp
        leaq    7(%r11), %rcx
        shrq    $3, %rcx
7:      movq    (%rsi), %r10
        movq    %r10, (%rdi)
        addq    $8, %rsi
        addq    $8, %rdi
        decq    %rcx
        jnz     7b
        movq    %rax, %rsi
        jmp     .Lgo
.endm

// rdi: the limit word; rax: the size of its segment; ecx: the tag. On the native stack, to \native.
.macro SIZE_OF_SEGMENT native
        movq    %fs:0x70, %rdi
        movl    %edi, %ecx
        andl    $31, %ecx                       // 0: native
        jz      \native
        movl    $1024, %eax
        shlq    %cl, %rax
.endm

        .text

// What a call into unsplit code goes through, where the linker knows the callee: stays where it is if
// there is room. Most functions that gcc has compiled have looked before (cmake/split_prologues.s).
        .globl  __morestack_non_split
        .hidden __morestack_non_split
        .type   __morestack_non_split, @function
        .globl  __morestack
        .hidden __morestack
        .type   __morestack, @function

        .p2align 6
__morestack:
        .cfi_startproc
        .cfi_personality 0x9b, DW.ref.__gcc_personality_v0
        .cfi_lsda 0x1b, .Lexceptions
        .cfi_def_cfa %rsp, 8
        .cfi_offset %rip, 0
        .cfi_escape 0x15, 7, 0x7f               // .cfi_val_offset %rsp, 8, which clang 19 does not know
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_offset %rbp, -16
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        pushq   %rax
        movq    %fs:0x70, %rax
        pushq   %rax

        // rax: limit. To the next segment.
.Lleave:
        pushq   %rcx
        pushq   %rdi
        movl    %eax, %ecx
        andl    $31, %ecx                       // 0: native
        jz      .Lslow
        movl    $1024, %edi
        shlq    %cl, %rdi
        movq    %rdi, %rcx                      // its size
        decq    %rdi
        orq     %rax, %rdi                      // its last byte
        movq    %rdi, %rax
        subq    %rsp, %rax
        cmpq    %rcx, %rax
        jae     .Lon_another_stack
        subq    $(HEADER_BYTES - 1), %rdi       // the header of the segment that is left
        leaq    SLACK(%r10, %r11), %rcx
        movq    SEG_NEXT(%rdi), %rax
        testq   %rax, %rax
        jz      .Ltake_spare
        cmpq    %rcx, SEG_ROOM(%rax)
        jb      .Lslow

        // rax: the segment to go to
.Lenter:
        movq    SEG_LIMIT(%rax), %rdi
        movq    %rdi, %fs:0x70
        movq    SEG_FIRST_SP(%rax), %rsp
        testl   %r11d, %r11d
        jnz     .Lcopy_arguments
.Lgo:
        movq    8(%rbp), %r10
        movq    -8(%rbp), %rax
        movq    -24(%rbp), %rcx
        movq    -32(%rbp), %rdi
        incq    %r10                            // past the ret
.Lbegin_body:
        call    *%r10
.Lend_body:
        movq    -16(%rbp), %r10
        movq    %rbp, %rsp
        movq    %r10, %fs:0x70
        popq    %rbp
        .cfi_remember_state
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        ret
        .cfi_restore_state

        // The limit is not that of the stack we are on: a signal handler on its alternate stack, perhaps over
        // the unwinder, which stands on a segment that counts as free. It stays there.
.Lon_another_stack:
        testl   %r11d, %r11d
        jnz     .Lcopy_in_place
        subq    $8, %rsp
        jmp     .Lgo

        // A fiber leaves its first segment, and the thread has a standard one ready.
.Ltake_spare:
        cmpb    $STANDARD_SHIFT, SEG_SHIFT(%rdi)
        jae     .Lslow
        cmpq    $STANDARD_ROOM, %rcx
        ja      .Lslow
        movq    tendril_thread_stacks@gottpoff(%rip), %rcx
        movq    %fs:STACKS_SPARE(%rcx), %rax
        testq   %rax, %rax
        jz      .Lslow
        pushq   %rdx
        movq    SEG_NEXT(%rax), %rdx
        movq    %rdx, %fs:STACKS_SPARE(%rcx)
        decq    %fs:STACKS_SPARES(%rcx)
        movq    SEG_OWNER(%rdi), %rdx
        movq    %rdx, SEG_OWNER(%rax)
        movl    SEG_TOTAL(%rdi), %edx
        addl    $STANDARD_UNITS, %edx
        movl    %edx, SEG_TOTAL(%rax)
        movb    SEG_PINNED(%rdi), %dl
        movb    %dl, SEG_PINNED(%rax)
        movq    %rdi, SEG_PREVIOUS(%rax)
        movq    $0, SEG_NEXT(%rax)
        movq    %rax, SEG_NEXT(%rdi)
        popq    %rdx
        jmp     .Lenter

        // To the next segment.
.Lcopy_arguments:
        pushq   %rsi
        movq    SEG_FIRST_SP(%rax), %rdi
        COPY_ARGUMENTS

        // The allocator, on the thread's stack for slow paths.
.Lslow:
        pushq   %rdx
        pushq   %rsi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        movq    -16(%rbp), %rdi
        leaq    SLACK(%r10, %r11), %rsi
        movq    tendril_thread_stacks@gottpoff(%rip), %rax
        movq    %fs:STACKS_SLOW_TOP(%rax), %rsp
        movq    $0, %fs:0x70                    // no limit: .Lenter sets the new one
        call    .Lsave_vectors
        call    tendril_next_segment
        call    .Lrestore_vectors
        leaq    -80(%rbp), %rsp
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rsi
        popq    %rdx
        jmp     .Lenter

        // An exception passes: rax is its header. The limit word is the caller's again; the stack stays.
.Lcleanup:
        movq    -16(%rbp), %r10
        movq    %r10, %fs:0x70
        movq    %rax, %rdi
        // Not through the shim (split_shims.S), which would take the stack for the one of the limit. Where
        // nothing is wrapped there is no such symbol.
        .weak   __real__Unwind_Resume
        movq    __real__Unwind_Resume@GOTPCREL(%rip), %rax
        testq   %rax, %rax
        jz      1f
        call    *%rax
1:      call    _Unwind_Resume@PLT
        hlt

        // A separate entry inside the function, so that gdb knows it. With room and without arguments in
        // memory, as nearly always, there is no frame: the body may as well return to the prologue's ret,
        // which then returns to the caller. One more return address, to a ret of ours, keeps the stack
        // aligned.
        .p2align 5
__morestack_non_split:
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        testl   %r11d, %r11d
        jnz     .Lframe
        movq    %fs:0x70, %r11
        leaq    FOREIGN_ROOM(%r11, %r10), %r11
        cmpq    %rsp, %r11
        ja      .Lframe_without_arguments
        movq    (%rsp), %r11
        cmpl    $0x185d8d4c, 1(%r11)            // leaq 24(%rbp), %r11: a variadic body
        je      .Lframe_without_arguments
        incq    %r11                            // past the ret
        call    *%r11
        ret

        // Else as above, with the frame that is drawn at the head.
.Lframe_without_arguments:
        xorl    %r11d, %r11d
.Lframe:
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_offset %rbp, -16
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        pushq   %rax
        movq    %fs:0x70, %rax
        pushq   %rax
        leaq    FOREIGN_ROOM(%rax, %r10), %rax
        cmpq    %rsp, %rax
        ja      .Lno_room
        testl   %r11d, %r11d
        jnz     .Lcopy_in_place
        pushq   %rcx
        pushq   %rdi
        subq    $8, %rsp                        // 16-byte alignment at the call
        jmp     .Lgo
.Lno_room:
        movq    -16(%rbp), %rax
        addq    $FOREIGN_ROOM, %r10
        jmp     .Lleave

        // As above, on the same stack.
.Lcopy_in_place:
        pushq   %rcx
        pushq   %rdi
        pushq   %rsi
        movq    %rsp, %rdi
        COPY_ARGUMENTS

        // Called on the slow stack (rsp + 8 is 16-byte aligned here, after the call): all that vector
        // registers may hold of arguments. The area stays below the return address until it is restored.
        // rax and rdx are free. r12 is the callee's to keep, so it may say where the area is.
.Lsave_vectors:
        popq    %rcx
        pushq   %r12
        movq    %rsp, %r12
        movl    tendril_vector_bytes(%rip), %eax
        subq    %rax, %rsp
        andq    $-64, %rsp
        movl    tendril_vector_mask(%rip), %eax
        testl   %eax, %eax
        jz      2f
        movq    $0, 512(%rsp)                   // the header that xsave fills in part
        movq    $0, 520(%rsp)
        movq    $0, 528(%rsp)
        movq    $0, 536(%rsp)
        movq    $0, 544(%rsp)
        movq    $0, 552(%rsp)
        movq    $0, 560(%rsp)
        movq    $0, 568(%rsp)
        xorl    %edx, %edx
        xsave   (%rsp)
        jmp     *%rcx
2:      fxsave  (%rsp)
        jmp     *%rcx
.Lrestore_vectors:
        popq    %rcx
        movq    %rax, %rsi                      // the result
        movl    tendril_vector_mask(%rip), %eax
        testl   %eax, %eax
        jz      2f
        xorl    %edx, %edx
        xrstor  (%rsp)
        jmp     3f
2:      fxrstor (%rsp)
3:      movq    %r12, %rsp
        popq    %r12
        movq    %rsi, %rax
        jmp     *%rcx
        .cfi_endproc
        .size   __morestack, .-__morestack

        .section .gcc_except_table, "a", @progbits
        .p2align 2
.Lexceptions:
        .byte   0xff                            // landing pads relative to the function
        .byte   0xff                            // no types
        .byte   0x01                            // uleb128 call sites
        .uleb128 .Lsites_end - .Lsites
.Lsites:
        .uleb128 .Lbegin_body - __morestack
        .uleb128 .Lend_body - .Lbegin_body
        .uleb128 .Lcleanup - __morestack
        .uleb128 0                              // cleanup
.Lsites_end:

        .text

// void* __morestack_allocate_stack_space(size_t bytes): alloca that does not fit.
        .globl  __morestack_allocate_stack_space
        .hidden __morestack_allocate_stack_space
        .type   __morestack_allocate_stack_space, @function
        .p2align 5
__morestack_allocate_stack_space:
        .cfi_startproc
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        movq    %rdi, %rsi
        leaq    16(%rbp), %rdx
        movq    %fs:0x70, %rdi
        movq    tendril_thread_stacks@gottpoff(%rip), %rax
        pushq   %rdi
        movq    %fs:STACKS_SLOW_TOP(%rax), %rsp
        movq    $0, %fs:0x70
        call    tendril_dynamic_space
        movq    -8(%rbp), %rdi
        movq    %rdi, %fs:0x70
        leave
        .cfi_def_cfa %rsp, 8
        ret
        .cfi_endproc
        .size   __morestack_allocate_stack_space, .-__morestack_allocate_stack_space

// void tendril_give_back_segments(void): gives back what the caller holds beyond its present segment, and
// looks whether a small one was run over. At every park of a segmented fiber; mostly there is nothing to do.
        .globl  tendril_give_back_segments
        .hidden tendril_give_back_segments
        .type   tendril_give_back_segments, @function
        .p2align 5
tendril_give_back_segments:
        .cfi_startproc
        SIZE_OF_SEGMENT 1f
        cmpl    $SMALLEST_TAG, %ecx
        je      3f
.Lseen: decq    %rax
        orq     %rdi, %rax
        cmpq    $0, SEG_NEXT - (HEADER_BYTES - 1)(%rax)
        jne     2f
1:      ret
        // A small segment: was its end run over? See stack/segment_canary.hpp.
3:      movq    %rdi, %rdx
        andq    $-2048, %rdx
        movabsq $0xB5C19E07D3A86FE1, %rcx
        cmpq    %rcx, 56(%rdx)
        je      .Lseen
2:      pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        movq    tendril_thread_stacks@gottpoff(%rip), %rax
        pushq   %rdi
        movq    %fs:STACKS_SLOW_TOP(%rax), %rsp
        movq    $0, %fs:0x70
        call    tendril_release_segments
        movq    -8(%rbp), %rdi
        movq    %rdi, %fs:0x70
        leave
        .cfi_def_cfa %rsp, 8
        ret
        .cfi_endproc
        .size   tendril_give_back_segments, .-tendril_give_back_segments

// bool tendril_on_pinned_stack(void), on a segmented fiber.
        .globl  tendril_on_pinned_stack
        .hidden tendril_on_pinned_stack
        .type   tendril_on_pinned_stack, @function
        .p2align 4
tendril_on_pinned_stack:
        .cfi_startproc
        SIZE_OF_SEGMENT 1f
        decq    %rax
        orq     %rdi, %rax
        movzbl  SEG_PINNED - (HEADER_BYTES - 1)(%rax), %eax
        ret
1:      movl    $1, %eax
        ret
        .cfi_endproc
        .size   tendril_on_pinned_stack, .-tendril_on_pinned_stack

// For code of the large model, whose prologues call through a register.
        .globl  __morestack_large_model
        .hidden __morestack_large_model
        .type   __morestack_large_model, @function
        .p2align 4
__morestack_large_model:
        .cfi_startproc
        // r10: arguments in the upper half, frame in the lower
        movq    %r10, %r11
        andl    $0xffffffff, %r10d
        shrq    $32, %r11
        jmp     __morestack
        .cfi_endproc
        .size   __morestack_large_model, .-__morestack_large_model

        .section .data.rel.local.DW.ref.__gcc_personality_v0, "awG", @progbits, DW.ref.__gcc_personality_v0, comdat
        .hidden DW.ref.__gcc_personality_v0
        .weak   DW.ref.__gcc_personality_v0
        .p2align 3
        .type   DW.ref.__gcc_personality_v0, @object
        .size   DW.ref.__gcc_personality_v0, 8
DW.ref.__gcc_personality_v0:
        .quad   __gcc_personality_v0

        .section .note.GNU-split-stack, "", @progbits
        .section .note.GNU-no-split-stack, "", @progbits
        .section .note.GNU-stack, "", @progbits
