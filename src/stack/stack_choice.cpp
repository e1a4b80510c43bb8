// SPDX-License-Identifier: Apache-2.0
#include "stack/stack_choice.hpp"

#include "platform/memory.hpp"
#include "stack/slice_layout.hpp"

#include <tendril/error.hpp>

#include <string>

namespace tendril::detail {
namespace {

std::string explain(const stack_options& options) {
  switch (options.kind) {
    case stack_kind::reserved:
      return "stack.bytes = " + std::to_string(options.bytes) + ": allowed are 1 to " +
             std::to_string(class_bytes(size_class_count - 1)) + " (8 MiB)";
    case stack_kind::segmented:
      return "stack.kind = segmented: not available in this version; use stack_kind::reserved";
    case stack_kind::tasklet:
      return "stack.kind = tasklet: not available in this version; use stack_kind::reserved";
  }
  return "stack.kind = " + std::to_string(static_cast<unsigned>(options.kind)) +
         ": no such stack_kind; use stack_kind::reserved";
}

}  // namespace

unsigned choose_size_class(const stack_options& options, std::error_code& ec) noexcept {
  if (options.kind == stack_kind::reserved && options.bytes != 0) {
    const unsigned size_class = size_class_for(options.bytes, platform::page_size());
    if (size_class != no_size_class) {
      ec.clear();
      return size_class;
    }
  }
  ec = errc::invalid_option;
  return no_size_class;
}

unsigned choose_size_class(const stack_options& options) {
  std::error_code ec;
  const unsigned size_class = choose_size_class(options, ec);
  if (ec) throw std::system_error(ec, explain(options));
  return size_class;
}

}  // namespace tendril::detail
