# SPDX-License-Identifier: Apache-2.0
#
# Sanitizers reach everything in this build that links tendril: half an instrumented program reports
# nonsense. They are a property of the build, so they are not exported. Assembly is not touched.

add_library(tendril_sanitizers INTERFACE)
if(TENDRIL_SANITIZE)
  set(tendril_sanitizer_flags
    -fsanitize=${TENDRIL_SANITIZE}
    -fno-sanitize-recover=all
    -fno-omit-frame-pointer)
  target_compile_options(tendril_sanitizers INTERFACE
    "$<$<COMPILE_LANGUAGE:C,CXX>:${tendril_sanitizer_flags}>")
  target_link_options(tendril_sanitizers INTERFACE -fsanitize=${TENDRIL_SANITIZE})
endif()
