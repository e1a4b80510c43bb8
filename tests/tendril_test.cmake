# SPDX-License-Identifier: Apache-2.0
#
#   tendril_test(<group> SOURCES <file>... [LABELS <label>...] [TIMEOUT <seconds>]
#                [LIBRARIES <target>...] [KINDS <kind>...] [SERVERS <kind>...]
#                [EXCEPT <kind> <suite> <case> <reason> ...])
#
# Builds test_<group> and registers one ctest entry for each of its doctest suites, labelled with
# the group and LABELS. Suites rather than cases: a crash or a hang is confined to its suite and
# named, without paying for a process a case. Rather than whole programs: the same reason. The
# suites are asked of the built program, so none can be forgotten; a case outside any suite fails
# the build.
#
# KINDS: each suite once more for each of these kinds of stack, as `<group>.<suite>@<kind>`, labelled
# on-<kind> as well, with TENDRIL_STACK=<kind> in its environment: what fibers get that do not name a
# stack (support/own_stack.hpp: who does). The first entries of such a group, on reserved stacks, are
# labelled on-reserved.
#
#   tasklet    the same program; and again as @tasklet_strict, with TENDRIL_TASKLETS=strict, where whatever
#              parks is copied out and spoiled at once. Under sanitizers this one alone: it is what they look at
#   segmented  a second program of the same sources, test_<group>_segmented, compiled for segments:
#              fibers on small segments run no other code. Not built where there are none, and under
#              sanitizers, where segmented fibers get reserved stacks
#
# SERVERS: run by clients/server.py, which starts these for each entry and stops them. Skipped, with its
# message, where one of them is not installed.
#
# EXCEPT: what a kind cannot run, with the reason. <case> is a filter of doctest's (a name; write ? for a
# comma), or * for the whole suite. One that matches nothing fails the build.

# Seconds that a suite of stress tests takes are for its own kind; the others look for what is theirs.
set(TENDRIL_REPEATED_STRESS_SCALE 0.1)

# tendril_test_entries(<program target> <kind> <name> <environment>...): registers the suites of a built
# program, as @<name> unless that is empty; in the scope of tendril_test.
macro(tendril_test_entries target kind name)
  set(environment ${ARGN})
  set(launcher "")
  if(arg_SERVERS)
    string(REPLACE ";" "," servers "${arg_SERVERS}")
    set(launcher "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/clients/server.py" ${servers})
  endif()
  set(script "${CMAKE_CURRENT_BINARY_DIR}/test_${group}${name}.cmake")
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND "${CMAKE_COMMAND}"
      -D "PROGRAM=$<TARGET_FILE:${target}>"
      -D "GROUP=${group}"
      -D "KIND=${name}"
      -D "EXCEPT=${except_${kind}}"
      -D "LABELS=${labels_${kind}}"
      -D "ENVIRONMENT=${environment}"
      -D "LAUNCHER=${launcher}"
      -D "TIMEOUT=${arg_TIMEOUT}"
      -D "DIRECTORY=${CMAKE_CURRENT_BINARY_DIR}"
      -D "OUTPUT=${script}"
      -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/discover_suites.cmake"
    BYPRODUCTS "${script}"
    VERBATIM)

  # Read by ctest when it starts, after the build; a program that was not built has no entries.
  set(include "${CMAKE_CURRENT_BINARY_DIR}/test_${group}${name}_include.cmake")
  file(WRITE "${include}" "include(\"${script}\" OPTIONAL)\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${include}")
endmacro()

function(tendril_test group)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LABELS;LIBRARIES;KINDS;SERVERS;EXCEPT")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "tendril_test(${group}): what is '${arg_UNPARSED_ARGUMENTS}'?")
  endif()
  if(NOT arg_SOURCES)
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 400)  # for what hangs; a busy machine takes its time
  endif()
  list(PREPEND arg_LABELS ${group})

  add_executable(test_${group} ${arg_SOURCES})
  target_link_libraries(test_${group} PRIVATE tendril_test_support ${arg_LIBRARIES})
  set_target_properties(test_${group} PROPERTIES CXX_EXTENSIONS OFF)

  # What each kind leaves out: <suite>|<case>, separated by |
  while(arg_EXCEPT)
    list(LENGTH arg_EXCEPT length)
    if(length LESS 4)
      message(FATAL_ERROR "tendril_test(${group}): EXCEPT ${arg_EXCEPT}: a kind, a suite, a case and a "
        "reason each")
    endif()
    list(POP_FRONT arg_EXCEPT kind suite case reason)
    if(NOT kind IN_LIST arg_KINDS)
      message(FATAL_ERROR "tendril_test(${group}): EXCEPT ${kind}: not among its KINDS")
    endif()
    string(APPEND except_${kind} "${suite}|${case}|")
  endwhile()

  # ThreadSanitizer's own poll() and its kin look away while they wait, and what a fiber does in there would seem to
  # be racy: the front must stand before them, too.
  set(common "")
  if(TENDRIL_SANITIZE STREQUAL "thread" AND "tendril::intercept" IN_LIST arg_LIBRARIES)
    set(common "LD_PRELOAD=$<TARGET_FILE:tendril_intercept>")
  endif()

  set(labels_ ${arg_LABELS})
  if(arg_KINDS)
    list(APPEND labels_ on-reserved)
  endif()
  tendril_test_entries(test_${group} "" "" ${common})

  foreach(kind IN LISTS arg_KINDS)
    set(program test_${group})
    if(kind STREQUAL "segmented")
      if(NOT TENDRIL_HAS_SEGMENTED)
        continue()
      endif()
      set(program test_${group}_segmented)
      add_executable(${program} ${arg_SOURCES})
      target_link_libraries(${program} PRIVATE
        tendril_test_support ${arg_LIBRARIES} tendril::segmented)
      set_target_properties(${program} PROPERTIES CXX_EXTENSIONS OFF)
    elseif(NOT kind STREQUAL "tasklet")
      message(FATAL_ERROR "tendril_test(${group}): KINDS ${kind}: known are segmented and tasklet")
    endif()
    set(labels_${kind} ${arg_LABELS} on-${kind})
    set(repeated ${common} TENDRIL_STACK=${kind} TENDRIL_STRESS_SCALE=${TENDRIL_REPEATED_STRESS_SCALE})
    if(NOT kind STREQUAL "tasklet" OR NOT TENDRIL_SANITIZE)
      tendril_test_entries(${program} ${kind} ${kind} ${repeated})
    endif()
    if(kind STREQUAL "tasklet")
      tendril_test_entries(${program} ${kind} tasklet_strict ${repeated} TENDRIL_TASKLETS=strict)
    endif()
  endforeach()
endfunction()
