// SPDX-License-Identifier: Apache-2.0
//
// TENDRIL_TAIL_TRANSFER: whether the compiler makes a jump of a coroutine's transfer to another, as 0 or 1. gcc
// does at -O2, unless a sanitizer wants to see functions return; clang always, of late. To be defined as 0 where
// gcc compiles with -O1 or -Og, which it does not tell. It may differ between the files of a program: whoever
// awaits decides how.
#pragma once

#include <tendril/detail/sanitizers.hpp>

#ifndef TENDRIL_TAIL_TRANSFER
#if defined(__clang__)
#define TENDRIL_TAIL_TRANSFER (__clang_major__ >= 19)
#elif defined(__OPTIMIZE__) && !TENDRIL_ASAN && !TENDRIL_TSAN
#define TENDRIL_TAIL_TRANSFER 1
#else
#define TENDRIL_TAIL_TRANSFER 0
#endif
#endif
