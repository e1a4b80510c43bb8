# SPDX-License-Identifier: Apache-2.0
#
# The tests of interception that are not doctest programs: preloading, lookup order, the installed package.

set(intercept_front "LD_PRELOAD=$<TARGET_FILE:tendril_intercept>;ASAN_OPTIONS=verify_asan_link_order=0")

# intercept_subject: linked with tendril alone, and the front preloaded.
add_test(NAME intercept.preload COMMAND intercept_subject)
set_tests_properties(intercept.preload PROPERTIES
  ENVIRONMENT "${intercept_front}" LABELS intercept TIMEOUT 60)

add_test(NAME intercept.report_at_exit COMMAND intercept_subject)
set_tests_properties(intercept.report_at_exit PROPERTIES
  ENVIRONMENT "${intercept_front};TENDRIL_INTERCEPT_REPORT=1"
  PASS_REGULAR_EXPRESSION "symbol +in place +parked +elsewhere +blocked\n[^:]*  read  +[1-3] "
  LABELS intercept TIMEOUT 60)

# Of another version: the runtime does not start, and says why. It would wait for ever if it went on.
function(intercept_version_test other told)
  add_test(NAME intercept.version.${other} COMMAND intercept_subject)
  set_tests_properties(intercept.version.${other} PROPERTIES
    ENVIRONMENT "LD_PRELOAD=$<TARGET_FILE:intercept_${other}>;ASAN_OPTIONS=verify_asan_link_order=0"
    PASS_REGULAR_EXPRESSION
      "/opt/other/libtendril_intercept.so[^:]* is tendril::intercept ${told}, and[^:]* is ${PROJECT_VERSION} \\(symbols [0-9a-f]+\\): build and install both together"
    LABELS intercept TIMEOUT 60)
endfunction()
intercept_version_test(telling "9\\.8\\.7 \\(symbols 0123456789abcdef\\)")
intercept_version_test(silent "of a version that does not tell")

# intercept_behind: linked so that libc comes first; said by the check of the build, and by a runtime that starts.
if(NOT TENDRIL_SANITIZE)  # whose libraries want to come first, too
  add_test(NAME intercept.order.at_start COMMAND intercept_behind start-only)
  set_tests_properties(intercept.order.at_start PROPERTIES
    PASS_REGULAR_EXPRESSION "libc's calls will block: 'read' is found in .*/libc\\.so\\.6, which comes before"
    LABELS intercept TIMEOUT 60)
endif()
function(intercept_order_test name program text)
  add_test(NAME intercept.order.${name}
    COMMAND "${CMAKE_COMMAND}" -D "PROGRAM=$<TARGET_FILE:${program}>" -D "READELF=${CMAKE_READELF}"
      -P "${PROJECT_SOURCE_DIR}/cmake/tendril-intercept.cmake")
  set_tests_properties(intercept.order.${name} PROPERTIES LABELS intercept TIMEOUT 60)
  if(text)
    set_tests_properties(intercept.order.${name} PROPERTIES PASS_REGULAR_EXPRESSION "${text}")
  endif()
endfunction()
intercept_order_test(linked_first test_intercept "")
intercept_order_test(linked_late intercept_behind
  "libc\\.so\\.6 comes[ \n]+before[ \n]+libtendril_intercept\\.so")
intercept_order_test(not_linked intercept_subject "is[ \n]+not[ \n]+among[ \n]+the[ \n]+libraries")

# A user's project.
if(NOT TENDRIL_SANITIZE)
  add_test(NAME intercept.install
    COMMAND "${CMAKE_COMMAND}"
      -D "BUILD=${PROJECT_BINARY_DIR}"
      -D "PROJECT=${CMAKE_CURRENT_LIST_DIR}/install/intercept"
      -D "DIRECTORY=${CMAKE_CURRENT_BINARY_DIR}/intercept.install"
      -D "PROGRAM=intercept_consumer"
      -D "OPTIONS=-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}"
      -P "${CMAKE_CURRENT_LIST_DIR}/install/use.cmake")
  set_tests_properties(intercept.install PROPERTIES LABELS intercept TIMEOUT 600)
endif()

# The checker of binaries, and the page about all this.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  if(NOT TENDRIL_SANITIZE)  # what sanitizers link with waits for a lot
    add_test(NAME intercept.check_binary
      COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/intercept/check_binary_test.py"
        "${PROJECT_SOURCE_DIR}/cmake/check_binary.py" "$<TARGET_FILE:intercept_checked>"
        "$<TARGET_FILE:intercept_checked_library>" "$<TARGET_FILE:tendril_test_support>")
    set_tests_properties(intercept.check_binary PROPERTIES LABELS intercept TIMEOUT 300)
  endif()
  add_test(NAME intercept.page
    COMMAND Python3::Interpreter "${PROJECT_SOURCE_DIR}/cmake/interception_table.py" --check)
  set_tests_properties(intercept.page PROPERTIES LABELS intercept TIMEOUT 60)
endif()
