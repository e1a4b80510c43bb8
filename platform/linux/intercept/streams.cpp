// SPDX-License-Identifier: Apache-2.0
//
// The functions on streams, and the log's, that take any number of arguments: they become those that take a va_list. libc's own
// are therefore never called with a part of what they were given.
#include "platform/linux/intercept/front.hpp"

#include <cstdarg>
#include <cstdio>

using namespace tendril::platform::front;

// NOLINTBEGIN(bugprone-macro-parentheses)
#define TENDRIL_FRONT_VARIADIC(name, parameters, last, as, ...)                                 \
  extern "C" int front_##name parameters {                                                      \
    std::va_list arguments;                                                                     \
    va_start(arguments, last);                                                                  \
    const auto* const hooks = hooks_on_fiber();                                                 \
    const int result =                                                                          \
        hooks != nullptr ? hooks->as(__VA_ARGS__, arguments) : real.as(__VA_ARGS__, arguments); \
    va_end(arguments);                                                                          \
    return result;                                                                              \
  }

TENDRIL_FRONT_VARIADIC(fprintf, (FILE * f, const char* format, ...), format, vfprintf, f, format)
TENDRIL_FRONT_VARIADIC(printf, (const char* format, ...), format, vprintf, format)
TENDRIL_FRONT_VARIADIC(dprintf, (int fd, const char* format, ...), format, vdprintf, fd, format)
TENDRIL_FRONT_VARIADIC(__fprintf_chk, (FILE * f, int flag, const char* format, ...), format,
                       __vfprintf_chk, f, flag, format)
TENDRIL_FRONT_VARIADIC(__printf_chk, (int flag, const char* format, ...), format, __vprintf_chk,
                       flag, format)
TENDRIL_FRONT_VARIADIC(__dprintf_chk, (int fd, int flag, const char* format, ...), format,
                       __vdprintf_chk, fd, flag, format)
TENDRIL_FRONT_VARIADIC(fscanf, (FILE * f, const char* format, ...), format, vfscanf, f, format)
TENDRIL_FRONT_VARIADIC(scanf, (const char* format, ...), format, vscanf, format)
TENDRIL_FRONT_VARIADIC(__isoc99_fscanf, (FILE * f, const char* format, ...), format,
                       __isoc99_vfscanf, f, format)
TENDRIL_FRONT_VARIADIC(__isoc99_scanf, (const char* format, ...), format, __isoc99_vscanf, format)
TENDRIL_FRONT_VARIADIC(fwprintf, (FILE * f, const wchar_t* format, ...), format, vfwprintf, f,
                       format)
TENDRIL_FRONT_VARIADIC(wprintf, (const wchar_t* format, ...), format, vwprintf, format)
TENDRIL_FRONT_VARIADIC(__fwprintf_chk, (FILE * f, int flag, const wchar_t* format, ...), format,
                       __vfwprintf_chk, f, flag, format)
TENDRIL_FRONT_VARIADIC(__wprintf_chk, (int flag, const wchar_t* format, ...), format,
                       __vwprintf_chk, flag, format)
TENDRIL_FRONT_VARIADIC(fwscanf, (FILE * f, const wchar_t* format, ...), format, vfwscanf, f, format)
TENDRIL_FRONT_VARIADIC(wscanf, (const wchar_t* format, ...), format, vwscanf, format)
TENDRIL_FRONT_VARIADIC(__isoc99_fwscanf, (FILE * f, const wchar_t* format, ...), format,
                       __isoc99_vfwscanf, f, format)
TENDRIL_FRONT_VARIADIC(__isoc99_wscanf, (const wchar_t* format, ...), format, __isoc99_vwscanf,
                       format)

#define TENDRIL_FRONT_VARIADIC_VOID(name, parameters, as, ...)                         \
  extern "C" void front_##name parameters {                                            \
    std::va_list arguments;                                                            \
    va_start(arguments, format);                                                       \
    if (const auto* const hooks = hooks_on_fiber()) hooks->as(__VA_ARGS__, arguments); \
    else real.as(__VA_ARGS__, arguments);                                              \
    va_end(arguments);                                                                 \
  }
TENDRIL_FRONT_VARIADIC_VOID(syslog, (int priority, const char* format, ...), vsyslog, priority,
                            format)
TENDRIL_FRONT_VARIADIC_VOID(__syslog_chk, (int priority, int flag, const char* format, ...),
                            __vsyslog_chk, priority, flag, format)
// NOLINTEND(bugprone-macro-parentheses)
