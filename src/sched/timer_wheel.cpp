// SPDX-License-Identifier: Apache-2.0
//
// The hierarchical timing wheel; its design and invariants are in the header.
#include "sched/timer_wheel.hpp"

#include <bit>

#include "base/check.hpp"

namespace tendril::detail {
namespace {

constexpr unsigned tick_bits = 16;
static_assert(timer_wheel::tick_length.count() == std::int64_t{1} << tick_bits);

using time_point = timer_wheel::time_point;

/// Nanoseconds since the steady clock's epoch; what lies before it counts as the epoch.
std::uint64_t nanoseconds_of(time_point time) noexcept {
  const auto since_epoch =
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  return since_epoch > 0 ? static_cast<std::uint64_t>(since_epoch) : 0;
}

std::uint64_t tick_before(time_point time) noexcept { return nanoseconds_of(time) >> tick_bits; }

std::uint64_t tick_after(time_point time) noexcept {
  // The sum cannot overflow: nanoseconds_of() has 63 bits.
  return (nanoseconds_of(time) + ((std::uint64_t{1} << tick_bits) - 1)) >> tick_bits;
}

time_point time_of(std::uint64_t tick) noexcept {
  // The tick after the last nanoseconds of 63 bits is not expressible; max() is never late.
  if (tick >= std::uint64_t{1} << (63 - tick_bits)) return time_point::max();
  return time_point(std::chrono::duration_cast<time_point::duration>(
      std::chrono::nanoseconds(static_cast<std::int64_t>(tick << tick_bits))));
}

}  // namespace

timer_wheel::timer_wheel(time_point now) noexcept : elapsed_(tick_before(now)) {}

timer_wheel::~timer_wheel() {
  const auto forget = [](list& from) {
    while (from.pop_front() != nullptr) {
    }
  };
  forget(due_);
  forget(never_);
  for (list& slot : slots_) forget(slot);
}

void timer_wheel::arm(timer_node& node, time_point deadline) noexcept {
  TENDRIL_ASSERT(!node.pending(), "a node has one deadline at a time");
  ++size_;
  if (deadline == time_point::max()) {
    node.place_ = place_never;
    never_.push_back(node);
    return;
  }
  const std::uint64_t tick = tick_after(deadline);
  node.tick_ = tick > elapsed_ ? tick : elapsed_;  // the past: the slot that advance() visits first
  put(node);
}

void timer_wheel::put(timer_node& node) noexcept {
  // The highest differing group; all groups equal counts as the lowest.
  const std::uint64_t difference = (node.tick_ ^ elapsed_) | (slots - 1);
  const unsigned level = (static_cast<unsigned>(std::bit_width(difference)) - 1) / digit_bits;
  const unsigned slot = static_cast<unsigned>(node.tick_ >> (level * digit_bits)) & (slots - 1);
  node.place_ = level * slots + slot;
  slots_[node.place_].push_back(node);
  set_occupied(node.place_);
}

void timer_wheel::set_occupied(unsigned place) noexcept {
  occupied_[place / word_bits] |= std::uint64_t{1} << (place % word_bits);
  occupied_words_ |= 1U << (place / word_bits);
}

void timer_wheel::set_empty(unsigned place) noexcept {
  std::uint64_t& word = occupied_[place / word_bits];
  word &= ~(std::uint64_t{1} << (place % word_bits));
  if (word == 0) occupied_words_ &= ~(1U << (place / word_bits));
}

bool timer_wheel::cancel(timer_node& node) noexcept {
  if (!node.pending()) return false;
  list::remove(node);
  --size_;
  const std::uint32_t place = node.place_;
  // A node on the due list still names the slot it came from. No harm: an empty slot's bit is clear.
  if (place != place_never && slots_[place].empty()) set_empty(place);
  return true;
}

/// The occupied slot that begins first. At least one must be occupied.
unsigned timer_wheel::first_place() const noexcept {
  const auto word = static_cast<unsigned>(std::countr_zero(occupied_words_));
  return word * word_bits + static_cast<unsigned>(std::countr_zero(occupied_[word]));
}

/// The tick at which an occupied slot begins.
std::uint64_t timer_wheel::begin_of(unsigned place) const noexcept {
  const unsigned shift = place / slots * digit_bits;
  const std::uint64_t above = elapsed_ >> (shift + digit_bits) << (shift + digit_bits);
  return above | (std::uint64_t{place % slots} << shift);
}

/// Walks a list from its end while it is emptied from its front, until both meet. Each step along a list
/// of cold nodes waits for memory; two walks wait at the same time, which takes up to half off the whole.
class timer_wheel::look_ahead {
 public:
  explicit look_ahead(list& of) noexcept : list_(of), at_(of.back()) {}
  /// `popped` has just left the front.
  void follow(const timer_node* popped) noexcept {
    if (at_ == popped) at_ = nullptr;
    else if (at_ != nullptr) at_ = list_.prev(*at_);
  }

 private:
  list& list_;
  timer_node* at_;
};

std::optional<time_point> timer_wheel::next_deadline() const noexcept {
  if (!due_.empty()) return time_of(elapsed_);
  if (occupied_words_ == 0) return std::nullopt;
  return time_of(begin_of(first_place()));
}

bool timer_wheel::advance(time_point now) noexcept {
  const std::uint64_t target = tick_before(now);
  while (occupied_words_ != 0) {
    const unsigned place = first_place();
    const std::uint64_t begin = begin_of(place);
    if (begin > target) break;
    // Not beyond target: all that follows is relative to this instant.
    if (begin > elapsed_) elapsed_ = begin;

    list& from = slots_[place];
    set_empty(place);
    if (place < slots) {
      due_.splice_back(from);
    } else {
      // Their groups from this level up now equal those of elapsed_: each goes to a lower level.
      look_ahead ahead(from);
      while (timer_node* const node = from.pop_front()) {
        ahead.follow(node);
        put(*node);
      }
    }
  }
  if (target > elapsed_) elapsed_ = target;
  return !due_.empty();
}

timer_node* timer_wheel::pop_due() noexcept {
  timer_node* const node = due_.pop_front();
  if (node != nullptr) --size_;
  return node;
}

std::size_t timer_wheel::pop_due(timer_node** nodes, std::size_t most) noexcept {
  look_ahead ahead(due_);
  std::size_t n = 0;
  while (n != most) {
    timer_node* const node = due_.pop_front();
    if (node == nullptr) break;
    ahead.follow(node);
    nodes[n++] = node;
  }
  size_ -= n;
  return n;
}

}  // namespace tendril::detail
