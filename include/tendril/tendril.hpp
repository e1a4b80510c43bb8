// SPDX-License-Identifier: Apache-2.0
//
// Everything. Programs that build often include what they use instead.
#pragma once

#include <tendril/ambient.hpp>
#include <tendril/async.hpp>
#include <tendril/await.hpp>
#include <tendril/barrier.hpp>
#include <tendril/buffer.hpp>
#include <tendril/cancelable_calls.hpp>
#include <tendril/channel.hpp>
#include <tendril/condition_variable.hpp>
#include <tendril/config.hpp>
#include <tendril/context.hpp>
#include <tendril/error.hpp>
#include <tendril/ffi.hpp>
#include <tendril/fiber.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/future.hpp>
#include <tendril/inspect.hpp>
#include <tendril/intercept.hpp>
#include <tendril/io.hpp>
#include <tendril/latch.hpp>
#include <tendril/loop_context.hpp>
#include <tendril/mutex.hpp>
#include <tendril/net.hpp>
#include <tendril/once.hpp>
#include <tendril/pin.hpp>
#include <tendril/runtime.hpp>
#include <tendril/scope.hpp>
#include <tendril/select.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/shared_mutex.hpp>
#include <tendril/stack.hpp>
#include <tendril/synchronization_context.hpp>
#include <tendril/task.hpp>
#include <tendril/throttling_context.hpp>
#include <tendril/thunk.hpp>
#include <tendril/when.hpp>
