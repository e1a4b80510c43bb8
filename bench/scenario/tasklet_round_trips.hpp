// SPDX-License-Identifier: Apache-2.0
//
// Round trips to fibers that wait: one fiber wakes clients in turn, each by its semaphore, and yields to it; the client
// waits again. With reserved stacks; with tasklets that stay in their slots; with tasklets that share slots, so that
// each comes back from the heap and sends another one there. Shared by E14c and the micro benchmarks.
//
// Or the client only yields: there is nothing between its function and the runtime, so it has as few live bytes as a
// suspended fiber can have. It is runnable all the time, so who wants its slot waits for its departure.
#pragma once

#include "bench/scenario/live_bytes.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

namespace bench {

/// Of round_trips::setting::frame_bytes: with them a client has about so many live bytes, those of the fiber's first
/// frames and of its wait included.
inline constexpr std::size_t wait_bytes = 632;
inline constexpr std::size_t live_1k = 1'024 - wait_bytes;
inline constexpr std::size_t live_4k = 4'096 - wait_bytes;
inline constexpr std::size_t live_16k = 16'384 - wait_bytes;

class round_trips {
 public:
  struct setting {
    std::size_t slots;    ///< 0: reserved stacks
    std::size_t clients;  ///< woken in turn
    std::size_t frame_bytes;
    bool yields = false;  ///< clients do not wait
  };

  explicit round_trips(const setting& s) : setting_(s), clients_(s.clients), runtime_(options(s)) {
    runtime_.run([this] {
      tendril::fiber_options o;
      o.stack.kind =
          setting_.slots == 0 ? tendril::stack_kind::reserved : tendril::stack_kind::tasklet;
      for (client& c : clients_) {
        if (setting_.yields) tendril::spawn(o, [this, &c] { take_turns(c); });
        else
          tendril::spawn(o, [this, &c] {
            if (setting_.frame_bytes == 0) serve(c);
            else with_live_bytes(setting_.frame_bytes, [this, &c] { serve(c); });
          });
      }
      while (serving_ != clients_.size()) tendril::this_fiber::yield();
    });
  }
  ~round_trips() {
    over_ = true;
    for (client& c : clients_) c.wake.release();
  }
  round_trips(const round_trips&) = delete;
  round_trips& operator=(const round_trips&) = delete;

  /// n of them, or of those that yield about so many; what now() says after them less what it said before. Throws
  /// std::logic_error if one was left out, and where a tasklet was not where it should be.
  template <class Now>
  double run(std::int64_t n, Now now) {
    const auto took = std::make_unique<double>();
    const auto seen = std::make_unique<std::array<glance, 2>>();
    runtime_.run([this, n, now, &took = *took, &seen = *seen] {
      if (setting_.yields) start_turns();
      seen[0] = look();
      const double begin = now();
      if (setting_.yields) {
        while (served_ - seen[0].served < n) tendril::this_fiber::yield();
      } else {
        for (std::int64_t i = 0; i != n; ++i) {
          clients_[next_].wake.release();
          if (++next_ == clients_.size()) next_ = 0;
          tendril::this_fiber::yield();
        }
      }
      took = now() - begin;
      seen[1] = look();
      if (setting_.yields) end_turns();
    });
    const glance& first = (*seen)[0];
    const glance& last = (*seen)[1];
    const std::int64_t more = last.served - first.served - n;  // a last turn of those that yield
    if (more < 0 || more >= (setting_.yields ? static_cast<std::int64_t>(setting_.clients) : 1))
      throw std::logic_error("round trips were left out");
    copied_ = last.tasklets;
    copied_.captures -= first.tasklets.captures;
    copied_.restores -= first.tasklets.restores;
    copied_.bytes_copied -= first.tasklets.bytes_copied;
    const auto restores = static_cast<std::int64_t>(copied_.restores);
    const bool to_share = setting_.slots != 0 && setting_.slots < setting_.clients;
    if (restores != 0 && !to_share) throw std::logic_error("a tasklet had to leave its slot");
    const auto resident = static_cast<std::int64_t>(setting_.slots);  // before the first
    if (restores * 10 < (n - resident) * 9 && to_share)
      throw std::logic_error("tasklets stayed in slots");
    return *took;
  }

  /// Live bytes of a client, as the last run copied them; 0 if it copied none.
  double bytes_of_a_copy() const noexcept {
    const std::uint64_t copies = copied_.captures + copied_.restores;
    return copies == 0 ? 0
                       : static_cast<double>(copied_.bytes_copied) / static_cast<double>(copies);
  }

 private:
  struct client {
    tendril::binary_semaphore wake{0};
  };

  static tendril::runtime_options options(const setting& s) {
    tendril::runtime_options o;
    o.workers = 1;
    o.stack.kind = tendril::stack_kind::reserved;  // who wakes them
    if (s.slots != 0) o.tasklets.slots = s.slots;
    return o;
  }

  struct glance {
    std::int64_t served = 0;
    tendril::tasklet_stats tasklets;
  };
  glance look() const { return {served_, runtime_.stats().tasklets}; }

  /// Of clients that yield: none of them waits from start_turns() to end_turns().
  void start_turns() {
    turning_ = true;
    for (client& c : clients_) c.wake.release();
    while (serving_ != 0) tendril::this_fiber::yield();
  }
  void end_turns() {
    turning_ = false;
    while (serving_ != clients_.size()) tendril::this_fiber::yield();
  }
  void take_turns(client& c) {
    while (wait_for_turns(c)) {
      while (turning_) {
        tendril::this_fiber::yield();
        ++served_;
      }
    }
  }
  [[gnu::noinline]] bool wait_for_turns(client& c) {  // its variables are not to be live in a turn
    ++serving_;
    c.wake.acquire();
    --serving_;
    return !over_;
  }
  void serve(client& c) {
    ++serving_;  // parked, as the others see it: there is one worker
    for (;;) {
      c.wake.acquire();
      if (over_) return;
      ++served_;
    }
  }

  const setting setting_;
  std::vector<client> clients_;
  std::size_t serving_ = 0;  // who waits; one worker: no two fibers at once
  std::size_t next_ = 0;
  std::int64_t served_ = 0;
  bool over_ = false;
  bool turning_ = false;
  tendril::tasklet_stats copied_;
  tendril::runtime runtime_;  // ends first: its fibers use the rest
};

}  // namespace bench
