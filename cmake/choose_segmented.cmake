# SPDX-License-Identifier: Apache-2.0
#
# Whether this build of the library has segmented stacks: TENDRIL_HAS_SEGMENTED, else
# TENDRIL_SEGMENTED_WHY_NOT. TENDRIL_SEGMENTED_COMPILE_OPTIONS and _LINK_OPTIONS are what
# tendril::segmented is made of, and the first also what the sources named by tendril_on_fibers() are
# compiled with: code of the library that runs on fibers must ask for room like the user's.

include("${CMAKE_CURRENT_LIST_DIR}/segmented.cmake")

set(TENDRIL_HAS_SEGMENTED OFF)
set(TENDRIL_SEGMENTED_WHY_NOT "")
if(TENDRIL_SEGMENTED STREQUAL "OFF")
  set(TENDRIL_SEGMENTED_WHY_NOT "it was configured with TENDRIL_SEGMENTED=OFF")
elseif(NOT TENDRIL_SWITCH STREQUAL "native")
  string(CONCAT TENDRIL_SEGMENTED_WHY_NOT
    "the limit of a segment is changed by tendril's own context switch, and TENDRIL_SWITCH is "
    "'${TENDRIL_SWITCH}'; configure with -DTENDRIL_SWITCH=native, which exists for: "
    "${TENDRIL_NATIVE_SWITCH_ARCHES}")
elseif(TENDRIL_SANITIZE)
  string(CONCAT TENDRIL_SEGMENTED_WHY_NOT
    "sanitizers know one stack a fiber, and TENDRIL_SANITIZE is '${TENDRIL_SANITIZE}'; use "
    "stack_kind::reserved in sanitizer builds")
elseif(BUILD_SHARED_LIBS)
  string(CONCAT TENDRIL_SEGMENTED_WHY_NOT
    "the static library alone offers them, and BUILD_SHARED_LIBS is '${BUILD_SHARED_LIBS}'; "
    "configure with -DBUILD_SHARED_LIBS=OFF")
else()
  tendril_check_segmented(TENDRIL_SEGMENTED)
endif()

# It becomes a string of C++ and of the package's config, and may quote a compiler.
string(REGEX REPLACE "[\"\\\\$]" "'" TENDRIL_SEGMENTED_WHY_NOT "${TENDRIL_SEGMENTED_WHY_NOT}")

if(NOT TENDRIL_SEGMENTED_WHY_NOT)
  set(TENDRIL_HAS_SEGMENTED ON)
elseif(TENDRIL_SEGMENTED STREQUAL "ON")
  message(FATAL_ERROR "TENDRIL_SEGMENTED=ON, but: ${TENDRIL_SEGMENTED_WHY_NOT}")
else()
  message(STATUS "Segmented stacks: off; ${TENDRIL_SEGMENTED_WHY_NOT}")
endif()

# tendril_on_fibers(<source>...): these sources of tendril, relative to the caller's folder, run on
# fibers' stacks. Never what grows those stacks.
function(tendril_on_fibers)
  if(TENDRIL_HAS_SEGMENTED)
    set_source_files_properties(${ARGN} TARGET_DIRECTORY tendril PROPERTIES
      COMPILE_OPTIONS "${TENDRIL_SEGMENTED_COMPILE_OPTIONS}")
  endif()
endfunction()
