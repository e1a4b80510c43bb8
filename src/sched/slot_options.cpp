// SPDX-License-Identifier: Apache-2.0
//
// From runtime_options::tasklets, and what the environment says, to the options of a slot table.
#include "context/image_pack.hpp"
#include "platform/memory.hpp"
#include "sched/slots.hpp"
#include "stack/guard.hpp"
#include "stack/slice_layout.hpp"

#include <tendril/error.hpp>
#include <tendril/stack.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

namespace tendril::detail {
namespace {

constexpr std::size_t most_slots = 65'536;

[[noreturn]] void invalid(const std::string& what) {
  throw std::system_error(make_error_code(errc::invalid_option), what);
}

void require_slots(std::size_t slots, const std::string& source) {
  if (slots == 0 || slots > most_slots)
    invalid(source + ": allowed are 1 to " + std::to_string(most_slots) + " slots");
}

/// In milliseconds, rounded up. So long that the clock would wrap is never, too.
std::uint32_t clock_units(const char* name, std::chrono::nanoseconds t) {
  using std::chrono::milliseconds;
  if (t <= std::chrono::nanoseconds::zero())
    invalid(std::string(name) + " = " + std::to_string(t.count()) +
            " ns: allowed are positive times, and nanoseconds::max() for never");
  constexpr milliseconds longest{INT32_MAX};
  if (t >= longest) return slot_options::never;
  return static_cast<std::uint32_t>(std::chrono::ceil<milliseconds>(t).count());
}

/// TENDRIL_TASKLETS: strict, slots=N, or both with a comma between.
void apply_environment(tasklet_options& o) {
  const char* const text = std::getenv("TENDRIL_TASKLETS");
  if (text == nullptr) return;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(word.size() == rest.size() ? rest.size() : word.size() + 1);
    constexpr std::string_view slots = "slots=";
    const std::string source = "TENDRIL_TASKLETS='" + std::string(text) + "'";
    if (word == "strict") {
      o.strict = true;
    } else if (word.substr(0, slots.size()) == slots) {
      const std::string_view number = word.substr(slots.size());
      o.slots = 0;
      std::from_chars(number.data(), number.data() + number.size(), o.slots);
      require_slots(o.slots, source);
    } else {
      invalid(source + ": allowed are strict, slots=N, or both with a comma between");
    }
  }
}

}  // namespace

slot_options choose_slot_options(tasklet_options o, std::chrono::nanoseconds pack_cold_after,
                                 stack_guard guard, platform::entry_function entry) {
  require_slots(o.slots, "runtime_options::tasklets.slots = " + std::to_string(o.slots));
  require_slots(o.slots_at_first,
                "runtime_options::tasklets.slots_at_first = " + std::to_string(o.slots_at_first));
  apply_environment(o);
  const std::size_t bytes = o.slot_bytes != 0 ? o.slot_bytes : default_stack_bytes;
  const unsigned size_class = size_class_for(bytes, platform::page_size());
  if (size_class == no_size_class)
    invalid("runtime_options::tasklets.slot_bytes = " + std::to_string(bytes) +
            ": allowed are 1 to " + std::to_string(class_bytes(size_class_count - 1)) +
            " (8 MiB), or 0 for " + std::to_string(default_stack_bytes));
  const std::uint32_t evict_after =
      clock_units("runtime_options::tasklets.evict_idle_after", o.evict_idle_after);
  const std::uint32_t pack_after = clock_units("runtime_options::pack_cold_after", pack_cold_after);
  if (pack_after != slot_options::never && !packing_available())
    throw std::system_error(
        std::make_error_code(std::errc::not_supported),
        "runtime_options::pack_cold_after = " + std::to_string(pack_cold_after.count()) +
            " ns: this tendril was built without liblz4; build it with "
            "liblz4-dev installed, or leave the option at nanoseconds::max()");
  return {size_class,
          static_cast<unsigned>(o.slots),
          static_cast<unsigned>(std::min(o.slots_at_first, o.slots)),
          guard,
          o.strict,
          entry,
          evict_after,
          pack_after};
}

}  // namespace tendril::detail
