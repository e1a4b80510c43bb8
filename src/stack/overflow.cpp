// SPDX-License-Identifier: Apache-2.0
#include "stack/overflow.hpp"

#include "platform/memory.hpp"
#include "platform/signal_stack.hpp"
#include "platform/split_stack.hpp"
#include "platform/trace.hpp"
#include "stack/arena_table.hpp"

#include <atomic>
#include <cstdlib>

namespace tendril::detail {
namespace {

std::atomic<describe_stack_fn> describe{nullptr};
std::atomic<describe_running_fn> describe_running{nullptr};

/// A line put together without the heap, stdio or locale. What does not fit is cut off.
class message {
 public:
  message& text(const char* s) noexcept {
    while (*s != '\0') put(*s++);
    return *this;
  }
  /// At most 64 characters: it may be anybody's memory by now.
  message& name(const char* s) noexcept {
    for (int i = 0; i < 64 && s[i] != '\0'; ++i) put(s[i] >= ' ' && s[i] != '\x7f' ? s[i] : '?');
    return *this;
  }
  message& number(std::uint64_t value, unsigned radix = 10) noexcept {
    char digits[20];
    int n = 0;
    do {
      digits[n++] = "0123456789abcdef"[value % radix];
      value /= radix;
    } while (value != 0);
    while (n != 0) put(digits[--n]);
    return *this;
  }
  message& address(const void* p) noexcept {
    return text("0x").number(reinterpret_cast<std::uintptr_t>(p), 16);
  }
  message& fiber(const fiber_description& who) noexcept {
    if (who.name == nullptr && who.id == 0) return text("an unknown fiber");
    text("fiber");
    if (who.name != nullptr && *who.name != '\0') text(" '").name(who.name).text("'");
    return text(" (id ").number(who.id).text(")");
  }
  message& range(const stack_slice& slice, std::size_t bytes) noexcept {
    return text("[")
        .address(slice.low)
        .text(", ")
        .address(slice.high)
        .text(") of ")
        .number(bytes >> 10)
        .text(" KiB");
  }
  void write() noexcept {
    put('\n');
    platform::write_error(buffer_, size_);
  }

 private:
  void put(char c) noexcept {
    if (size_ < sizeof buffer_) buffer_[size_++] = c;
  }
  char buffer_[768];
  std::size_t size_ = 0;
};

fiber_description describe_fiber(const stack_slice& slice) noexcept {
  fiber_description who;
  if (const auto ask = describe.load(std::memory_order_acquire)) ask(slice, who);
  return who;
}

/// Code that is on the stack overflowed it. Any other code has a bad pointer, and nothing is wrong
/// with the fiber whose guard it hit.
bool is_overflow(const fiber_description& who, const found_stack& found,
                 const platform::memory_fault& fault) noexcept {
  if (who.use != stack_use::unknown) return who.use == stack_use::current;
  // A large frame's stack pointer has passed the guard already when its lower locals are touched.
  const auto* sp = static_cast<const std::byte*>(fault.stack_pointer);
  return sp == nullptr || (sp <= found.slice.high && sp + platform::page_size() >= found.guard_low);
}

/// A segment with all that belongs to its block of 2^n bytes; empty: none.
struct segment_block {
  std::byte* low = nullptr;
  std::size_t bytes = 0;

  std::byte* high() const noexcept { return low + bytes; }
  /// The guard below its frames: within the block, but for a small one at the bottom of its slab.
  stack_slice guard() const noexcept {
    std::byte* const at = bytes == small_segment_bytes ? slab_of(low) : low;
    return {at, at + platform::page_size()};
  }
};

segment_block block_of(std::uintptr_t limit) noexcept {
  const std::uintptr_t tag = limit & platform::limit_tag_mask;
  if (tag == platform::native_tag) return {};  // or no limit at all
  const std::size_t bytes = platform::segment_bytes(tag);
  return {reinterpret_cast<std::byte*>(limit & ~(bytes - 1)), bytes};
}

constexpr const char* segment_cause =
    ": code that was not compiled for segmented stacks ran past the reserve of a segment ";
constexpr const char* segment_advice =
    "; compile it with tendril::segmented, or call it by tendril::native_call, or run the fiber on "
    "stack_kind::reserved";

/// True when the fault was in the guard below the segment that the interrupted code stood on.
bool report_segment(const platform::memory_fault& fault) noexcept {
  const auto ask = describe_running.load(std::memory_order_acquire);
  if (ask == nullptr) return false;
  fiber_description who;
  const segment_block block = block_of(ask(who));
  if (block.low == nullptr) return false;
  const stack_slice guard = block.guard();
  if (fault.address < guard.low || fault.address >= guard.high) return false;
  const auto* sp = static_cast<const std::byte*>(fault.stack_pointer);
  // A large frame's stack pointer is far below the guard when its first local is touched.
  constexpr std::size_t largest_frame = std::size_t{1} << 20;
  if (sp != nullptr && (sp > block.high() || sp + largest_frame < guard.low)) return false;

  const bool others_between = block.bytes == small_segment_bytes && block.low != guard.high;
  const stack_slice segment{block.bytes == small_segment_bytes ? block.low : guard.high,
                            block.high()};
  message()
      .text("tendril: stack overflow in ")
      .fiber(who)
      .text(segment_cause)
      .range(segment, block.bytes)
      .text(", to address ")
      .address(fault.address)
      .text(others_between ? " beyond segments of other fibers, which may be damaged" : "")
      .text(segment_advice)
      .write();
  return true;
}

constexpr const char* advice = "; give it a larger stack (fiber_options::stack.bytes)";

bool on_fault(const platform::memory_fault& fault) noexcept {
  if (fault.address == nullptr) return false;
  if (report_segment(fault)) {
    platform::write_trace(1);
    return true;
  }
  found_stack found;
  if (!find_stack(fault.address, found) || !found.in_guard(fault.address)) return false;
  const std::size_t bytes = found.bytes();

  const fiber_description who = describe_fiber(found.slice);
  message m;
  if (!found.is_small_segment() && is_overflow(who, found, fault)) {
    m.text("tendril: stack overflow in ")
        .fiber(who)
        .text(": address ")
        .address(fault.address)
        .text(" is in the guard page below its stack ")
        .range(found.slice, bytes)
        .text(advice);
  } else {
    m.text("tendril: bad access to ")
        .address(fault.address)
        .text(", in the guard page below the stack ")
        .range(found.slice, bytes)
        .text(" of ")
        .fiber(who)
        .text(", by code on another stack (stack pointer ")
        .address(fault.stack_pointer)
        .text("): a stray pointer, or a write past the top of the stack below");
  }
  m.write();
  platform::write_trace(1);
  return true;
}

}  // namespace

void set_describe_stack(describe_stack_fn f) noexcept {
  describe.store(f, std::memory_order_release);
}

void set_describe_running(describe_running_fn f) noexcept {
  describe_running.store(f, std::memory_order_release);
}

bool install_overflow_handler() noexcept {
  platform::prime_trace();
  platform::page_size();
  return platform::handle_memory_faults(&on_fault);
}

void report_broken_canary(const stack_slice& slice) noexcept {
  found_stack found;
  const std::size_t bytes = find_stack(slice.low, found) ? found.bytes() : 0;
  message()
      .text("tendril: stack overflow in ")
      .fiber(describe_fiber(slice))
      .text(", found when its stack was released: ")
      .text("the page below its stack ")
      .range(slice, bytes)
      .text(" was written; memory below it may be damaged")
      .text(advice)
      .write();
  std::abort();
}

void report_broken_segment(const std::byte* base) noexcept {
  auto* const low = const_cast<std::byte*>(base);
  const stack_slice segment{low, low + small_segment_bytes};
  message()
      .text("tendril: stack overflow in ")
      .fiber(describe_fiber(segment))
      .text(segment_cause)
      .range(segment, small_segment_bytes)
      .text(", found when it parked or ended; the segment of another fiber below it may be damaged")
      .text(segment_advice)
      .write();
  std::abort();
}

}  // namespace tendril::detail
