// SPDX-License-Identifier: Apache-2.0
//
// The parts of tendril-thread-pointer.
#pragma once

namespace bench::thread_pointer {

/// What a thread pointer of its own costs a fiber.
void print_costs(unsigned cycles);

/// What breaks. Each case runs in a child. `check`: compares with what the decision page says; false when they differ.
bool print_hazards(bool check);

}  // namespace bench::thread_pointer
