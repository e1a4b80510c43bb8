// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/e14_traces.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <list>
#include <numeric>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <utility>

namespace bench {
namespace {

constexpr std::uint32_t active_connections = 64;
constexpr std::uint32_t requests_until_idle = 50;
constexpr std::uint32_t requests_until_closed = 1'000;

double share(std::size_t part, std::size_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

double least_recent_hits(const std::vector<std::uint32_t>& clients, std::size_t slots,
                         std::size_t from) {
  std::list<std::uint32_t> recent;  // the latest first
  std::unordered_map<std::uint32_t, std::list<std::uint32_t>::iterator> in;
  std::size_t hits = 0;
  for (std::size_t i = 0; i != clients.size(); ++i) {
    const std::uint32_t c = clients[i];
    if (const auto found = in.find(c); found != in.end()) {
      recent.splice(recent.begin(), recent, found->second);
      if (i >= from) ++hits;
      continue;
    }
    if (in.size() == slots) {
      in.erase(recent.back());
      recent.pop_back();
    }
    recent.push_front(c);
    in[c] = recent.begin();
  }
  return share(hits, clients.size() - from);
}

double best_hits(const std::vector<std::uint32_t>& clients, std::size_t slots, std::size_t from) {
  constexpr std::size_t never = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> next(clients.size(), never);  // when the client of each is wanted again
  std::unordered_map<std::uint32_t, std::size_t> later;
  for (std::size_t i = clients.size(); i-- != 0;) {
    const auto [at, first] = later.try_emplace(clients[i], i);
    if (!first) next[i] = std::exchange(at->second, i);
  }
  std::set<std::pair<std::size_t, std::uint32_t>> in;  // by when it is wanted
  std::size_t hits = 0;
  for (std::size_t i = 0; i != clients.size(); ++i) {
    if (in.erase({i, clients[i]}) != 0) {
      if (i >= from) ++hits;
    } else if (in.size() == slots) {
      in.erase(std::prev(in.end()));
    }
    in.insert({next[i], clients[i]});
  }
  return share(hits, clients.size() - from);
}

}  // namespace

wake_trace::wake_trace(const std::string& name, std::uint32_t clients, std::uint64_t seed)
    : kind_(name == "uniform"  ? kind::uniform
            : name == "skew"   ? kind::skew
            : name == "server" ? kind::server
                               : throw std::invalid_argument("unknown trace '" + name +
                                                             "'; known: uniform, skew, server")),
      random_(seed * 2 + 1),
      active_(std::min(active_connections, clients)),
      order_(clients),
      client_at_(clients),
      woken_in_(clients, 0),
      clients_seen_(clients) {
  if (clients == 0) throw std::invalid_argument("a trace needs clients");
  std::iota(order_.begin(), order_.end(), 0U);
  std::iota(client_at_.begin(), client_at_.end(), 0U);
  if (kind_ == kind::uniform) return;
  for (std::uint32_t i = clients; i > 1; --i) std::swap(order_[i - 1], order_[draw(i)]);
}

std::uint32_t wake_trace::draw(std::uint32_t below) noexcept {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return static_cast<std::uint32_t>((random_ >> 16) % below);
}

/// It changes with one of the idle.
void wake_trace::go_idle(std::uint32_t active_index) noexcept {
  const auto idle = static_cast<std::uint32_t>(order_.size()) - active_;
  if (idle != 0) std::swap(order_[active_index], order_[active_ + draw(idle)]);
}

std::uint32_t wake_trace::next_place() noexcept {
  const auto n = static_cast<std::uint32_t>(order_.size());
  switch (kind_) {
    case kind::uniform:
      return std::exchange(turn_, (turn_ + 1) % n);
    case kind::skew: {
      const std::uint32_t hot = std::max(n / 10, 1U);
      if (draw(10) != 0 || hot == n) return order_[draw(hot)];
      return order_[hot + draw(n - hot)];
    }
    case kind::server:
      break;
  }
  const std::uint32_t i = draw(active_);
  const std::uint32_t place = order_[i];
  if (draw(requests_until_idle) == 0) go_idle(i);
  return place;
}

const std::vector<wake>& wake_trace::next_batch() {
  const std::size_t size = std::min({batch_size, order_.size(), std::size_t{active_}});
  ++batch_number_;
  batch_.clear();
  while (batch_.size() != size) {
    const std::uint32_t place = next_place();
    if (std::exchange(woken_in_[place], batch_number_) == batch_number_) continue;
    const bool last = kind_ == kind::server && draw(requests_until_closed) == 0;
    batch_.push_back({place, client_at_[place], last});
    if (last) client_at_[place] = clients_seen_++;
  }
  return batch_;
}

cache_yardstick yardstick_of(wake_trace trace, std::size_t slots, std::size_t warm_up_wakes,
                             std::size_t wakes) {
  std::vector<std::uint32_t> clients;
  while (clients.size() < warm_up_wakes + wakes)
    for (const wake& w : trace.next_batch()) clients.push_back(w.client);
  return {least_recent_hits(clients, slots, warm_up_wakes),
          best_hits(clients, slots, warm_up_wakes)};
}

}  // namespace bench
