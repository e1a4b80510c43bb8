# SPDX-License-Identifier: Apache-2.0
#
# Defines tendril::lz4, whatever liblz4's installation calls itself: its CMake package, where there is one, or the .pc
# file. Installed beside the config, so that a static tendril that was built with it is linked by the same search.
# Sets nothing when liblz4 is missing; the caller says what that means.

if(NOT TARGET tendril::lz4)
  find_package(lz4 QUIET CONFIG)
  foreach(tendril_lz4_target IN ITEMS LZ4::lz4 LZ4::lz4_shared LZ4::lz4_static lz4::lz4)
    if(TARGET ${tendril_lz4_target} AND NOT TARGET tendril::lz4)
      add_library(tendril::lz4 INTERFACE IMPORTED)
      target_link_libraries(tendril::lz4 INTERFACE ${tendril_lz4_target})
    endif()
  endforeach()
  unset(tendril_lz4_target)
  if(NOT TARGET tendril::lz4)
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(tendril_liblz4 QUIET IMPORTED_TARGET liblz4>=1.8)
      if(TARGET PkgConfig::tendril_liblz4)
        add_library(tendril::lz4 INTERFACE IMPORTED)
        target_link_libraries(tendril::lz4 INTERFACE PkgConfig::tendril_liblz4)
      endif()
    endif()
  endif()
endif()
