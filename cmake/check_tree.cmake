# SPDX-License-Identifier: Apache-2.0
#
# cmake -P check_tree.cmake: the rules of the tree that no compiler checks.
#
#  1. Every source and public header is named in a list; the build globs nothing, so a file that
#     is not listed would silently be neither built nor installed.
#  2. Public headers, also those of a platform, include the standard library and each other only. The
#     exception is a header that adapts one other library and is included by choice, with a target of
#     its own that finds it: tendril/asio.hpp, which no other public header may include.
#  3. Boost.Context is used in src/context alone, libuv in src/io alone.
#  4. The processor and the operating system are asked for in platform/ alone.
#  5. Every file says its licence in its first lines.
#  6. config.hpp and CMake agree about the version.
#  7. Includes point one way: a folder of src includes itself and the folders below it (src/README.md).

cmake_minimum_required(VERSION 3.25)
get_filename_component(root "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
set(errors "")

function(complain)
  string(CONCAT message ${ARGN})
  set(errors "${errors}\n  ${message}" PARENT_SCOPE)
endfunction()

# The folder's CMakeLists.txt, or the next one above it, must name the file.
function(is_listed variable path)
  set(${variable} OFF PARENT_SCOPE)
  set(folder "${root}/${path}")
  while(NOT folder STREQUAL root)
    get_filename_component(folder "${folder}" DIRECTORY)
    if(EXISTS "${folder}/CMakeLists.txt")
      file(READ "${folder}/CMakeLists.txt" list)
      file(RELATIVE_PATH name "${folder}" "${root}/${path}")
      string(REGEX REPLACE "#[^\n]*" "" list "${list}")
      string(REGEX REPLACE "\\\${TENDRIL_ARCH}" "x86_64" list "${list}")
      string(REGEX REPLACE "([][+.*()^$?|\\\\])" "\\\\\\1" pattern "${name}")
      if(list MATCHES "(^|[ \t\r\n\"(/])${pattern}($|[ \t\r\n\")])")
        set(${variable} ON PARENT_SCOPE)
        return()
      endif()
    endif()
  endwhile()
endfunction()

set(below_base "base")
set(below_stack "base|stack")
set(below_context "base|stack|context")
set(below_sched "base|stack|context|sched")
set(below_sync "${below_sched}|sync")
set(below_io "${below_sched}|io")
set(below_bridge "${below_sched}|bridge")
set(below_intercept "${below_io}|intercept")

foreach(folder IN ITEMS include src platform tests bench examples)
  file(GLOB_RECURSE files RELATIVE "${root}" "${root}/${folder}/*.hpp" "${root}/${folder}/*.h"
    "${root}/${folder}/*.cpp" "${root}/${folder}/*.c" "${root}/${folder}/*.S" "${root}/${folder}/*.def")
  foreach(path IN LISTS files)
    file(READ "${root}/${path}" text LIMIT 400)
    if(NOT text MATCHES "SPDX-License-Identifier: Apache-2.0")
      complain("${path}: no SPDX line")
    endif()

    if(path MATCHES "\\.(cpp|c)$" OR path MATCHES "(^|/)include/")
      is_listed(listed "${path}")
      if(NOT listed)
        complain("${path}: named in no CMakeLists.txt")
      endif()
    endif()

    file(STRINGS "${root}/${path}" includes REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"]")
    foreach(line IN LISTS includes)
      string(REGEX REPLACE "^[^<\"]*[<\"]([^>\"]*).*$" "\\1" header "${line}")
      if(path MATCHES "^(include|platform/[^/]+/include)/" AND NOT header MATCHES "^tendril/" AND header MATCHES "[/.]" AND NOT (path STREQUAL "include/tendril/asio.hpp" AND header MATCHES "^(boost/asio|boost/system|asio)/") AND NOT (path STREQUAL "include/tendril/gc.hpp" AND header MATCHES "^gc/"))
        complain("${path}: a public header includes ${header}")
      endif()
      if(path MATCHES "^(include|src|platform)/" AND header MATCHES "^tendril/(asio|gc)\\.hpp$")
        complain("${path}: includes the optional ${header}")
      endif()
      if(path MATCHES "^src/([a-z]+)/")
        set(layer "${CMAKE_MATCH_1}")
        if(NOT DEFINED below_${layer})
          complain("${path}: src/${layer} has no place among the layers (cmake/check_tree.cmake)")
        elseif(header MATCHES "^(base|stack|context|sched|sync|io|bridge|intercept)/" AND NOT header MATCHES "^(${below_${layer}})/")
          complain("${path}: ${header} is not below src/${layer}")
        endif()
      endif()
      if(path MATCHES "^(src|platform)/")
        if(header MATCHES "^boost/" AND NOT path MATCHES "^src/context/")
          complain("${path}: ${header} outside src/context")
        endif()
        if(header MATCHES "^uv\\.h$" AND NOT path MATCHES "^src/io/")
          complain("${path}: ${header} outside src/io")
        endif()
      endif()
    endforeach()

    if(path MATCHES "^(include|src)/")
      file(STRINGS "${root}/${path}" conditions REGEX
        "^[ \t]*#[ \t]*(if|ifdef|ifndef|elif).*(__linux|__APPLE__|_WIN32|__unix|__x86_64|__aarch64|__arm)")
      foreach(line IN LISTS conditions)
        complain("${path}: asks for the platform: ${line}")
      endforeach()
    endif()
  endforeach()
endforeach()

file(STRINGS "${root}/CMakeLists.txt" version REGEX "^  VERSION [0-9.]+")
string(REGEX REPLACE "^ *VERSION " "" version "${version}")
file(STRINGS "${root}/include/tendril/config.hpp" macro REGEX "TENDRIL_VERSION_STRING")
if(NOT macro MATCHES "\"${version}\"")
  complain("include/tendril/config.hpp and CMakeLists.txt disagree about the version (${version})")
endif()

if(errors)
  message(FATAL_ERROR "The tree breaks its rules:${errors}")
endif()
