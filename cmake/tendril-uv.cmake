# SPDX-License-Identifier: Apache-2.0
#
# Defines tendril::uv, whatever libuv's installation calls itself: its CMake package has named the
# target differently over the years, and Debian ships only the .pc file. Installed beside the
# config, so that a static tendril is linked by the same search that built it. Sets nothing when
# libuv is missing; the caller reports it.

if(NOT TARGET tendril::uv)
  find_package(libuv QUIET CONFIG)
  foreach(tendril_uv_target IN ITEMS libuv::uv libuv::uv_a uv uv_a)
    if(TARGET ${tendril_uv_target} AND NOT TARGET tendril::uv)
      add_library(tendril::uv INTERFACE IMPORTED)
      target_link_libraries(tendril::uv INTERFACE ${tendril_uv_target})
    endif()
  endforeach()
  unset(tendril_uv_target)
  if(NOT TARGET tendril::uv)
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(tendril_libuv QUIET IMPORTED_TARGET libuv>=1.41)
      if(TARGET PkgConfig::tendril_libuv)
        add_library(tendril::uv INTERFACE IMPORTED)
        target_link_libraries(tendril::uv INTERFACE PkgConfig::tendril_libuv)
      endif()
    endif()
  endif()
endif()
