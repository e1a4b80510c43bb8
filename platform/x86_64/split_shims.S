// SPDX-License-Identifier: Apache-2.0
//
// Library functions that split code may call without asking for the room that unsplit code needs.
//
// A linker that adjusts prologues does so for every function that refers to unsplit code, and the
// reference may be as small as the _Unwind_Resume of a cleanup that never runs: nearly all C++
// functions would be moved to a standard segment, and every parked fiber would hold one. Programs are
// therefore linked with --wrap for the functions below (the list is in cmake/segmented.cmake), and
// references to them arrive here, in an object that counts as split.
//
// LEAF   needs less stack than the reserve of the smallest segment: passed on.
// HOP    passed on where there is room, else called on the next segment, for this one call.
//
// Arguments in memory are not carried over: no function with more than six may be named here, and no
// variadic one.

        .set    ROOM, 4096

        .macro SHIM name
        .globl  __wrap_\name
        .hidden __wrap_\name
        .type   __wrap_\name, @function
        .p2align 4
__wrap_\name:
        .cfi_startproc
        .endm

        .macro END_SHIM name
        .cfi_endproc
        .size   __wrap_\name, .-__wrap_\name
        .endm

        .macro LEAF name
        SHIM    \name
        jmp     *__real_\name@GOTPCREL(%rip)
        END_SHIM \name
        .endm

        .macro HOP name
        SHIM    \name
        movq    %fs:0x70, %r11
        addq    $ROOM, %r11
        cmpq    %rsp, %r11
        ja      1f
        jmp     *__real_\name@GOTPCREL(%rip)
1:      xorl    %r10d, %r10d
        xorl    %r11d, %r11d
        call    __morestack_non_split
        ret
        jmp     *__real_\name@GOTPCREL(%rip)
        END_SHIM \name
        .endm

        .text

        // Exceptions
        HOP     _Unwind_Resume
        HOP     __cxa_allocate_exception
        HOP     __cxa_throw
        HOP     __cxa_rethrow
        HOP     __cxa_free_exception
        LEAF    __cxa_begin_catch
        HOP     __cxa_end_catch
        HOP     _ZSt9terminatev                         // std::terminate()
        HOP     _ZSt17__throw_bad_allocv
        HOP     _ZSt20__throw_length_errorPKc
        HOP     _ZSt28__throw_bad_array_new_lengthv
        HOP     _ZSt25__throw_bad_function_callv
        HOP     _ZNSt15__exception_ptr13exception_ptr10_M_releaseEv

        // Memory
        HOP     _Znwm
        HOP     _Znam
        HOP     _ZdlPv
        HOP     _ZdlPvm
        HOP     _ZdaPv
        HOP     _ZdaPvm
        HOP     malloc
        HOP     calloc
        HOP     realloc
        HOP     free
        LEAF    memcpy
        LEAF    memmove
        LEAF    memset
        LEAF    memcmp
        LEAF    bcmp                                    // what clang makes of memcmp(...) == 0
        LEAF    memchr
        LEAF    strlen
        LEAF    strcmp

        // Time, threads
        LEAF    _ZNSt6chrono3_V212steady_clock3nowEv    // the vDSO's
        LEAF    _ZNSt6chrono3_V212system_clock3nowEv
        LEAF    clock_gettime
        LEAF    sched_yield
        LEAF    pthread_self
        LEAF    __errno_location
        LEAF    _ZNSt3_V216generic_categoryEv
        LEAF    _ZNSt3_V215system_categoryEv
        HOP     __cxa_guard_acquire
        HOP     __cxa_guard_release

        // Ends of the process
        HOP     abort
        HOP     __stack_chk_fail

        .section .note.GNU-split-stack, "", @progbits
        .section .note.GNU-no-split-stack, "", @progbits
        .section .note.GNU-stack, "", @progbits
