// SPDX-License-Identifier: Apache-2.0
//
// The wrappers that need no thought, made from the list.
#include "platform/linux/intercept/front.hpp"

#include <aio.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>
#include <wordexp.h>

using namespace tendril::platform::front;

// NOLINTBEGIN(bugprone-macro-parentheses)
/// `pass`: what libc's result goes through.
#define TENDRIL_FRONT_ON_FIBER(result, name, parameters, arguments, straight, pass) \
  extern "C" result front_##name parameters {                                       \
    if (!(straight))                                                                \
      if (const auto* const hooks = hooks_on_fiber()) return hooks->name arguments; \
    return pass(real.name arguments);                                               \
  }
#define TENDRIL_FRONT_parks(result, name, parameters, arguments, straight) \
  TENDRIL_FRONT_ON_FIBER(result, name, parameters, arguments, straight, )
#define TENDRIL_FRONT_disk TENDRIL_FRONT_parks
#define TENDRIL_FRONT_pool TENDRIL_FRONT_parks
#define TENDRIL_FRONT_aside TENDRIL_FRONT_parks
#define TENDRIL_FRONT_opens(result, name, parameters, arguments, straight) \
  TENDRIL_FRONT_ON_FIBER(result, name, parameters, arguments, straight, told)
#define TENDRIL_FRONT_always(result, name, parameters, arguments, straight)     \
  extern "C" result front_##name parameters {                                   \
    if (!(straight))                                                            \
      if (const auto* const hooks = hooks_here()) return hooks->name arguments; \
    return real.name arguments;                                                 \
  }
#define TENDRIL_FRONT_creates(result, name, parameters, arguments, straight) \
  extern "C" result front_##name parameters { return told(real.name arguments); }
#define TENDRIL_FRONT_own(result, name, parameters, arguments, straight)
#define TENDRIL_FRONT_alone(result, name, parameters, arguments, straight)

#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  TENDRIL_FRONT_##kind(result, name, parameters, arguments, straight)
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS

// Aliases are made in the file that defines what they stand for; the wrapper's type is that function's.
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs)
#define TENDRIL_INTERCEPT_ALIAS(name, of)                                           \
  extern "C" TENDRIL_FRONT_EXPORT decltype(front_##of) front_##name __asm__(#name); \
  extern "C" decltype(front_##of) front_##name __attribute__((alias(#of)));
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
// NOLINTEND(bugprone-macro-parentheses)
