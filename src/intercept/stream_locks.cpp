// SPDX-License-Identifier: Apache-2.0
//
// The second lock of a stream: see stream.hpp. An entry for each stream that is held or waited for, in a table by
// address; made when it is taken, gone when it is free. Handed over to whoever waits longest.
#include <cstdint>
#include <memory>
#include <new>

#include <tendril/fiber.hpp>

#include "intercept/install.hpp"
#include "intercept/stream.hpp"
#include "sched/thread_stay.hpp"
#include "sched/worker_thread.hpp"

namespace tendril::detail {
namespace {

struct held_stream {
  std::FILE* stream;
  waiter* owner;
  unsigned depth;
  held_stream* next;
  wait_list waiters;
};

struct bucket {
  tiny_lock lock;
  held_stream* first = nullptr;

  held_stream* find_locked(const std::FILE* stream) const noexcept {
    held_stream* h = first;
    while (h != nullptr && h->stream != stream) h = h->next;
    return h;
  }
  void remove_locked(held_stream* h) noexcept {
    held_stream** place = &first;
    while (*place != h) place = &(*place)->next;
    *place = h->next;
  }
};

constexpr std::size_t bucket_count = 64;
bucket buckets[bucket_count];
std::atomic<std::size_t> held{0};

bucket& bucket_of(const std::FILE* stream) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(stream);
  return buckets[(address >> 4 ^ address >> 12) % bucket_count];
}

/// 1: held; 0: somebody else has it; -1: no memory.
int acquire(std::FILE* stream, bool wait) {
  auto fresh = std::unique_ptr<held_stream>(new (std::nothrow) held_stream{});
  if (fresh == nullptr) return -1;
  waiter* const self = current_waiter();
  bucket& b = bucket_of(stream);
  b.lock.lock();
  held_stream* const h = b.find_locked(stream);
  if (h == nullptr) {
    fresh->stream = stream;
    fresh->owner = self;
    fresh->depth = 1;
    fresh->next = b.first;
    b.first = fresh.release();
    held.fetch_add(1, std::memory_order_relaxed);
    b.lock.unlock();
    return 1;
  }
  if (h->owner == self) {
    ++h->depth;
    b.lock.unlock();
    return 1;
  }
  if (!wait) {
    b.lock.unlock();
    return 0;
  }
  wait_node& node = own_node(self);
  h->waiters.push_back(node);
  // Whoever completes the node has made us the owner.
  wait_locked(b.lock, h->waiters, node,
              {.cancelable = false, .reason = "flockfile", .on_context = false});
  return 1;
}

/// By the owner.
void release(std::FILE* stream) noexcept {
  bucket& b = bucket_of(stream);
  b.lock.lock();
  held_stream* const h = b.find_locked(stream);
  if (--h->depth != 0) {
    b.lock.unlock();
    return;
  }
  if (wait_node* const next = h->waiters.pop_front()) {
    h->depth = 1;
    h->owner = next->who;
    waiter* const who = complete(*next);
    b.lock.unlock();
    unpark(who);
    return;
  }
  b.remove_locked(h);
  held.fetch_sub(1, std::memory_order_relaxed);
  b.lock.unlock();
  delete h;
}

bool is_mine(std::FILE* stream) noexcept {
  bucket& b = bucket_of(stream);
  b.lock.lock();
  const held_stream* const h = b.find_locked(stream);
  const bool mine = h != nullptr && h->owner == current_waiter();
  b.lock.unlock();
  return mine;
}

/// libc's own lock, when no fiber has the stream: a thread may, perhaps while it waits in a read. There is no event
/// for its end.
void lock_against_threads(std::FILE* stream) {
  auto pause = std::chrono::microseconds(20);
  constexpr auto longest = std::chrono::microseconds(5000);
  while (real().ftrylockfile(stream) != 0) {
    wait_until_done([](const void*) noexcept { return false; }, nullptr,
                    {.deadline = clock::now() + pause,
                     .cancelable = false,
                     .reason = "flockfile",
                     .on_context = false});
    if (pause < longest) pause *= 2;
  }
}

}  // namespace

bool any_stream_held() noexcept {
  // Relaxed: what the calling thread's own fibers have done it knows; those of others do not matter (stream.hpp).
  return held.load(std::memory_order_relaxed) != 0;
}

bool held_by_another(std::FILE* stream) noexcept {
  bucket& b = bucket_of(stream);
  b.lock.lock();
  const held_stream* const h = b.find_locked(stream);
  const bool is = h != nullptr && h->owner != current_waiter();
  b.lock.unlock();
  return is;
}

bool hold_stream(std::FILE* stream) {
  enter_stay();
  if (acquire(stream, true) < 0) {
    leave_stay();
    return false;
  }
  lock_against_threads(stream);
  return true;
}

bool try_hold_stream(std::FILE* stream) {
  enter_stay();
  if (acquire(stream, false) > 0) {
    if (real().ftrylockfile(stream) == 0) return true;
    release(stream);
  }
  leave_stay();
  return false;
}

bool release_stream(std::FILE* stream) {
  if (!is_mine(stream)) return false;
  // libc's first: who is handed the second wants both.
  real().funlockfile(stream);
  release(stream);
  leave_stay();
  return true;
}

bool hold_against_fibers(std::FILE* stream) {
  if (is_mine(stream)) return false;
  enter_stay();
  const bool held = acquire(stream, true) > 0;
  if (!held) leave_stay();
  return held;
}

void release_against_fibers(std::FILE* stream) noexcept {
  release(stream);
  leave_stay();
}

bool holds_a_stream() noexcept {
  if (!any_stream_held()) return false;
  waiter* const self = current_waiter();
  for (bucket& b : buckets) {
    b.lock.lock();
    bool mine = false;
    for (const held_stream* h = b.first; h != nullptr; h = h->next) mine = mine || h->owner == self;
    b.lock.unlock();
    if (mine) return true;
  }
  return false;
}

}  // namespace tendril::detail
