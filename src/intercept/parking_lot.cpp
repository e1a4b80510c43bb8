// SPDX-License-Identifier: Apache-2.0
#include "intercept/parking_lot.hpp"

#include "base/static_tables.hpp"

#include <array>
#include <vector>

namespace tendril::detail {

constinit std::uint32_t parking_lot::in_use = 0;

namespace {

constexpr unsigned bucket_bits = 8;
constinit std::array<lot_bucket, std::size_t{1} << bucket_bits> buckets{};
const static_table buckets_noted(buckets);

constexpr unsigned silent_bits = 12;
constinit std::array<std::atomic<bool>, std::size_t{1} << silent_bits> silent{};
const static_table silent_noted(silent);

/// Until when, by the clock.
constinit std::array<std::atomic<time_point::rep>, std::size_t{1} << silent_bits> kept{};
const static_table kept_noted(kept);

// The golden ratio spreads addresses of one allocator, which have their low bits in common.
std::size_t hash(const void* key, unsigned bits) noexcept {
  return (reinterpret_cast<std::uintptr_t>(key) * std::uint64_t{0x9E3779B97F4A7C15U}) >>
         (64 - bits);
}

}  // namespace

lot_bucket& parking_lot::bucket_of(const void* key) noexcept {
  return buckets[hash(key, bucket_bits)];
}

bool parking_lot::is_silent(const void* key) noexcept {
  return silent[hash(key, silent_bits)].load(std::memory_order_relaxed);
}

void parking_lot::mark_silent(const void* key) noexcept {
  std::atomic<bool>& mark = silent[hash(key, silent_bits)];
  // Both loads seq_cst: who stands in line counts itself and then, after a full fence, looks at the mark. So if we find
  // nobody counted, who comes later sees the mark that we have seen, whoever made it.
  const bool marked = mark.load(std::memory_order_seq_cst);
  if (marked && users().load(std::memory_order_seq_cst) == 0) return;
  if (!marked) mark.store(true, std::memory_order_relaxed);
  // Who is in line has perhaps come before the mark, or behind somebody who has the lock by now. Who comes later takes
  // the bucket's lock after us, and sees the mark.
  wake_first(key);
}

bool parking_lot::is_kept(const void* key) noexcept {
  const auto until = kept[hash(key, silent_bits)].load(std::memory_order_relaxed);
  return until != 0 && clock::now().time_since_epoch().count() < until;
}

void parking_lot::mark_kept(const void* key) noexcept {
  kept[hash(key, silent_bits)].store((clock::now() + forgiveness).time_since_epoch().count(),
                                     std::memory_order_relaxed);
}

bool lot_bucket::is_first(const wait_node& n) const noexcept {
  const wait_node* first = line_.front();
  while (first->cell != n.cell) first = first->next;
  return first == &n;
}

wait_node& lot_bucket::enlist(const void* key, bool first, std::uint32_t mark) noexcept {
  wait_node& n = own_node(current_waiter());
  n.cell = const_cast<void*>(key);
  n.index = mark;
  if (first) line_.push_front(n);
  else line_.push_back(n);
  parking_lot::users().fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before the caller tries, see the head
  return n;
}

void lot_bucket::delist(wait_node& n) noexcept {
  if (n.result.load(std::memory_order_relaxed) == outcome::waiting) line_.remove(n);
  parking_lot::users().fetch_sub(1, std::memory_order_relaxed);
}

outcome lot_bucket::park(wait_node& n, const wait_options& options) {
  outcome how = outcome::signalled;
  if (n.result.load(std::memory_order_relaxed) != outcome::waiting) lock.unlock();
  else how = wait_locked(lock, line_, n, options);
  parking_lot::users().fetch_sub(1, std::memory_order_relaxed);
  return how;
}

waiter* lot_bucket::take_first(const void* key) noexcept {
  for (wait_node* n = line_.front(); n != nullptr; n = n->next) {
    if (n->cell != key) continue;
    line_.remove(*n);
    return complete(*n);
  }
  return nullptr;
}

owner_record* lot_bucket::owner_of(const void* key) noexcept {
  owner_record* r = records_;
  while (r != nullptr && r->key != key) r = r->next;
  return r;
}

void lot_bucket::own(owner_record& r, const void* key, const fiber_core* owner) noexcept {
  r = {key, owner, 1, records_};
  records_ = &r;
  parking_lot::users().fetch_add(1, std::memory_order_relaxed);  // for the owner itself
}

void lot_bucket::disown(owner_record& r) noexcept {
  owner_record** link = &records_;
  while (*link != &r) link = &(*link)->next;
  *link = r.next;
  parking_lot::users().fetch_sub(1, std::memory_order_relaxed);
}

void parking_lot::wake_first(const void* key) noexcept {
  lot_bucket& b = bucket_of(key);
  b.lock.lock();
  waiter* const who = b.take_first(key);
  b.lock.unlock();
  if (who != nullptr) unpark(who);
}

void parking_lot::wake_everybody() {
  std::vector<waiter*> who;
  for (lot_bucket& b : buckets) {
    // All at once: those who look in vain stand in line again, in front.
    for (std::size_t count = 0;; who.reserve(count)) {
      b.lock.lock();
      count = 0;
      for (const wait_node* n = b.line_.front(); n != nullptr; n = n->next) ++count;
      if (count <= who.capacity()) break;
      b.lock.unlock();
    }
    while (wait_node* const n = b.line_.pop_front()) who.push_back(complete(*n));
    b.lock.unlock();
    for (waiter* const one : who) unpark(one);
    who.clear();
  }
}

unsigned lot_bucket::wake_locked(const void* key, std::uint32_t bits, std::size_t most) noexcept {
  constexpr unsigned portion = 32;
  unsigned woken = 0;
  bool more = true;
  while (more) {
    waiter* who[portion];
    unsigned count = 0;
    wait_node* next = line_.front();
    while (next != nullptr && count != portion && woken + count != most) {
      wait_node& n = *next;
      next = n.next;
      if (n.cell != key || (bits != 0 && (n.index & bits) == 0)) continue;
      line_.remove(n);
      who[count++] = complete(n);
    }
    lock.unlock();
    for (unsigned i = 0; i != count; ++i) unpark(who[i]);
    woken += count;
    more = count == portion && woken != most;
    if (more) lock.lock();
  }
  return woken;
}

void parking_lot::wake_all(const void* key) noexcept { wake_some(key, 0, ~0U); }

unsigned parking_lot::wake_some(const void* key, std::uint32_t bits, unsigned most) noexcept {
  lot_bucket& b = bucket_of(key);
  b.lock.lock();
  // Counted first: those who are woken and stand in line again are not meant.
  unsigned there = 0;
  for (const wait_node* n = b.line_.front(); n != nullptr && there != most; n = n->next)
    there += n->cell == key && (bits == 0 || (n->index & bits) != 0);
  return b.wake_locked(key, bits, there);
}

void parking_lot::wake_sharers(const void* key) noexcept {
  if (wake_some(key, 1, ~0U) == 0) wake_first(key);
}

}  // namespace tendril::detail
