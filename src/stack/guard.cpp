// SPDX-License-Identifier: Apache-2.0
#include "stack/guard.hpp"

#include "base/sanitizer.hpp"
#include "platform/memory.hpp"

#include <tendril/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <system_error>

namespace tendril::detail {
namespace {

/// How many mappings guards may still take. Others make mappings too, so the process's are counted
/// again whenever ours have grown by an eighth: walking them costs about a microsecond each, which
/// comes to eight or so a guard.
class map_budget {
 public:
  bool take_guard() noexcept {
    const std::lock_guard lock(mutex_);
    if (guards_ >= count_again_at_) recount_locked();
    if (others_ + 2 * (guards_ + 1) > limit_locked() / 4 * 3) return false;
    ++guards_;
    return true;
  }

  void give_back(std::size_t guards) noexcept {
    const std::lock_guard lock(mutex_);
    guards_ -= guards;
    count_again_at_ = std::min(count_again_at_, guards_);
  }

  void set_limit(std::optional<std::size_t> limit) noexcept {
    const std::lock_guard lock(mutex_);
    forced_limit_ = limit;
  }

 private:
  std::size_t limit_locked() noexcept {
    if (forced_limit_) return *forced_limit_;
    if (limit_ == 0) limit_ = platform::max_map_count();
    return limit_;
  }

  void recount_locked() noexcept {
    const std::size_t all = platform::map_count();
    others_ = all > 2 * guards_ ? all - 2 * guards_ : 0;
    count_again_at_ = guards_ + std::max<std::size_t>(1024, guards_ / 8);
  }

  std::mutex mutex_;
  std::size_t guards_ = 0;
  std::size_t others_ = 0;
  std::size_t count_again_at_ = 0;
  std::size_t limit_ = 0;
  std::optional<std::size_t> forced_limit_;
};

constinit map_budget budget;

void warn_of_canaries() noexcept {
  static std::atomic<bool> warned{false};
  if (warned.exchange(true, std::memory_order_relaxed)) return;
  std::fprintf(
      stderr,
      "tendril: warning: no more guard pages can be had (mappings: %zu of vm.max_map_count = %zu); "
      "the overflow of a stack made from now on is noticed only when its fiber ends. Raise "
      "vm.max_map_count, or use Linux 6.13 or later\n",
      platform::map_count(), platform::max_map_count());
}

}  // namespace

std::string_view to_string(stack_guard guard) noexcept {
  switch (guard) {
    case stack_guard::madvise:
      return "madvise";
    case stack_guard::mprotect:
      return "mprotect";
    case stack_guard::canary:
      return "canary";
  }
  return "?";
}

stack_guard choose_guard_mode(const char* text) {
  if (text == nullptr || *text == '\0') {
    return platform::guards_supported() ? stack_guard::madvise : stack_guard::mprotect;
  }
  for (const stack_guard mode :
       {stack_guard::madvise, stack_guard::mprotect, stack_guard::canary}) {
    if (text != to_string(mode)) continue;
    if (mode == stack_guard::madvise && !platform::guards_supported()) {
      throw std::system_error(errc::invalid_option,
                              "TENDRIL_STACK_GUARD=madvise: this system has no MADV_GUARD_INSTALL "
                              "(Linux 6.13 and later do); use mprotect or canary");
    }
    return mode;
  }
  throw std::system_error(errc::invalid_option, "TENDRIL_STACK_GUARD='" + std::string(text) +
                                                    "': allowed are madvise, mprotect, canary");
}

stack_guard install_slice_guard(std::byte* page, stack_guard mode) noexcept {
  const std::size_t bytes = platform::page_size();
  if (mode == stack_guard::madvise && platform::install_guard(page, bytes))
    return stack_guard::madvise;
  if (mode != stack_guard::canary) {
    if (budget.take_guard()) {
      if (platform::protect_none(page, bytes)) return stack_guard::mprotect;
      budget.give_back(1);
    }
    warn_of_canaries();
  }
  return stack_guard::canary;
}

void install_slice_guards(std::byte* const* pages, unsigned count, stack_guard mode,
                          stack_guard* got) noexcept {
  const unsigned done = mode == stack_guard::madvise ? platform::install_guards(pages, count) : 0;
  std::fill_n(got, done, stack_guard::madvise);
  for (unsigned i = done; i != count; ++i) got[i] = install_slice_guard(pages[i], mode);
}

void forget_mprotect_guards(std::size_t count) noexcept {
  if (count != 0) budget.give_back(count);
}

TENDRIL_NO_SANITIZE_ADDRESS bool canary_intact(const std::byte* page) noexcept {
  // Read as words the compiler may fold into vectors. An untouched page reads as the system's shared
  // page of zeros: looking commits nothing.
  const auto* words = reinterpret_cast<const std::uint64_t*>(page);
  std::uint64_t any = 0;
  for (std::size_t i = 0; i < platform::page_size() / sizeof *words; ++i) any |= words[i];
  return any == 0;
}

void set_map_limit(std::optional<std::size_t> limit) noexcept { budget.set_limit(limit); }

}  // namespace tendril::detail
