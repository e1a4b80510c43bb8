// SPDX-License-Identifier: Apache-2.0
//
// Which sanitizers this translation unit is compiled with, as 0 or 1: gcc and clang tell it in
// different ways. Here and not in src/base because a default in <tendril/stack.hpp> depends on it.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define TENDRIL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TENDRIL_ASAN 1
#endif
#endif
#ifndef TENDRIL_ASAN
#define TENDRIL_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define TENDRIL_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TENDRIL_TSAN 1
#endif
#endif
#ifndef TENDRIL_TSAN
#define TENDRIL_TSAN 0
#endif
