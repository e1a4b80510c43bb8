// SPDX-License-Identifier: Apache-2.0
//
// The system's log. libc sends to its server by calls of its own, and waits when that is behind. So the text is made
// first, here, where %m means the caller's errno, and what sends it is treated as a disk is: in place while that is quick.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/on_disk.hpp"
#include "intercept/owned_text.hpp"

extern "C" int __vasprintf_chk(char**, int, const char*, std::va_list);

namespace tendril::detail {
namespace {

/// Without memory for it: nothing is said, as libc does.
void log(symbol what, int priority, owned_text text) {
  if (text == nullptr) return;
  on_disk(what, [priority, line = text.get()] {
    real().syslog(priority, "%s", line);
    return 0;
  });
}

}  // namespace

namespace calls {

void vsyslog(int priority, const char* format, std::va_list arguments) {
  char* text = nullptr;
  if (::vasprintf(&text, format, arguments) < 0) return;
  log(symbol::vsyslog, priority, owned_text(text));
}
void __vsyslog_chk(int priority, int flag, const char* format, std::va_list arguments) {
  char* text = nullptr;
  if (::__vasprintf_chk(&text, flag, format, arguments) < 0) return;
  log(symbol::__vsyslog_chk, priority, owned_text(text));
}

}  // namespace calls
}  // namespace tendril::detail
