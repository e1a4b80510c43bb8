# SPDX-License-Identifier: Apache-2.0
#
# What the library itself links. None of it appears in a public header; for a static tendril the
# installed config finds the same again (tendril-config.cmake.in).

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS context)
include("${CMAKE_CURRENT_LIST_DIR}/tendril-find.cmake")
tendril_find_uv()
if(NOT TARGET tendril::uv)
  message(FATAL_ERROR "libuv was found neither as a CMake package nor by pkg-config")
endif()
# Optional: packs the stacks of tasklets that have been idle for long.
set(TENDRIL_HAS_LZ4 OFF)
if(TENDRIL_LZ4)
  tendril_find_lz4()
  if(TARGET tendril::lz4)
    set(TENDRIL_HAS_LZ4 ON)
  else()
    message(STATUS "liblz4 was found neither as a CMake package nor by pkg-config: "
      "runtime_options::pack_cold_after will not be available")
  endif()
endif()
