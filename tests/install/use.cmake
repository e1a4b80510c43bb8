# SPDX-License-Identifier: Apache-2.0
#
# cmake -P: installs a built tendril, configures a project against it, builds and runs it.
#   BUILD      tendril's build tree            PROJECT   the user's project
#   DIRECTORY  for the prefix and the build    OPTIONS   for configuring, separated by |
#   PROGRAM    what to run; empty: configure only

cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${DIRECTORY}")
string(REPLACE "|" ";" OPTIONS "${OPTIONS}")

function(step)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(GET ARGN 0 program)
    message(FATAL_ERROR "${program}: ${result}")
  endif()
endfunction()

execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${DIRECTORY}/prefix"
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
step("${CMAKE_COMMAND}" -S "${PROJECT}" -B "${DIRECTORY}/build" -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_PREFIX_PATH=${DIRECTORY}/prefix" ${OPTIONS})
if(PROGRAM)
  step("${CMAKE_COMMAND}" --build "${DIRECTORY}/build" --parallel 2)
  step("${DIRECTORY}/build/${PROGRAM}")
endif()
