# SPDX-License-Identifier: Apache-2.0
#
# Run after a test program is linked: writes one add_test for each doctest suite in it.
# In: PROGRAM, GROUP, LABELS, TIMEOUT, DIRECTORY (the tests' working directory), OUTPUT; LAUNCHER, a command that
# is given the program's; for a kind of stack KIND, ENVIRONMENT and EXCEPT: <suite>|<case>|..., which are left out.

cmake_minimum_required(VERSION 3.25)

function(ask variable)
  execute_process(COMMAND "${PROGRAM}" --no-colors=true ${ARGN}
    OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${PROGRAM} ${ARGN} failed (${result}):\n${output}")
  endif()
  set(${variable} "${output}" PARENT_SCOPE)
endfunction()

function(count_cases variable)
  ask(output --count ${ARGN})
  if(NOT output MATCHES "current filters: ([0-9]+)")
    message(FATAL_ERROR "${PROGRAM} --count ${ARGN} printed:\n${output}")
  endif()
  set(${variable} ${CMAKE_MATCH_1} PARENT_SCOPE)
endfunction()

# What is left out of a suite, as doctest's filter; the whole of it: *.
string(REPLACE "|" ";" excepted "${EXCEPT}")
list(REMOVE_ITEM excepted "")
while(excepted)
  list(POP_FRONT excepted suite case)
  count_cases(count "--test-suite=${suite}" "--test-case=${case}")
  if(count EQUAL 0)
    message(FATAL_ERROR "${PROGRAM}: EXCEPT '${suite}' '${case}' matches no case")
  endif()
  string(MAKE_C_IDENTIFIER "${suite}" id)
  list(APPEND except_${id} "${case}")
endwhile()

set(launcher "")
foreach(word IN LISTS LAUNCHER)
  string(APPEND launcher "[==[${word}]==] ")
endforeach()

ask(listing --list-test-suites)
string(REPLACE "\n" ";" lines "${listing}")
set(script "")
set(in_suites 0)
foreach(suite IN LISTS lines)
  if(suite MATCHES "^(\\[doctest\\].*|=*)$")
    continue()
  endif()
  if(NOT suite MATCHES "^[A-Za-z0-9_./: -]+$")
    message(FATAL_ERROR "${PROGRAM}: the suite name '${suite}' has characters that doctest's "
      "filters or ctest interpret; use letters, digits, spaces and _ . / : -")
  endif()
  count_cases(count "--test-suite=${suite}")
  math(EXPR in_suites "${in_suites} + ${count}")
  set(name "${GROUP}.${suite}")
  if(KIND)
    string(APPEND name "@${KIND}")
  endif()
  set(filter "")
  string(MAKE_C_IDENTIFIER "${suite}" id)
  if("*" IN_LIST except_${id})
    continue()
  elseif(except_${id})
    string(REPLACE ";" "," filter "${except_${id}}")
    set(filter "[==[--test-case-exclude=${filter}]==]")
  endif()
  string(APPEND script
    "add_test([==[${name}]==] ${launcher}[==[${PROGRAM}]==] [==[--test-suite=${suite}]==] ${filter})\n"
    "set_tests_properties([==[${name}]==] PROPERTIES"
    " TIMEOUT ${TIMEOUT} LABELS [==[${LABELS}]==] WORKING_DIRECTORY [==[${DIRECTORY}]==]"
    " ENVIRONMENT [==[${ENVIRONMENT}]==] SKIP_RETURN_CODE 77)\n")
endforeach()

count_cases(total)
if(NOT total EQUAL in_suites)
  message(FATAL_ERROR "${PROGRAM}: ${total} cases, of which ${in_suites} in suites; put each case "
    "into exactly one TEST_SUITE")
endif()
file(WRITE "${OUTPUT}" "${script}")
