# SPDX-License-Identifier: Apache-2.0
#
# Read by gcc's assembler before each C++ file for segmented stacks (tendril::segmented passes it), so that a function
# that calls unsplit code finds by itself that there is room.
#
# gcc begins a function of a small frame with
#
#             cmpq  %fs:112, %rsp
#             jb    1f
#     0:      ...                                 // the body
#     1:      movl  $frame, %r10d
#             movl  $arguments, %r11d
#             call  __morestack
#             ret
#             jmp   0b
#
# If it calls unsplit code, lld and gold put `stc` in place of the comparison, and __morestack_non_split in that of
# __morestack: nothing else fits. Each call of the function would then go through the runtime, which compares, calls
# the body and returns: two calls and three returns of the processor's more. These macros put the comparison of
# __morestack_non_split before its call. With room, as nearly always, it goes to the body as if there had been no jump:
#
#     1:      movl  $frame, %r10d
#             movl  $arguments, %r11d
#             if (limit + 16384 + r10 <= rsp) goto 0b
#             call  __morestack
#
# - What the linker leaves alone is as fast as ever: it comes here without room, and goes on to the call.
# - r10 and r11 are free where functions of C++ begin, and r10 is what it was at the call. (In C r10 may be the static
#   chain of a nested function, which the body wants: files of C are assembled without this.)
# - Variadic functions are right: the body is entered where it is entered without __morestack.
# - The first jb after the comparison is the one that uses its flags; jnb has the body at its target (-O0): no change.
#   Functions of 256 bytes and more compare another register, and linkers adjust the number that is in there.
# - Everything else is assembled as it is written: an instruction with a prefix is not looked up among the macros, and
#   {store} is the encoding that the assembler chooses anyway.
#
# Where this does not match (-masm=intel, another assembler), functions are as ever, and everything works as before.
#
# Rejected: long prologues for all functions, as those of 256 bytes have them (one instruction more, 5 % of a
# recursive fib); a second limit for adjusted functions (linkers cannot be told, so programs would have to be
# patched after they are linked or while they start, and each change of stacks would set two words).

	.set	.Ltendril_prologue, 0

	.macro	cmpq operands:vararg
	{store} cmpq \operands
	.ifeqs	"\operands", "%fs:112,%rsp"
	.set	.Ltendril_prologue, 1
	.endif
	.endm

	.macro	jb target:vararg
	{store} jb \target
	.if	.Ltendril_prologue == 1
	.set	.Ltendril_prologue, 2
7465:
	.endif
	.endm

	.macro	jnb target:vararg
	.set	.Ltendril_prologue, 0
	{store} jnb \target
	.endm

	.macro	jae target:vararg
	.set	.Ltendril_prologue, 0
	{store} jae \target
	.endm

	.macro	call target:vararg
	.ifeqs	"\target", "__morestack"
	.if	.Ltendril_prologue == 2
	subq	%rsp, %r10
	addq	$16384, %r10
	addq	%fs:112, %r10
	jle	7465b
	subq	%fs:112, %r10
	subq	$16384, %r10
	addq	%rsp, %r10
	.endif
	.set	.Ltendril_prologue, 0
	.endif
	{store} call \target
	.endm
