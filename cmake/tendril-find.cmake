# SPDX-License-Identifier: Apache-2.0
#
# tendril_find(NAME PACKAGE "TARGETS" PC): defines tendril::NAME, whatever that library's installation calls itself: its
# CMake package, whose targets have had other names over the years, or, as in Debian, only a .pc file. Installed beside
# the config, so that a static tendril is linked by the same search that built it. Defines nothing when the library is
# missing; the caller says what that means.

function(tendril_find name package targets pc)
  if(TARGET tendril::${name})
    return()
  endif()
  set(found "")
  find_package(${package} QUIET CONFIG)
  foreach(candidate IN LISTS targets)
    if(NOT found AND TARGET ${candidate})
      set(found ${candidate})
    endif()
  endforeach()
  if(NOT found)
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(tendril_${name} QUIET IMPORTED_TARGET ${pc})
      if(TARGET PkgConfig::tendril_${name})
        set(found PkgConfig::tendril_${name})
      endif()
    endif()
  endif()
  if(found)
    add_library(tendril::${name} INTERFACE IMPORTED)
    target_link_libraries(tendril::${name} INTERFACE ${found})
  endif()
endfunction()

function(tendril_find_uv)
  tendril_find(uv libuv "libuv::uv;libuv::uv_a;uv;uv_a" libuv>=1.41)
endfunction()

function(tendril_find_lz4)
  tendril_find(lz4 lz4 "LZ4::lz4;LZ4::lz4_shared;LZ4::lz4_static;lz4::lz4" liblz4>=1.8)
endfunction()
