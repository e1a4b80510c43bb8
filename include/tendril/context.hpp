// SPDX-License-Identifier: Apache-2.0
//
// Contexts that flow with control, all of them: variables of a flow, values that its children inherit, and
// where continuations run. See docs/contexts.md.
#pragma once

#include <tendril/ambient.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/loop_context.hpp>
#include <tendril/synchronization_context.hpp>
#include <tendril/throttling_context.hpp>
