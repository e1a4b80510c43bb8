# SPDX-License-Identifier: Apache-2.0
#
# Warnings for tendril's own code. Whether they are errors is decided by the presets
# (CMAKE_COMPILE_WARNING_AS_ERROR), never here: a new compiler must not break a user's build.

add_library(tendril_warnings INTERFACE)
set(tendril_warning_flags
  -Wall
  -Wextra
  -Wpedantic
  -Wshadow
  -Wnon-virtual-dtor
  -Woverloaded-virtual
  -Wcast-align)
target_compile_options(tendril_warnings INTERFACE
  "$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:${tendril_warning_flags}>")
# gcc says that its thread sanitizer does not model atomic_thread_fence. True, and known: the
# protocols that rest on fences are explored by tests/model.
if(TENDRIL_SANITIZE STREQUAL "thread")
  target_compile_options(tendril_warnings INTERFACE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-tsan>)
endif()
