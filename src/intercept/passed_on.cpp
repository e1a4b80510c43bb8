// SPDX-License-Identifier: Apache-2.0
//
// The calls that are libc's as they are, made elsewhere: kinds disk, pool and aside of platform/intercept_symbols.def.
#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/on_disk.hpp"
#include "intercept/symbols.hpp"

#include <optional>

namespace tendril::detail::calls {
namespace {

/// By which handlers it is interrupted; others, those of names above all, begin again by themselves or do more than one
/// thing.
constexpr std::optional<interruptible> breaks_of(symbol what) noexcept {
  if (what == symbol::aio_suspend || what == symbol::tcdrain) return interruptible::always;
  return std::nullopt;
}

}  // namespace

// NOLINTBEGIN(bugprone-macro-parentheses)
#define TENDRIL_PASS_disk(result, name, parameters, arguments)           \
  result name parameters {                                               \
    return on_disk(symbol::name, [=] { return real().name arguments; }); \
  }
#define TENDRIL_PASS_pool(result, name, parameters, arguments)           \
  result name parameters {                                               \
    return on_pool(symbol::name, [=] { return real().name arguments; }); \
  }
#define TENDRIL_PASS_aside(result, name, parameters, arguments)           \
  result name parameters {                                                \
    return on_thread(                                                     \
        symbol::name, keep_slot{}, [=] { return real().name arguments; }, \
        breaks_of(symbol::name));                                         \
  }
#define TENDRIL_PASS_parks(result, name, parameters, arguments)
#define TENDRIL_PASS_opens(result, name, parameters, arguments)
#define TENDRIL_PASS_always(result, name, parameters, arguments)
#define TENDRIL_PASS_creates(result, name, parameters, arguments)
#define TENDRIL_PASS_own(result, name, parameters, arguments)
#define TENDRIL_PASS_alone(result, name, parameters, arguments)
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  TENDRIL_PASS_##kind(result, name, parameters, arguments)
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace tendril::detail::calls
