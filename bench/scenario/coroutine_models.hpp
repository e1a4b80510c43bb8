// SPDX-License-Identifier: Apache-2.0
//
// The kinds of coroutine that experiments are written for, each under the name of its variants.
#pragma once

#include "bench/models/async1/task.hpp"
#include "bench/scenario/resumption.hpp"

#include <tendril/task.hpp>

namespace bench {

/// "task"
template <class T>
using tendril_task = tendril::task<T>;

/// "async1"
template <class T>
using async1_task = async1::task<T>;

/// Has begun already, and keeps itself; what it throws stays in it, as in .NET.
template <class T>
void run_detached(async1::task<T> /*nobody waits for it*/) {}

}  // namespace bench
