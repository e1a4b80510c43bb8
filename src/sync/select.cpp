// SPDX-License-Identifier: Apache-2.0
//
// select: waiting on several channels at once.
//
// First every case is tried alone, in random order, under its own channel's lock: the common end.
// If none is ready, all channels are locked together, in the order of their addresses; the cases are
// looked at once more and, if still none is ready, a node is linked for each. The nodes share a claim
// word: whoever wants to complete one of them first claims the select, so that exactly one of them is
// completed.
//
// Why all locks at once: linking one by one, a case found ready half-way would need the claims of two
// selects (ours, already visible, and the partner's) to be taken together, and taking one after the
// other lets two selects that meet each other on two channels claim themselves and lose each other.
// With all locks held none of our nodes is visible while we look, so only the partner's claim matters.
//
// Invariants
//  1. Nodes, cells and group are on the heap and freed by the owner, after it has taken the lock of
//     each channel once more: a waker uses them under its channel's lock only.
//  2. A node with result `waiting` is linked; the claimed one was unlinked by its waker.
//  3. Giving up claims the select too. If that fails, some waker has claimed it and completes the
//     case under its channel's lock: after we have been through that lock, it is complete.
#include <tendril/select.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace tendril::detail {

namespace {

/// Not inlined and calls nothing that switches: the address of a thread_local is not kept across a
/// migration.
[[gnu::noinline]] std::uint32_t random_bits() noexcept {
  static thread_local std::uint64_t state = 0;
  if (state == 0) {
    state = reinterpret_cast<std::uintptr_t>(&state) ^
            static_cast<std::uint64_t>(clock::now().time_since_epoch().count()) ^
            0x9e3779b97f4a7c15u;
    if (state == 0) state = 1;
  }
  state ^= state << 13;  // Marsaglia, Xorshift RNGs, 2003
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<std::uint32_t>(state >> 32);
}

std::uint32_t random_below(std::size_t n) noexcept {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(random_bits()) * n) >> 32);
}

struct select_node {
  wait_node node;
  alignas(16) std::byte cell[own_cell_bytes];
};

/// Few cases: on the stack, which nobody else looks at.
template <class T>
class scratch {
 public:
  explicit scratch(std::size_t count)
      : heap_(count > small ? std::make_unique<T[]>(count) : nullptr),
        data_(heap_ ? heap_.get() : here_) {}
  T* data() noexcept { return data_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }

 private:
  static constexpr std::size_t small = 16;
  T here_[small];
  std::unique_ptr<T[]> heap_;
  T* data_;
};

}  // namespace

class select_wait {
 public:
  select_wait(select_case* const* cases, std::size_t count)
      : cases_(cases), count_(count), order_(count), channels_(count) {
    for (std::size_t i = 0; i != count; ++i) {
      const std::size_t j = random_below(i + 1);  // inside-out shuffle: uniform
      order_[i] = order_[j];
      order_[j] = static_cast<std::uint32_t>(i);
    }
  }

  std::size_t try_each() noexcept {
    for (std::size_t k = 0; k != count_; ++k) {
      const std::size_t i = order_[k];
      waiter* wake = nullptr;
      channel_base& channel = cases_[i]->on();
      channel.lock_.lock();
      const bool done = cases_[i]->try_locked(wake);
      channel.unlock_and_unpark(wake);
      if (done) return i;
    }
    return no_case;
  }

  std::size_t wait(time_point deadline, const std::stop_token* stop) {
    waiter* const self = current_waiter();
    struct shared {
      select_group group;
      std::unique_ptr<select_node[]> nodes;
    };
    const auto own = std::make_unique<shared>();
    own->nodes = std::make_unique<select_node[]>(count_);
    select_group& group = own->group;
    find_channels();

    lock_all();
    waiter* wake = nullptr;
    for (std::size_t k = 0; k != count_; ++k) {
      if (!cases_[order_[k]]->try_locked(wake)) continue;
      unlock_all();
      if (wake != nullptr) unpark(wake);
      return order_[k];
    }
    for (std::size_t i = 0; i != count_; ++i) {
      wait_node& node = own->nodes[i].node;
      node.who = self;
      node.index = static_cast<std::uint32_t>(i);
      node.cell = own->nodes[i].cell;
      node.claim = &group.claim;
      cases_[i]->offer(node.cell);
      cases_[i]->list().push_back(node);
    }
    unlock_all();

    const outcome result =
        group.done.wait({.deadline = deadline, .stop = stop, .reason = "select"});

    std::uint32_t winner = 0;
    if (group.claim.compare_exchange_strong(winner, given_up, std::memory_order_acq_rel,
                                            std::memory_order_acquire))
      winner = given_up;
    lock_all();
    for (std::size_t i = 0; i != count_; ++i) {
      wait_node& node = own->nodes[i].node;
      if (node.result.load(std::memory_order_relaxed) == outcome::waiting)
        cases_[i]->list().remove(node);
    }
    unlock_all();
    for (std::size_t i = 0; i != count_; ++i)
      cases_[i]->conclude(own->nodes[i].cell,
                          own->nodes[i].node.result.load(std::memory_order_relaxed));
    if (winner != given_up) return winner - 1;
    if (result != outcome::timed_out) throw_outcome(result, "select");
    return no_case;
  }

 private:
  static constexpr std::uint32_t given_up = ~std::uint32_t{0};

  void find_channels() {
    for (std::size_t i = 0; i != count_; ++i) channels_[i] = &cases_[i]->on();
    std::sort(channels_.data(), channels_.data() + count_, std::less<>());
    distinct_ = static_cast<std::size_t>(std::unique(channels_.data(), channels_.data() + count_) -
                                         channels_.data());
  }
  void lock_all() noexcept {
    for (std::size_t i = 0; i != distinct_; ++i) channels_[i]->lock_.lock();
  }
  void unlock_all() noexcept {
    for (std::size_t i = distinct_; i != 0; --i) channels_[i - 1]->lock_.unlock();
  }

  select_case* const* cases_;
  std::size_t count_;
  scratch<std::uint32_t> order_;
  scratch<channel_base*> channels_;
  std::size_t distinct_ = 0;
};

std::size_t select_among(select_case* const* cases, std::size_t count, bool poll,
                         time_point deadline, const std::stop_token* stop) {
  select_wait all(cases, count);
  const std::size_t done = all.try_each();
  if (done != no_case || poll) return done;
  return all.wait(deadline, stop);
}

}  // namespace tendril::detail
