// SPDX-License-Identifier: Apache-2.0
//
// Contract: a full memory barrier on every thread of the process, paid for by whoever asks.
//
// It is the rare side of an asymmetric protocol. The frequent side orders a store before a load by
// light_barrier(), which costs nothing: it only keeps the compiler from reordering. The rare side stores,
// calls heavy_barrier(), loads. Then one of the two sees the other's store, as if both had fenced.
#pragma once

#include <atomic>

namespace tendril::platform {

/// Before the first heavy_barrier(); later calls do nothing. False where the system has none (Linux
/// before 4.14, a seccomp filter): then heavy_barrier() always fails.
bool prepare_heavy_barrier() noexcept;

/// A full barrier on every thread of the process, between call and return. Costs an interrupt on each
/// processor that runs one. False: it did not happen.
bool heavy_barrier() noexcept;

inline void light_barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// For tests: heavy barriers fail until it is called with false.
void fail_heavy_barriers(bool fail) noexcept;

}  // namespace tendril::platform
