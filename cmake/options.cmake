# SPDX-License-Identifier: Apache-2.0
#
# Every option of the build, with its default. What belongs to developing tendril is on only when
# tendril is the top-level project.

option(BUILD_SHARED_LIBS "Build tendril as a shared library" OFF)
option(TENDRIL_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(TENDRIL_BUILD_BENCH "Build the benchmarks and the experiments" ${PROJECT_IS_TOP_LEVEL})
option(TENDRIL_BUILD_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(TENDRIL_ASSERTIONS "Check internal invariants on hot paths (TENDRIL_ASSERT)" OFF)

option(TENDRIL_LZ4 "Pack the stacks of idle tasklets by liblz4, where it is found" ON)

# The processor's name as the folders of platform/ spell it.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(TENDRIL_ARCH x86_64)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(TENDRIL_ARCH aarch64)
else()
  set(TENDRIL_ARCH "${CMAKE_SYSTEM_PROCESSOR}")
endif()

# native: tendril's own context switch, for processors that have one under platform/.
# boost:  Boost.Context's, on every processor Boost supports; also the cross-check of the first.
set(TENDRIL_NATIVE_SWITCH_ARCHES x86_64)
if(TENDRIL_ARCH IN_LIST TENDRIL_NATIVE_SWITCH_ARCHES)
  set(TENDRIL_DEFAULT_SWITCH native)
else()
  set(TENDRIL_DEFAULT_SWITCH boost)
endif()
set(TENDRIL_SWITCH ${TENDRIL_DEFAULT_SWITCH} CACHE STRING "Context switch: native or boost")
set_property(CACHE TENDRIL_SWITCH PROPERTY STRINGS native boost)
if(NOT TENDRIL_SWITCH MATCHES "^(native|boost)$")
  message(FATAL_ERROR "TENDRIL_SWITCH is '${TENDRIL_SWITCH}'; it must be native or boost")
endif()
if(TENDRIL_SWITCH STREQUAL "native" AND NOT TENDRIL_ARCH IN_LIST TENDRIL_NATIVE_SWITCH_ARCHES)
  message(FATAL_ERROR
    "TENDRIL_SWITCH=native, but there is no native switch for '${TENDRIL_ARCH}' "
    "under platform/; configure with -DTENDRIL_SWITCH=boost")
endif()

set(TENDRIL_SANITIZE "" CACHE STRING "Sanitizers: empty, address,undefined or thread")
set_property(CACHE TENDRIL_SANITIZE PROPERTY STRINGS "" "address,undefined" "thread")
if(NOT TENDRIL_SANITIZE MATCHES "^(|address,undefined|thread)$")
  message(FATAL_ERROR
    "TENDRIL_SANITIZE is '${TENDRIL_SANITIZE}'; it must be empty, address,undefined or thread")
endif()

# Stacks that grow by segments (docs/segmented-stacks.md). AUTO: when processor, compiler, linker and
# flags allow it; else the reason is printed and kept for who asks for such a stack at run time.
set(TENDRIL_SEGMENTED AUTO CACHE STRING "Segmented stacks: AUTO, ON or OFF")
set_property(CACHE TENDRIL_SEGMENTED PROPERTY STRINGS AUTO ON OFF)
if(NOT TENDRIL_SEGMENTED MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TENDRIL_SEGMENTED is '${TENDRIL_SEGMENTED}'; it must be AUTO, ON or OFF")
endif()
