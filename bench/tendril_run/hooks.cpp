// SPDX-License-Identifier: Apache-2.0
//
// The runtime's hooks, each followed by a look whether the thread's block still holds the program's thread-locals of
// the fiber that called: it may have waited meanwhile, and others have run.
#include "bench/tendril_run/green_thread.hpp"
#include "bench/tendril_run/program_locals.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/parking_lot.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace bench::tendril_run {
namespace {

using namespace tendril;

const platform::real_calls* libc = nullptr;

bool parks() noexcept { return detail::caller_parks(); }

void after_call() noexcept {
  if (const green_thread* const g = green_thread::self(); g != nullptr && g->locals != nullptr)
    enter_program_locals(g->locals);
}

template <auto Function>
struct with_locals;
template <class Result, class... Arguments, Result (*Function)(Arguments...)>
struct with_locals<Function> {
  static Result call(Arguments... arguments) {
    if constexpr (std::is_void_v<Result>) {
      Function(arguments...);
      after_call();
    } else {
      const Result result = Function(arguments...);
      after_call();
      return result;
    }
  }
};

// What a kind has in the table of hooks.
#define TENDRIL_HOOK_parks(name) &with_locals<&detail::calls::name>::call
#define TENDRIL_HOOK_opens(name) &with_locals<&detail::calls::name>::call
#define TENDRIL_HOOK_always(name) &with_locals<&detail::calls::name>::call
#define TENDRIL_HOOK_own(name) &with_locals<&detail::calls::name>::call
#define TENDRIL_HOOK_creates(name) nullptr
#define TENDRIL_HOOK_alone(name) nullptr
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  TENDRIL_HOOK_##kind(name),
#define TENDRIL_INTERCEPT_ALIAS(name, of)
constexpr platform::intercept_hooks hooks = {
    &libc,
    &parks,
    &detail::descriptor_opened,
    &detail::parking_lot::in_use,
    &detail::lock_released,
    &detail::lock_waited_with,
#include "platform/intercept_symbols.def"
};
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS

}  // namespace

void install_hooks() {
  const auto install =
      reinterpret_cast<platform::install_function>(::dlsym(RTLD_DEFAULT, platform::install_symbol));
  platform::install_answer answer;
  if (install != nullptr && install(platform::intercept_version(), &hooks, &answer) ==
                                platform::install_result::installed)
    return;
  std::fputs("tendril-run: libtendril_intercept.so is not preloaded, or of another build\n",
             stderr);
  std::exit(1);
}

}  // namespace bench::tendril_run
