// SPDX-License-Identifier: Apache-2.0
#include "context/context.hpp"

#if TENDRIL_ASAN
#include <pthread.h>
#endif

namespace tendril::detail {

void context::adopt_thread() noexcept {
#if TENDRIL_ASAN
  pthread_attr_t attributes;
  void* low = nullptr;
  std::size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &low, &bytes);
    pthread_attr_destroy(&attributes);
  }
  stack_low = low;
  stack_bytes = bytes;
#endif
#if TENDRIL_TSAN
  tsan_fiber = __tsan_get_current_fiber();
#endif
}

}  // namespace tendril::detail
