# SPDX-License-Identifier: Apache-2.0
#
# The tests of segmented stacks that are not doctest programs: what configuring says about settings
# under which they cannot work, and users' projects against the installed package.
#
#   segmented.configure.*  the checks alone, with one bad setting each
#   segmented.misuse.*     mistakes that only the package or the generated build shows
#   segmented.install.*    a program on segmented stacks, by gcc and by clang
#   segmented.abi.*        arguments and results across segments' edges, by gcc and by clang

find_program(TENDRIL_GXX NAMES g++)
find_program(TENDRIL_GCC NAMES gcc)
find_program(TENDRIL_CLANGXX NAMES clang++-19 clang++)
find_program(TENDRIL_CLANG NAMES clang-19 clang)

# A message as it is matched: CMake breaks lines wherever there is a space.
function(tendril_segmented_says test text)
  string(REGEX REPLACE "([][+.*()^$?|\\\\])" "\\\\\\1" text "${text}")
  string(REPLACE " " "[ \n]+" text "${text}")
  set_tests_properties(${test} PROPERTIES PASS_REGULAR_EXPRESSION "${text}")
endfunction()

# tendril_test_configure(<name> <what it says> <compiler> [<option of cmake>...])
function(tendril_test_configure name text compiler)
  if(NOT compiler)
    return()
  endif()
  set(test segmented.configure.${name})
  set(directory "${CMAKE_CURRENT_BINARY_DIR}/${test}")
  add_test(NAME ${test}
    COMMAND "${CMAKE_COMMAND}" --fresh -S "${CMAKE_CURRENT_LIST_DIR}/install/checks" -B "${directory}"
      -G "${CMAKE_GENERATOR}" "-DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}"
      "-DTENDRIL_CMAKE=${PROJECT_SOURCE_DIR}/cmake" "-DCMAKE_CXX_COMPILER=${compiler}" ${ARGN})
  tendril_segmented_says(${test} "${text}")
  set_tests_properties(${test} PROPERTIES LABELS segmented TIMEOUT 120)
endfunction()

if(TENDRIL_ARCH STREQUAL "x86_64")
  set(good "segmented stacks: '-fsplit-stack")
  set(room_checks "'-fsplit-stack' '-Wa,")
  tendril_test_configure(gcc "${room_checks}" "${TENDRIL_GXX}" -DCMAKE_CXX_FLAGS=-fcf-protection=none)
  tendril_test_configure(gcc_intel "'-fsplit-stack' ''" "${TENDRIL_GXX}"
    "-DCMAKE_CXX_FLAGS=-fcf-protection=none -masm=intel")
  tendril_test_configure(gcc_pipe "'-fsplit-stack' ''" "${TENDRIL_GXX}"
    "-DCMAKE_CXX_FLAGS=-fcf-protection=none -pipe")
  tendril_test_configure(clang "'-fsplit-stack' ''" "${TENDRIL_CLANGXX}")
  tendril_test_configure(gold "${room_checks}" "${TENDRIL_GXX}"
    -DCMAKE_CXX_FLAGS=-fcf-protection=none -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=gold)
  tendril_test_configure(clang_lto "${good}" "${TENDRIL_CLANGXX}"
    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON -DCMAKE_CXX_FLAGS=-flto)
  tendril_test_configure(protection_off "${good}" "${TENDRIL_GXX}"
    "-DCMAKE_CXX_FLAGS=-fcf-protection -fcf-protection=none")

  foreach(compiler IN ITEMS "${TENDRIL_GXX}" "${TENDRIL_CLANGXX}")
    get_filename_component(short "${compiler}" NAME)
    tendril_test_configure(${short}_gnu_ld "GNU ld ('-fuse-ld=bfd')" "${compiler}"
      -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=bfd)
    tendril_test_configure(${short}_protection "'-fcf-protection=branch' is among the flags"
      "${compiler}" -DCMAKE_CXX_FLAGS=-fcf-protection=branch)
    tendril_test_configure(${short}_sanitizer "'-fsanitize=undefined,address' is among the flags"
      # clang comes without the sanitizers' libraries: configuring must not need to link.
      "${compiler}" -DCMAKE_CXX_FLAGS=-fsanitize=undefined,address
      -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY)
  endforeach()
  tendril_test_configure(gnu_ld_in_compiler_flags "GNU ld ('-fuse-ld=bfd')" "${TENDRIL_GXX}"
    -DCMAKE_CXX_FLAGS=-fuse-ld=bfd)
  tendril_test_configure(gnu_ld_as_linker_type "GNU ld ('CMAKE_LINKER_TYPE=BFD')" "${TENDRIL_GXX}"
    -DCMAKE_LINKER_TYPE=BFD)
  tendril_test_configure(protection_full "'-fcf-protection' is among the flags" "${TENDRIL_GXX}"
    -DCMAKE_CXX_FLAGS=-fcf-protection)
  tendril_test_configure(missing_linker
    "the linker that '-fuse-ld=mold' chooses is missing or does not adjust" "${TENDRIL_GXX}"
    -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=mold -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY)
  tendril_test_configure(gcc_lto "gcc's link-time optimization ('-flto')" "${TENDRIL_GXX}"
    -DCMAKE_CXX_FLAGS=-flto)
  tendril_test_configure(gcc_ipo "CMAKE_INTERPROCEDURAL_OPTIMIZATION=ON" "${TENDRIL_GXX}"
    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON)
  tendril_test_configure(pointers_of_32_bits "this builds for 'x86_64' with 32-bit pointers"
    "${TENDRIL_CLANGXX}" -DCMAKE_CXX_FLAGS=-m32 -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY)
  set(cross -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_CXX_COMPILER_TARGET=aarch64-linux-gnu
    -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY)
  tendril_test_configure(aarch64 "this builds for 'aarch64'" "${TENDRIL_CLANGXX}"
    ${cross} -DCMAKE_SYSTEM_PROCESSOR=aarch64)
  # As if we did not know the processor: the object is what tells.
  tendril_test_configure(nothing_emitted "its object does not call __morestack" "${TENDRIL_CLANGXX}"
    ${cross} -DCMAKE_SYSTEM_PROCESSOR=x86_64)

  # A machine without lld and gold: the compiler sees GNU ld only.
  if(TENDRIL_GXX)
    set(tools "${CMAKE_CURRENT_BINARY_DIR}/segmented-tools")
    file(MAKE_DIRECTORY "${tools}")
    foreach(tool IN ITEMS as ld ld.bfd)
      find_program(tendril_tool_${tool} ${tool} NO_CACHE)
      if(tendril_tool_${tool})
        file(CREATE_LINK "${tendril_tool_${tool}}" "${tools}/${tool}" SYMBOLIC)
      endif()
    endforeach()
    tendril_test_configure(no_linker "neither lld nor gold is installed" "${TENDRIL_GXX}"
      "-DCMAKE_AR=${CMAKE_AR}" "-DCMAKE_RANLIB=${CMAKE_RANLIB}")
    # ccache is not among the tools.
    set_tests_properties(segmented.configure.no_linker PROPERTIES ENVIRONMENT_MODIFICATION
      "PATH=set:${tools};CMAKE_C_COMPILER_LAUNCHER=unset:;CMAKE_CXX_COMPILER_LAUNCHER=unset:")
  endif()
endif()

# tendril_test_package(<name> <project> <program> <compiler> [<option of cmake>...])
function(tendril_test_package name project program compiler)
  list(JOIN ARGN "|" options)
  add_test(NAME segmented.${name}
    COMMAND "${CMAKE_COMMAND}"
      -D "BUILD=${PROJECT_BINARY_DIR}"
      -D "PROJECT=${CMAKE_CURRENT_LIST_DIR}/${project}"
      -D "DIRECTORY=${CMAKE_CURRENT_BINARY_DIR}/segmented.${name}"
      -D "PROGRAM=${program}"
      -D "OPTIONS=-DCMAKE_CXX_COMPILER=${compiler}|${options}"
      -P "${CMAKE_CURRENT_LIST_DIR}/install/use.cmake")
  set_tests_properties(segmented.${name} PROPERTIES LABELS segmented TIMEOUT 900)
endfunction()

if(TENDRIL_SANITIZE)
  tendril_test_package(install.fallback install/segmented "" "${CMAKE_CXX_COMPILER}")
  tendril_segmented_says(segmented.install.fallback
    "its segmented fibers fall back to stack_kind::reserved")
elseif(NOT TENDRIL_HAS_SEGMENTED)
  tendril_test_package(install.absent install/segmented "" "${CMAKE_CXX_COMPILER}")
  tendril_segmented_says(segmented.install.absent "this tendril was built without segmented stacks:")
else()
  if(TENDRIL_GXX)
    tendril_test_package(install.gcc install/segmented segmented_consumer "${TENDRIL_GXX}")
    tendril_test_package(abi.gcc abi test_abi "${TENDRIL_GXX}" "-DCMAKE_C_COMPILER=${TENDRIL_GCC}")
    tendril_test_package(misuse.link_time_optimization install/misuse "" "${TENDRIL_GXX}"
      -DMISUSE=link_time_optimization)
    tendril_segmented_says(segmented.misuse.link_time_optimization
      "tendril::segmented_does_not_work_with_link_time_optimization_by_gcc")
  endif()
  if(TENDRIL_CLANGXX)
    tendril_test_package(install.clang install/segmented segmented_consumer "${TENDRIL_CLANGXX}")
    tendril_test_package(abi.clang abi test_abi "${TENDRIL_CLANGXX}"
      "-DCMAKE_C_COMPILER=${TENDRIL_CLANG}")
    tendril_test_package(install.clang_lto install/segmented segmented_consumer "${TENDRIL_CLANGXX}"
      -DCMAKE_CXX_FLAGS=-flto)
  endif()
  tendril_test_package(misuse.shared_library install/misuse "" "${CMAKE_CXX_COMPILER}"
    -DMISUSE=shared_library)
  tendril_segmented_says(segmented.misuse.shared_library
    "tendril::segmented_is_for_programs_and_static_libraries")
  tendril_test_package(misuse.unknown_component install/misuse "" "${CMAKE_CXX_COMPILER}"
    -DMISUSE=unknown_component)
  tendril_segmented_says(segmented.misuse.unknown_component
    "tendril has no component 'segmentd'; it has: segmented, asio")
  tendril_test_package(misuse.gnu_ld install/misuse "" "${CMAKE_CXX_COMPILER}"
    -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=bfd)
  tendril_segmented_says(segmented.misuse.gnu_ld "no segmented stacks here: GNU ld")
  tendril_test_package(misuse.optional install/misuse misuse "${CMAKE_CXX_COMPILER}"
    -DMISUSE=optional -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=bfd)
endif()
