// SPDX-License-Identifier: Apache-2.0
//
// libc's functions, looked up when first called; the hooks, and what becomes of them in a child.
#include "platform/linux/intercept/front.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <type_traits>

namespace tendril::platform::front {

const intercept_hooks* installed = nullptr;

namespace {

/// The next definition after ours. Null: there is none, or libc comes first and this object has been
/// put behind it; then it is libc's all the same that is called.
void* find_real(const char* name) noexcept {
  void* found = dlsym(RTLD_NEXT, name);
  return found != nullptr ? found : dlsym(RTLD_DEFAULT, name);
}

/// What a symbol does that this libc does not have. Its caller would not have been linked without the
/// front, so this is for the core's calls through the table.
template <class Result>
Result missing() noexcept {
  errno = ENOSYS;
  if constexpr (std::is_pointer_v<Result>) return nullptr;
  else if constexpr (!std::is_void_v<Result>) return static_cast<Result>(-1);
}

// A definition for each symbol: resolve_<name> puts libc's function into the table and calls it. Threads that
// do so at the same time store the same.
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  using type_of_##name = result(*) parameters;                                                 \
  result missing_##name parameters;                                                            \
  type_of_##name found_##name() noexcept {                                                     \
    void* const found = find_real(#name);                                                      \
    const auto function = found != nullptr && found != reinterpret_cast<void*>(&front_##name)  \
                              ? reinterpret_cast<type_of_##name>(found)                        \
                              : &missing_##name;                                               \
    __atomic_store_n(&real.name, function, __ATOMIC_RELAXED);                                  \
    return function;                                                                           \
  }                                                                                            \
  result resolve_##name parameters { return found_##name() arguments; }                        \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wunused-parameter\"")      \
      result missing_##name parameters {                                                       \
    return missing<result>();                                                                  \
  }                                                                                            \
  _Pragma("GCC diagnostic pop")
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS

void resolve_all() noexcept {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  found_##name();
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
}

const char* object_of(void* address) noexcept {
  Dl_info about;
  return dladdr(address, &about) != 0 && about.dli_fname != nullptr ? about.dli_fname : "?";
}

/// Whether the program's calls come here: what they are bound to is either ours or calls on into ours (a
/// sanitizer's), but not what we would call ourselves.
bool is_hidden(install_answer& answer) noexcept {
  const auto check = [&](const char* name, void* libc) {
    void* const bound = dlsym(RTLD_DEFAULT, name);
    if (bound != libc) return false;
    answer.symbol = name;
    answer.found_in = object_of(bound);
    return true;
  };
  return check("read", reinterpret_cast<void*>(real.read)) ||
         check("poll", reinterpret_cast<void*>(real.poll)) ||
         check("close", reinterpret_cast<void*>(real.close));
}

void forget_hooks() noexcept { __atomic_store_n(&installed, nullptr, __ATOMIC_RELEASE); }

}  // namespace

real_calls real = {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  &resolve_##name,
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
};

}  // namespace tendril::platform::front

using namespace tendril::platform;

extern "C" {
TENDRIL_FRONT_EXPORT extern const decltype(intercept_version_text()) tendril_intercept_version;
constexpr decltype(intercept_version_text()) tendril_intercept_version = intercept_version_text();
}

extern "C" TENDRIL_FRONT_EXPORT install_result tendril_intercept_install(
    std::uint64_t version, const intercept_hooks* hooks, install_answer* answer) {
  using namespace tendril::platform::front;
  if (hooks == nullptr) {
    forget_hooks();
    return install_result::installed;
  }
  *answer = {};
  answer->front = object_of(reinterpret_cast<void*>(&tendril_intercept_install));
  if (version != intercept_version()) return install_result::other_version;
  resolve_all();
  if (is_hidden(*answer)) return install_result::hidden;
  static bool child_is_plain = false;
  if (!__atomic_exchange_n(&child_is_plain, true, __ATOMIC_ACQ_REL))
    pthread_atfork(nullptr, nullptr, &forget_hooks);
  *hooks->real = &real;
  *hooks->handled_signals = &handled_signals;
  __atomic_store_n(&installed, hooks, __ATOMIC_RELEASE);
  return install_result::installed;
}
