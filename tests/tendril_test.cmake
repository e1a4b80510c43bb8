# SPDX-License-Identifier: Apache-2.0
#
#   tendril_test(<group> SOURCES <file>... [LABELS <label>...] [TIMEOUT <seconds>]
#                [LIBRARIES <target>...])
#
# Builds test_<group> and registers one ctest entry for each of its doctest suites, labelled with
# the group and LABELS. Suites rather than cases: a crash or a hang is confined to its suite and
# named, without paying for a process a case. Rather than whole programs: the same reason. The
# suites are asked of the built program, so none can be forgotten; a case outside any suite fails
# the build.

function(tendril_test group)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LABELS;LIBRARIES")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "tendril_test(${group}): what is '${arg_UNPARSED_ARGUMENTS}'?")
  endif()
  if(NOT arg_SOURCES)
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  list(PREPEND arg_LABELS ${group})

  add_executable(test_${group} ${arg_SOURCES})
  target_link_libraries(test_${group} PRIVATE tendril_test_support ${arg_LIBRARIES})
  set_target_properties(test_${group} PROPERTIES CXX_EXTENSIONS OFF)

  set(script "${CMAKE_CURRENT_BINARY_DIR}/test_${group}.cmake")
  add_custom_command(TARGET test_${group} POST_BUILD
    COMMAND "${CMAKE_COMMAND}"
      -D "PROGRAM=$<TARGET_FILE:test_${group}>"
      -D "GROUP=${group}"
      -D "LABELS=${arg_LABELS}"
      -D "TIMEOUT=${arg_TIMEOUT}"
      -D "DIRECTORY=${CMAKE_CURRENT_BINARY_DIR}"
      -D "OUTPUT=${script}"
      -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/discover_suites.cmake"
    BYPRODUCTS "${script}"
    VERBATIM)

  # Read by ctest when it starts, after the build; a program that was not built has no entries.
  set(include "${CMAKE_CURRENT_BINARY_DIR}/test_${group}_include.cmake")
  file(WRITE "${include}" "include(\"${script}\" OPTIONAL)\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${include}")
endfunction()
