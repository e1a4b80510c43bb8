# SPDX-License-Identifier: Apache-2.0
#
# Segmented stacks want much of compiler and linker: prologues that ask for room (-fsplit-stack), and
# a linker that, where such a function calls one that was compiled without, changes the prologue so
# that it asks for more. Both are looked at in what they produce, never by name or version: clang takes
# the flag for processors for which it then emits nothing, and GNU ld links everything and adjusts
# nothing. Nothing is run, so cross compiling is no different.
#
# Used by tendril's own build and, installed beside it, by the package's component `segmented`:
# flags and linker are the user's, so what was true of the one build says nothing about the other.
#
#   tendril_check_segmented(<prefix>)
#     <prefix>_WHY_NOT          what is wrong and what to do, in one sentence or two; empty: it works
#     <prefix>_COMPILE_OPTIONS  for each file of code that runs on segmented fibers
#     <prefix>_PROLOGUE_OPTIONS for those of C++ besides: functions that call unsplit code find room by themselves
#                               (split_prologues.s, beside this file). Empty: not with this compiler
#     <prefix>_LINK_OPTIONS     for each program
#
#   tendril_make_segmented(<INTERFACE target> <prefix>)
#     makes of it what users link: those options, and tendril::tendril
#
#   tendril_foreign_functions(<program> <function>...)
#     for users: calls of these in the program look for room themselves, and their callers need not

# What our runtime takes over from libc and the unwinder: every reference in a program that links
# tendril::segmented to one of these becomes __wrap_<name>, which the library defines
# (platform/x86_64/split_shims.S, split_jumps.S).
set(TENDRIL_SEGMENTED_WRAPPED
  _Unwind_Resume
  __cxa_allocate_exception
  __cxa_throw
  __cxa_rethrow
  __cxa_free_exception
  __cxa_begin_catch
  __cxa_end_catch
  _ZSt9terminatev
  _ZSt17__throw_bad_allocv
  _ZSt20__throw_length_errorPKc
  _ZSt28__throw_bad_array_new_lengthv
  _ZSt25__throw_bad_function_callv
  _ZNSt15__exception_ptr13exception_ptr10_M_releaseEv
  _Znwm
  _Znam
  _ZdlPv
  _ZdlPvm
  _ZdaPv
  _ZdaPvm
  malloc
  calloc
  realloc
  free
  memcpy
  memmove
  memset
  memcmp
  bcmp
  memchr
  strlen
  strcmp
  _ZNSt6chrono3_V212steady_clock3nowEv
  _ZNSt6chrono3_V212system_clock3nowEv
  clock_gettime
  sched_yield
  pthread_self
  __errno_location
  _ZNSt3_V216generic_categoryEv
  _ZNSt3_V215system_categoryEv
  __cxa_guard_acquire
  __cxa_guard_release
  abort
  __stack_chk_fail
  setjmp
  _setjmp
  __sigsetjmp
  longjmp
  _longjmp
  siglongjmp
  __longjmp_chk
)

# The flags that files of this language are compiled with in any configuration, and the linker's.
function(_tendril_all_flags compile link)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" config)
  if(config)
    set(config "_${config}")
  endif()
  get_directory_property(directory_compile COMPILE_OPTIONS)
  get_directory_property(directory_link LINK_OPTIONS)
  set(compiler "${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS}")
  if(config)
    string(APPEND compiler " ${CMAKE_C_FLAGS${config}} ${CMAKE_CXX_FLAGS${config}}")
  endif()
  string(APPEND compiler " ${directory_compile}")
  set(linker "${CMAKE_EXE_LINKER_FLAGS}")
  if(config)
    string(APPEND linker " ${CMAKE_EXE_LINKER_FLAGS${config}}")
  endif()
  string(APPEND linker " ${directory_link}")
  set(${compile} "${compiler}" PARENT_SCOPE)
  # The compiler's flags are passed when it links, too.
  set(${link} "${compiler} ${linker}" PARENT_SCOPE)
endfunction()

# The last occurrence decides, as it does for the compiler.
function(_tendril_last_match variable pattern text)
  string(REGEX MATCHALL "${pattern}" all "${text}")
  list(POP_BACK all last)
  set(${variable} "${last}" PARENT_SCOPE)
endfunction()

# What is known before anything is compiled.
function(_tendril_segmented_refused variable compile link)
  set(${variable} "" PARENT_SCOPE)
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(${variable} "they exist on Linux only, and this builds for '${CMAKE_SYSTEM_NAME}'; use \
stack_kind::reserved" PARENT_SCOPE)
    return()
  endif()
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
    set(bits "")
    if(CMAKE_SIZEOF_VOID_P EQUAL 4)
      set(bits " with 32-bit pointers")
    endif()
    set(${variable} "they exist for x86-64 only, and this builds for '${CMAKE_SYSTEM_PROCESSOR}'${bits}\
; use stack_kind::reserved, which every processor has" PARENT_SCOPE)
    return()
  endif()

  _tendril_last_match(protection "-fcf-protection(=[a-z]+)?" "${compile}")
  if(protection MATCHES "^-fcf-protection(=branch|=full)?$")
    set(${variable} "no linker can adjust prologues that begin with endbr64, and '${protection}' is \
among the flags; remove it or give -fcf-protection=none after it" PARENT_SCOPE)
    return()
  endif()

  string(REGEX MATCH "-fsanitize=[a-z,-]*(address|thread|memory|dataflow|safe-stack|shadow-call-stack)[a-z,-]*"
    sanitizer "${compile}")
  if(sanitizer)
    set(${variable} "sanitizers know one stack a fiber, and '${sanitizer}' is among the flags; use \
stack_kind::reserved, or a tendril built with TENDRIL_SANITIZE, which falls back to it" PARENT_SCOPE)
    return()
  endif()

  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    _tendril_last_match(lto "-f(no-)?lto(=[^ ;]+)?" "${compile}")
    if(lto MATCHES "^-fno-lto")
      set(lto "")
    elseif(NOT lto AND CMAKE_INTERPROCEDURAL_OPTIMIZATION)
      set(lto "CMAKE_INTERPROCEDURAL_OPTIMIZATION=${CMAKE_INTERPROCEDURAL_OPTIMIZATION}")
    endif()
    if(lto)
      set(${variable} "gcc's link-time optimization ('${lto}') forgets -fsplit-stack, and lld cannot \
read its objects; turn it off, or compile with clang, whose works" PARENT_SCOPE)
      return()
    endif()
  endif()

  if(CMAKE_LINKER_TYPE MATCHES "^(BFD|SYSTEM)$")
    set(forced "CMAKE_LINKER_TYPE=${CMAKE_LINKER_TYPE}")
  else()
    _tendril_last_match(forced "-fuse-ld=[^ ;]+" "${link}")
  endif()
  if(forced MATCHES "^-fuse-ld=(.*/)?(ld\\.)?bfd$|^CMAKE_LINKER_TYPE=")
    set(${variable} "GNU ld ('${forced}') does not adjust calls into code without split stacks, which \
would overflow; remove that setting or choose lld or gold (-fuse-ld=lld)" PARENT_SCOPE)
  endif()
endfunction()

# The comparison that a split prologue of a small frame begins with, cmp %fs:0x70,%rsp; linkers that
# adjust it put other instructions in its place.
set(_TENDRIL_PROLOGUE 64483b242570000000)
set(_TENDRIL_ENDBR64 f30f1efa)
# sub %rsp,%r10; add $16384,%r10; add %fs:0x70,%r10: what split_prologues.s puts in.
set(_TENDRIL_ROOM_CHECK 4929e24981c200400000644c03142570000000)

# Compiles split.cpp with the options into an archive; its bytes in hexadecimal, and what was said.
function(_tendril_compile_split variable log archive options)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
  unset(TENDRIL_SEGMENTED_PROBE CACHE)
  try_compile(TENDRIL_SEGMENTED_PROBE "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented"
    SOURCES "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented/split.cpp"
    COMPILE_DEFINITIONS ${options}
    OUTPUT_VARIABLE output
    COPY_FILE "${archive}" COPY_FILE_ERROR copy_error)
  set(${log} "${output}${copy_error}" PARENT_SCOPE)
  set(bytes "")
  if(TENDRIL_SEGMENTED_PROBE AND NOT copy_error)
    file(READ "${archive}" bytes HEX)
  endif()
  set(${variable} "${bytes}" PARENT_SCOPE)
endfunction()

function(_tendril_link_split variable archive options)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE EXECUTABLE)
  set(program "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented/program")
  unset(TENDRIL_SEGMENTED_PROBE CACHE)
  try_compile(TENDRIL_SEGMENTED_PROBE "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented"
    SOURCES "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented/unsplit.cpp"
    LINK_OPTIONS ${options}
    LINK_LIBRARIES "${archive}"
    COPY_FILE "${program}" COPY_FILE_ERROR copy_error)
  set(${variable} OFF PARENT_SCOPE)
  if(TENDRIL_SEGMENTED_PROBE AND NOT copy_error)
    file(READ "${program}" bytes HEX)
    if(NOT bytes MATCHES "${_TENDRIL_PROLOGUE}")
      set(${variable} ON PARENT_SCOPE)
    endif()
  endif()
endfunction()

function(_tendril_probe_segmented why compile_options prologue_options link_options link prologues_file)
  set(directory "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented")
  set(archive "${directory}/split.a")
  file(WRITE "${directory}/split.cpp" [[
extern "C" int tendril_probe_unsplit(int);
extern "C" int tendril_probe_split(int x) {
  volatile char a[64];
  a[x & 63] = 1;
  return tendril_probe_unsplit(x) + a[(x + 1) & 63];
}
]])
  file(WRITE "${directory}/unsplit.cpp" [[
extern "C" int tendril_probe_split(int);
extern "C" int tendril_probe_unsplit(int x) { return x; }
extern "C" void __morestack() {}
extern "C" void __morestack_non_split() {}
int main(int argc, char**) { return tendril_probe_split(argc); }
]])

  # With clang's link-time optimization objects hold no instructions; the prologues are the same.
  set(options -fsplit-stack)
  _tendril_compile_split(bytes log "${archive}" "${options};-fno-lto")
  if(bytes MATCHES "${_TENDRIL_ENDBR64}")  # the compiler's own default
    list(APPEND options -fcf-protection=none)
    _tendril_compile_split(bytes log "${archive}" "${options};-fno-lto")
  endif()
  set(compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${CMAKE_CXX_COMPILER}")
  if(NOT bytes)
    string(REGEX MATCH "[^\n]*error:[^\n]*" error "${log}")
    set(${why} "the compiler (${compiler}) does not take '${options}' (${error}); use gcc or clang"
      PARENT_SCOPE)
    return()
  endif()
  string(HEX "__morestack" morestack)
  if(NOT bytes MATCHES "${morestack}" OR NOT bytes MATCHES "${_TENDRIL_PROLOGUE}")
    set(${why} "the compiler (${compiler}) takes -fsplit-stack and emits no check: its object does not \
call __morestack; use gcc or clang for x86-64" PARENT_SCOPE)
    return()
  endif()

  # gcc's assembler reads another file before; others refuse that, or it matches nothing.
  set(prologues "")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set(prologues "-Wa,${prologues_file}")
    # Without optimization the body follows the comparison, and stays as it is.
    _tendril_compile_split(bytes log "${directory}/prologues.a" "${options};${prologues};-O2;-fno-lto")
    if(NOT bytes MATCHES "${_TENDRIL_ROOM_CHECK}")
      set(prologues "")
    endif()
  endif()

  _tendril_last_match(forced "-fuse-ld=[^ ;]+|--ld-path=[^ ;]+" "${link}")
  if(CMAKE_LINKER_TYPE AND NOT CMAKE_LINKER_TYPE STREQUAL "DEFAULT")
    set(forced "CMAKE_LINKER_TYPE=${CMAKE_LINKER_TYPE}")
  endif()
  if(forced)
    set(linkers as_given)
  else()
    set(linkers lld gold)
  endif()
  set(as_given "")
  set(lld -fuse-ld=lld)
  set(gold -fuse-ld=gold LINKER:--split-stack-adjust-size=16384)
  foreach(linker IN LISTS linkers)
    _tendril_link_split(adjusts "${archive}" "${${linker}}")
    if(adjusts)
      set(${why} "" PARENT_SCOPE)
      set(${compile_options} "${options}" PARENT_SCOPE)
      set(${prologue_options} "${prologues}" PARENT_SCOPE)
      set(${link_options} "${${linker}}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  if(forced)
    set(${why} "the linker that '${forced}' chooses is missing or does not adjust calls into code \
without split stacks; install lld and remove that setting or give -fuse-ld=lld" PARENT_SCOPE)
  else()
    set(${why} "neither lld nor gold is installed for this compiler (${compiler}), and GNU ld does \
not adjust calls into code without split stacks; install lld" PARENT_SCOPE)
  endif()
endfunction()

function(tendril_check_segmented prefix)
  _tendril_all_flags(compile link)
  set(options "")
  set(prologues "")
  set(link_options "")
  _tendril_segmented_refused(why "${compile}" "${link}")
  if(NOT why)
    # By the name of what is in it, as neither builds nor compiler caches know that objects depend on the file.
    file(SHA1 "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/split_prologues.s" hash)
    string(SUBSTRING "${hash}" 0 8 hash)
    set(prologues_file "${CMAKE_BINARY_DIR}/CMakeFiles/tendril-segmented/split_prologues_${hash}.s")
    configure_file("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/split_prologues.s" "${prologues_file}" COPYONLY)
    # Configuring again with the same flags asks nobody again; with others it must.
    string(SHA1 key "${CMAKE_CXX_COMPILER}|${CMAKE_CXX_COMPILER_VERSION}|${CMAKE_CXX_COMPILER_TARGET}|\
${compile}|${link}|${CMAKE_LINKER_TYPE}|${CMAKE_CURRENT_FUNCTION_LIST_FILE}|${prologues_file}")
    if(NOT TENDRIL_SEGMENTED_KEY STREQUAL key)
      _tendril_probe_segmented(why options prologues link_options "${link}" "${prologues_file}")
      set(TENDRIL_SEGMENTED_FOUND_OPTIONS "${options}" CACHE INTERNAL "")
      set(TENDRIL_SEGMENTED_FOUND_PROLOGUE_OPTIONS "${prologues}" CACHE INTERNAL "")
      set(TENDRIL_SEGMENTED_FOUND_LINK_OPTIONS "${link_options}" CACHE INTERNAL "")
      if(why)  # what is missing may be installed by the next time
        unset(TENDRIL_SEGMENTED_KEY CACHE)
      else()
        set(TENDRIL_SEGMENTED_KEY "${key}" CACHE INTERNAL "")
      endif()
    else()
      set(options "${TENDRIL_SEGMENTED_FOUND_OPTIONS}")
      set(prologues "${TENDRIL_SEGMENTED_FOUND_PROLOGUE_OPTIONS}")
      set(link_options "${TENDRIL_SEGMENTED_FOUND_LINK_OPTIONS}")
    endif()
  endif()
  # A lazily bound call saves all vector registers, up to 2.7 KiB and more, on whatever stack it finds.
  list(APPEND link_options "LINKER:-z,now")
  foreach(symbol IN LISTS TENDRIL_SEGMENTED_WRAPPED)
    list(APPEND link_options "LINKER:--wrap=${symbol}")
  endforeach()
  set(${prefix}_WHY_NOT "${why}" PARENT_SCOPE)
  set(${prefix}_COMPILE_OPTIONS "${options}" PARENT_SCOPE)
  set(${prefix}_PROLOGUE_OPTIONS "${prologues}" PARENT_SCOPE)
  set(${prefix}_LINK_OPTIONS "${link_options}" PARENT_SCOPE)
endfunction()

function(tendril_make_segmented target prefix)
  set_property(TARGET ${target} PROPERTY INTERFACE_COMPILE_OPTIONS
    "$<$<COMPILE_LANGUAGE:C,CXX>:${${prefix}_COMPILE_OPTIONS}>"
    "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:${${prefix}_PROLOGUE_OPTIONS}>")
  # Headers make for such code what a linker would otherwise adjust (native_stack.hpp).
  set_property(TARGET ${target} PROPERTY INTERFACE_COMPILE_DEFINITIONS TENDRIL_SPLIT_CODE)
  set_property(TARGET ${target} PROPERTY INTERFACE_LINK_OPTIONS "${${prefix}_LINK_OPTIONS}")
  # Two mistakes that only the target's own properties show; CMake then says that there is no such
  # target, and its name says why.
  set_property(TARGET ${target} PROPERTY INTERFACE_LINK_LIBRARIES
    tendril::tendril
    "$<$<OR:$<STREQUAL:$<TARGET_PROPERTY:TYPE>,SHARED_LIBRARY>,$<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>>:tendril::segmented_is_for_programs_and_static_libraries>")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_LINK_LIBRARIES
      "$<$<BOOL:$<TARGET_PROPERTY:INTERPROCEDURAL_OPTIMIZATION>>:tendril::segmented_does_not_work_with_link_time_optimization_by_gcc>")
  endif()
endfunction()

# A call of a foreign function costs its caller more than the call: the linker changes the caller's
# prologue, which then goes through __morestack_non_split each time. Functions named here are called
# by way of a few instructions of the program's own that look for room instead: about what the jump
# through the PLT costs, and a caller that waits after the call waits where it is.
#
# Functions by the names that the linker knows, with at most six arguments in registers (and what
# vector registers hold), and not variadic: arguments in memory are not carried over to another
# stack. A function may throw. To be called after target_link_libraries(<program> tendril::segmented);
# for all calls in the program. Without segmented stacks (sanitizers) it does nothing.
function(tendril_foreign_functions program)
  if(NOT TARGET "${program}")
    message(FATAL_ERROR "tendril_foreign_functions: '${program}' is no target; name a program made \
by add_executable()")
  endif()
  get_target_property(type "${program}" TYPE)
  if(NOT type STREQUAL "EXECUTABLE")
    message(FATAL_ERROR "tendril_foreign_functions: '${program}' is a ${type}; name the program that \
is linked, calls from the static libraries in it are meant as well")
  endif()
  if(NOT TARGET tendril::segmented)
    message(FATAL_ERROR "tendril_foreign_functions: there is no tendril::segmented; call this only \
where find_package(tendril COMPONENTS segmented) has found it")
  endif()
  get_target_property(options tendril::segmented INTERFACE_LINK_OPTIONS)
  if(NOT options)
    return()
  endif()
  # Assembly in a source of C++: a project need not enable a language for it.
  set(text "// Generated: calls of foreign functions that look for room.\n")
  foreach(function IN LISTS ARGN)
    if(NOT function MATCHES "^[A-Za-z_.$][A-Za-z0-9_.$]*$")
      message(FATAL_ERROR "tendril_foreign_functions: '${function}' is no symbol; name functions as \
the linker knows them (for C++ that is the mangled name, see nm)")
    endif()
    if("LINKER:--wrap=${function}" IN_LIST options)
      message(FATAL_ERROR "tendril_foreign_functions: calls of '${function}' are the runtime's \
already; leave it out")
    endif()
    string(APPEND text "asm(R\"(
        .text
        .globl  __wrap_${function}
        .hidden __wrap_${function}
        .type   __wrap_${function}, @function
        .p2align 5
__wrap_${function}:
        .cfi_startproc
        movq    %fs:0x70, %r11
        addq    $16384, %r11
        cmpq    %rsp, %r11
        ja      1f
        jmp     *__real_${function}@GOTPCREL(%rip)
1:      xorl    %r10d, %r10d
        xorl    %r11d, %r11d
        call    __morestack_non_split
        ret
        jmp     *__real_${function}@GOTPCREL(%rip)
        .cfi_endproc
        .size   __wrap_${function}, .-__wrap_${function}
)\");\n")
    target_link_options("${program}" PRIVATE "LINKER:--wrap=${function}")
  endforeach()
  # So that the linker adjusts neither these functions nor who calls them.
  string(APPEND text "asm(R\"(
        .hidden __morestack_non_split
        .section .note.GNU-split-stack, \"\", @progbits
        .section .note.GNU-no-split-stack, \"\", @progbits
        .text
)\");\n")
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${program}-foreign-functions.cpp")
  file(CONFIGURE OUTPUT "${source}" CONTENT "${text}" @ONLY)
  target_sources("${program}" PRIVATE "${source}")
  set_source_files_properties("${source}" PROPERTIES
    COMPILE_OPTIONS "-masm=att;-fno-lto;-fno-split-stack"
    SKIP_LINTING ON)
endfunction()
