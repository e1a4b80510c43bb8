// SPDX-License-Identifier: Apache-2.0
//
// Who wakes when: the traces on which the placement of tasklets is measured, and what a cache would make of them.
//
//   uniform   everybody in turn, always in the same order: the worst for whatever evicts the least recently used
//   skew      9 of 10 wake-ups go to one in 10, drawn at random; the hot ones are spread over all
//   server    64 connections are active, the others idle. An active one gets 50 requests on average, then is
//             idle, and one that was idle gets requests; of 1,000 requests one is the last of its connection,
//             whose place a new one takes
//
// Wake-ups come in batches of different clients, as from a poller. Traces are pseudo-random and the same for equal
// seeds: what is compared with each other sees the same wake-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct wake {
  std::uint32_t place;   ///< 0 .. clients-1
  std::uint32_t client;  ///< numbered in order of appearance: place's first is `place`
  bool last;             ///< it ends, and another one takes its place
};

class wake_trace {
 public:
  /// kind: uniform, skew or server. Throws std::invalid_argument naming another.
  wake_trace(const std::string& kind, std::uint32_t clients, std::uint64_t seed);

  static constexpr std::size_t batch_size = 16;
  /// Fewer where there are fewer clients. Valid until the next call.
  const std::vector<wake>& next_batch();

 private:
  enum class kind { uniform, skew, server };
  std::uint32_t draw(std::uint32_t below) noexcept;
  std::uint32_t next_place() noexcept;
  void go_idle(std::uint32_t active_index) noexcept;

  const kind kind_;
  std::uint64_t random_;
  std::uint32_t turn_ = 0;
  std::uint32_t active_;              ///< server: the first so many of order_
  std::vector<std::uint32_t> order_;  ///< a permutation of the places
  std::vector<std::uint32_t> client_at_;
  std::vector<std::uint64_t> woken_in_;  ///< the last batch of each place
  std::uint32_t clients_seen_;
  std::uint64_t batch_number_ = 0;
  std::vector<wake> batch_;
};

/// The share of wake-ups that find their client in one of so many places, had any client any place: with the
/// least recently used evicted, and with the one that is wanted last. Tasklets, bound to one slot for life, can come
/// near, as long as those that are hot together are bound apart.
struct cache_yardstick {
  double least_recent;
  double best;
};
cache_yardstick yardstick_of(wake_trace trace, std::size_t slots, std::size_t warm_up_wakes,
                             std::size_t wakes);

}  // namespace bench
