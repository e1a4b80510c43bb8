// SPDX-License-Identifier: Apache-2.0
#include "stack/stack_choice.hpp"

#include "platform/memory.hpp"
#include "stack/segment_support.hpp"

#include <tendril/error.hpp>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>

namespace tendril::detail {
namespace {

constexpr std::size_t most_bytes = class_bytes(size_class_count - 1);
constexpr std::size_t small_bytes = first_bytes(small_first);

/// Frames under sanitizers are too large and their run-time libraries are not compiled for segments.
bool falls_back_to_reserved() noexcept { return TENDRIL_ASAN || TENDRIL_TSAN; }

void say_fallback_once() noexcept {
  static std::once_flag once;
  std::call_once(once, [] {
    std::fputs(
        "tendril: built with a sanitizer: fibers that ask for stack_kind::segmented get "
        "stack_kind::reserved\n",
        stderr);
  });
}

/// A class that is not spread.
stack_choice plain_class(std::size_t bytes) noexcept {
  const unsigned size_class = size_class_for(bytes, platform::page_size());
  return size_class == no_size_class ? no_stack_class : static_cast<stack_choice>(size_class);
}

stack_choice reserved_class(std::size_t bytes) noexcept {
  const stack_choice plain = plain_class(bytes);
  return plain == no_stack_class ? plain : reserved_of(plain);
}

stack_choice segmented_class(std::size_t bytes) noexcept {
  if (bytes == 0 || bytes == small_bytes) return small_first;
  if (bytes < small_bytes || bytes > most_bytes) return no_stack_class;
  return segmented_bit | plain_class(bytes);
}

std::string explain(const stack_options& options) {
  const std::string bytes = "stack.bytes = " + std::to_string(options.bytes);
  const std::string most = std::to_string(most_bytes) + " (8 MiB)";
  switch (options.kind) {
    case stack_kind::reserved:
    case stack_kind::inherited:
      return bytes + ": allowed are 1 to " + most + ", or 0 for the default of " +
             std::to_string(default_stack_bytes);
    case stack_kind::segmented:
      if (const char* why = segments_missing())
        return "stack.kind = segmented: " + std::string(why) + "; use stack_kind::reserved";
      return bytes + ": a first segment may have " + std::to_string(small_bytes) + " to " + most +
             " bytes, or 0 for " + std::to_string(small_bytes);
    case stack_kind::tasklet:
      return bytes + ": a tasklet may have 1 to " + most + ", or 0 for the size of a slot";
  }
  return "stack.kind = " + std::to_string(static_cast<unsigned>(options.kind)) +
         ": no such stack_kind; use stack_kind::reserved";
}

stack_kind kind_named(const char* text) {
  const std::string_view name = text;
  if (name == "reserved") return stack_kind::reserved;
  if (name == "segmented") return stack_kind::segmented;
  if (name == "tasklet") return stack_kind::tasklet;
  throw std::system_error(errc::invalid_option, "TENDRIL_STACK='" + std::string(name) +
                                                    "': allowed are reserved, segmented, tasklet");
}

}  // namespace

stack_choice reserved_of(unsigned size_class) noexcept {
  return static_cast<stack_choice>(spread_class(size_class, platform::page_size()));
}

stack_choice choose_stack_class(const stack_options& options, std::error_code& ec) noexcept {
  stack_choice chosen = no_stack_class;
  ec = errc::invalid_option;
  switch (options.kind) {
    case stack_kind::reserved:
    case stack_kind::inherited:
      chosen = reserved_class(options.bytes != 0 ? options.bytes : default_stack_bytes);
      break;
    case stack_kind::segmented:
      chosen = segmented_class(options.bytes);
      if (chosen != no_stack_class && falls_back_to_reserved()) {
        say_fallback_once();
        chosen = reserved_class(default_stack_bytes);
      } else if (segments_missing() != nullptr && !falls_back_to_reserved()) {
        chosen = no_stack_class;
        ec = std::make_error_code(std::errc::not_supported);
      }
      break;
    case stack_kind::tasklet:
      // Nothing asked for: whatever the runtime's slots have. Larger ones get a stack of their own.
      chosen = options.bytes == 0 ? any_tasklet : plain_class(options.bytes);
      if (chosen != no_stack_class) chosen |= tasklet_bit;
      break;
  }
  if (chosen != no_stack_class) ec.clear();
  return chosen;
}

stack_choice choose_stack_class(const stack_options& options) {
  std::error_code ec;
  const stack_choice chosen = choose_stack_class(options, ec);
  if (ec) throw std::system_error(ec, explain(options));
  return chosen;
}

stack_choice choose_default_stack_class(const stack_options& options) {
  const char* const text = asks_for_nothing(options) ? std::getenv("TENDRIL_STACK") : nullptr;
  if (text == nullptr || *text == '\0') return choose_stack_class(options);
  const stack_options wanted{.kind = kind_named(text)};
  std::error_code ec;
  const stack_choice chosen = choose_stack_class(wanted, ec);
  if (ec)
    throw std::system_error(ec, "TENDRIL_STACK='" + std::string(text) + "': " + explain(wanted));
  return chosen;
}

}  // namespace tendril::detail

namespace tendril {

bool stack_kind_available(stack_kind kind) noexcept {
  switch (kind) {
    case stack_kind::reserved:
    case stack_kind::inherited:
      return true;
    case stack_kind::segmented:
      return detail::segments_missing() == nullptr;
    case stack_kind::tasklet:
      return true;
  }
  return false;
}

}  // namespace tendril
