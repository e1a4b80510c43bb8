// SPDX-License-Identifier: Apache-2.0
//
// The kinds of coroutine that experiments are written for, each under the name of its variants.
#pragma once

#include "bench/models/async1/task.hpp"

#include <tendril/task.hpp>

#include <utility>

namespace bench {

/// "task"
template <class T>
using tendril_task = tendril::task<T>;

/// "async1"
template <class T>
using async1_task = async1::task<T>;

/// Runs a coroutine that nobody waits for. What it throws is lost: its results are checked.
template <class T>
void run_detached(tendril::task<T> t) {
  static_cast<void>(tendril::start(std::move(t)));
}
/// Has begun already, and keeps itself.
template <class T, class Features>
void run_detached(async1::task<T, Features> /*the last handle*/) {}

}  // namespace bench
