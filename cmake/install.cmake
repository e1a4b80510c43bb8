# SPDX-License-Identifier: Apache-2.0
#
# Installs the headers, the library, the CMake package and the .pc file. tests/install builds a
# program against both.

include(CMakePackageConfigHelpers)

set(TENDRIL_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/tendril")
get_target_property(TENDRIL_LIBRARY_TYPE tendril TYPE)

install(TARGETS tendril
  EXPORT tendril-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(TARGET tendril_intercept)
  install(TARGETS tendril_intercept
    EXPORT tendril-targets
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  install(FILES "${PROJECT_SOURCE_DIR}/cmake/tendril-intercept.cmake"
    DESTINATION "${TENDRIL_CMAKE_DIR}")
endif()
install(EXPORT tendril-targets NAMESPACE tendril:: DESTINATION "${TENDRIL_CMAKE_DIR}")

configure_package_config_file(
  cmake/tendril-config.cmake.in "${PROJECT_BINARY_DIR}/tendril-config.cmake"
  INSTALL_DESTINATION "${TENDRIL_CMAKE_DIR}"
  NO_SET_AND_CHECK_MACRO)
# Before 1.0 every minor version may break its users.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/tendril-config-version.cmake"
  COMPATIBILITY SameMinorVersion)

# A static archive cannot name what it needs, and users forget `pkg-config --static`: the private
# libraries are private in the .pc file only when tendril is shared.
set(TENDRIL_PC_EXTRA "-lboost_context ${CMAKE_THREAD_LIBS_INIT}")
foreach(directory IN LISTS Boost_LIBRARY_DIRS)
  if(NOT directory IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
    string(PREPEND TENDRIL_PC_EXTRA "-L${directory} ")
  endif()
endforeach()
foreach(library IN LISTS CMAKE_DL_LIBS)
  string(APPEND TENDRIL_PC_EXTRA " -l${library}")
endforeach()
set(TENDRIL_PC_USES "libuv")
if(TENDRIL_HAS_LZ4)
  string(APPEND TENDRIL_PC_USES ", liblz4")
endif()
if(TENDRIL_LIBRARY_TYPE STREQUAL "STATIC_LIBRARY")
  set(TENDRIL_PC_LIBS " ${TENDRIL_PC_EXTRA}")
  set(TENDRIL_PC_LIBS_PRIVATE "")
  set(TENDRIL_PC_REQUIRES "${TENDRIL_PC_USES}")
  set(TENDRIL_PC_REQUIRES_PRIVATE "")
else()
  set(TENDRIL_PC_LIBS "")
  set(TENDRIL_PC_LIBS_PRIVATE "${TENDRIL_PC_EXTRA}")
  set(TENDRIL_PC_REQUIRES "")
  set(TENDRIL_PC_REQUIRES_PRIVATE "${TENDRIL_PC_USES}")
endif()
# Relative to the .pc file, so that an installed tree can be moved.
file(RELATIVE_PATH TENDRIL_PC_PREFIX
  "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" TENDRIL_PC_PREFIX "${TENDRIL_PC_PREFIX}")
configure_file(cmake/tendril.pc.in "${PROJECT_BINARY_DIR}/tendril.pc" @ONLY)

install(FILES
  "${PROJECT_BINARY_DIR}/tendril-config.cmake"
  "${PROJECT_BINARY_DIR}/tendril-config-version.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/tendril-find.cmake"
  DESTINATION "${TENDRIL_CMAKE_DIR}")
if(TENDRIL_HAS_SEGMENTED)
  install(FILES
    "${PROJECT_SOURCE_DIR}/cmake/segmented.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/split_prologues.s"
    DESTINATION "${TENDRIL_CMAKE_DIR}")
  # What was found of this build's compiler; nobody checks the user's.
  set(TENDRIL_PC_SEGMENTED_CFLAGS "")
  foreach(option IN LISTS TENDRIL_SEGMENTED_COMPILE_OPTIONS)
    string(APPEND TENDRIL_PC_SEGMENTED_CFLAGS " ${option}")
  endforeach()
  set(TENDRIL_PC_SEGMENTED_LIBS "")
  foreach(option IN LISTS TENDRIL_SEGMENTED_LINK_OPTIONS)
    string(REPLACE "LINKER:" "-Wl," option "${option}")
    string(APPEND TENDRIL_PC_SEGMENTED_LIBS " ${option}")
  endforeach()
  configure_file(cmake/tendril-segmented.pc.in "${PROJECT_BINARY_DIR}/tendril-segmented.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/tendril-segmented.pc"
    DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endif()
install(FILES "${PROJECT_BINARY_DIR}/tendril.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
