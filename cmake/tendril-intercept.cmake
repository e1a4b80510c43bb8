# SPDX-License-Identifier: Apache-2.0
#
#   tendril_check_interception(<program>)
#
# Fails the build of a program that is linked with tendril::intercept, but so that libc's own functions would be
# called: by the loader's rules whatever the program itself needs is looked into in the order in which it was
# linked, and libc comes last unless somebody names it. What a runtime says when it starts, said earlier.
#
# The same by hand: cmake -D PROGRAM=<file> -P tendril-intercept.cmake

function(tendril_check_interception program)
  if(NOT TARGET "${program}")
    message(FATAL_ERROR "tendril_check_interception: '${program}' is no target; name a program made by "
      "add_executable()")
  endif()
  add_custom_command(TARGET "${program}" POST_BUILD
    COMMAND "${CMAKE_COMMAND}" -D "PROGRAM=$<TARGET_FILE:${program}>" -D "READELF=${CMAKE_READELF}"
      -P "${CMAKE_CURRENT_FUNCTION_LIST_FILE}"
    VERBATIM)
endfunction()

if(NOT CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  return()
endif()

if(NOT READELF)
  find_program(READELF NAMES readelf llvm-readelf REQUIRED)
endif()
execute_process(COMMAND "${READELF}" -d "${PROGRAM}" OUTPUT_VARIABLE dynamic RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${PROGRAM}: '${READELF} -d' cannot read it")
endif()
string(REGEX MATCHALL "NEEDED[^[]*\\[[^]]*\\]" lines "${dynamic}")
set(before "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE ".*\\[(.*)\\]$" "\\1" library "${line}")
  if(library MATCHES "^libtendril_intercept\\.so")
    if(before)
      message(FATAL_ERROR "${PROGRAM}: its libraries are looked into in the order in which they were "
        "linked, and ${before} comes before ${library}: libc's calls would block. Link tendril::intercept "
        "before what names libc (-lc, -lpthread).")
    endif()
    return()
  endif()
  if(library MATCHES "^lib(c|pthread|rt|dl|resolv|anl)\\.so\\.")
    set(before "${library}")
  endif()
endforeach()
message(FATAL_ERROR "${PROGRAM}: libtendril_intercept.so is not among the libraries that it needs: libc's "
  "calls would block. Link tendril::intercept into the program itself.")
